//! Which parameters a policy has, how they start, and how they turn observations into distribution
//! parameters and values.
//!
//! Actor and learner run this same code: the actor over a snapshot's tensors, which record no graph; the
//! learner over its variables.

use candle_core::{DType, Device, Tensor};

use super::core::{self, Core, CoreSpec, Role};
use super::distribution::ActionDistribution;
use super::head::{self, NoiseFeatures, PolicyHead};
use super::normalizer::{self, Normalizer};
use super::snapshot::Weights;
use super::value_scale;
use crate::config::{self, PolicySection, RunConfig};
use crate::kernels::{self, Activation, Cell, Sequence};
use crate::random::{self, Purpose, Stream};
use crate::space::{ElementType, EnvironmentSpec, Space};
use crate::stacking::StackError;

/// Most weights of a policy: what goes out with every version must stay within reason, and an actor that offers
/// an enormous space must not take the learner's memory.
const MAX_WEIGHTS: usize = 1 << 26;

/// A policy that cannot be built or run.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// No policy for such a space.
    #[error("no policy for {0}")]
    Space(String),
    /// Observations that the policy cannot see several of at once.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// States that are not those of the policy's core.
    #[error("the policy's core remembers {expected} numbers of these copies, got {found}")]
    State {
        /// Numbers that it has for them.
        expected: usize,
        /// Numbers given.
        found: usize,
    },
    /// Weights that do not fit the policy.
    #[error("weights do not fit: {0}")]
    Weights(String),
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// A policy's architecture: sizes follow from the environment's spaces and the configuration.
#[derive(Debug, Clone)]
pub struct PolicySpec {
    observation: Space,
    distribution: ActionDistribution,
    section: PolicySection,
}

/// How a parameter starts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Init {
    /// An orthogonal matrix (Saxe et al. 2013, arXiv 1312.6120), scaled.
    Orthogonal { gain: f32 },
    /// One value everywhere.
    Constant(f32),
    /// An LSTM's bias: this value at the forget gates, else 0.
    ForgetGates(f32),
}

/// One parameter: its name, shape and start.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ParameterSpec {
    name: String,
    shape: Vec<usize>,
    init: Init,
}

impl ParameterSpec {
    /// A parameter that starts with one value everywhere.
    pub(super) fn constant(name: &str, shape: Vec<usize>, value: f32) -> Self {
        Self { name: name.into(), shape, init: Init::Constant(value) }
    }

    /// The weight and bias of a fully connected layer.
    pub(super) fn linear(name: &str, inputs: usize, outputs: usize, gain: f32, bias: f32) -> [Self; 2] {
        let weight = Self {
            name: format!("{name}.weight"),
            shape: vec![outputs, inputs],
            init: Init::Orthogonal { gain },
        };
        [weight, Self::constant(&format!("{name}.bias"), vec![outputs], bias)]
    }
}

impl PolicySpec {
    /// The policy of a run with the given configuration in `environment`, of which it sees as many frames at once as the
    /// configuration says.
    ///
    /// # Errors
    /// If there is no policy for one of the environment's spaces, or its observations cannot be stacked.
    pub fn of_run(config: &RunConfig, environment: &EnvironmentSpec) -> Result<Self, PolicyError> {
        Self::new(&environment.stacked(config.environment.frame_stack)?, &config.policy)
    }

    /// The policy for `environment` as it is seen, with the given configuration.
    ///
    /// # Errors
    /// If there is no policy for one of the environment's spaces.
    pub fn new(environment: &EnvironmentSpec, section: &PolicySection) -> Result<Self, PolicyError> {
        let distribution = match section.squash {
            true => ActionDistribution::squashed(&environment.action),
            false => ActionDistribution::new(&environment.action),
        };
        let distribution = distribution
            .map_err(|e| PolicyError::Space(format!("action space {}: {e}", environment.action)))?;
        let spec =
            Self { observation: environment.observation.clone(), distribution, section: section.clone() };
        let weights = spec.weight_count();
        if weights > MAX_WEIGHTS {
            return Err(PolicyError::Space(format!(
                "observations {} and actions {}: it would have {weights} weights, at most {MAX_WEIGHTS}; lower \
                 policy.hidden, or make the environment's spaces smaller",
                environment.observation, environment.action
            )));
        }
        Ok(spec)
    }

    /// Numbers in all parameters together.
    fn weight_count(&self) -> usize {
        let sizes = self.parameters().into_iter();
        sizes
            .map(|p| p.shape.iter().fold(1, |n: usize, &d| n.saturating_mul(d)))
            .fold(0, usize::saturating_add)
    }

    /// What the policy sees: the environment's observations, or stacks of them.
    pub fn observation(&self) -> &Space {
        &self.observation
    }

    /// What the policy head's numbers mean.
    pub fn distribution(&self) -> &ActionDistribution {
        &self.distribution
    }

    /// I: numbers that the encoder sees of one observation.
    pub fn input_len(&self) -> usize {
        self.observation.flat_len()
    }

    /// S: numbers that the policy's core remembers of a copy of the environment; 0 for a policy without memory.
    pub fn core_state_len(&self) -> usize {
        self.core().map_or(0, CoreSpec::state_len)
    }

    fn core(&self) -> Option<CoreSpec> {
        CoreSpec::new(&self.section)
    }

    /// Numbers that the encoder gives.
    fn encoded_len(&self) -> usize {
        self.section.hidden.last().copied().unwrap_or(self.input_len())
    }

    /// Numbers that the heads see.
    fn features(&self) -> usize {
        self.core().map_or(self.encoded_len(), |core| core.size)
    }

    /// Numbers that the value head sees: the policy's where it shares its layers, else those of layers of its own, beside what
    /// the policy's core remembers.
    fn value_features(&self) -> usize {
        match self.section.shared_encoder {
            true => self.features(),
            false => self.encoded_len() + self.core().map_or(0, |core| core.size),
        }
    }

    /// Names of the stacks of hidden layers: the policy's, and the value's where it has one of its own.
    fn encoders(&self) -> &'static [&'static str] {
        if self.section.shared_encoder { &["encoder"] } else { &["encoder", "value_encoder"] }
    }

    /// Whether observations are normalised: real numbers alone, and if the configuration asks for it.
    pub fn normalizes(&self) -> bool {
        self.section.normalize_observations && self.observation.dtype() == ElementType::F32
    }

    /// Whether the value head speaks of normalised values, if the configuration asks for it.
    pub fn normalizes_values(&self) -> bool {
        self.section.normalize_values
    }

    fn parameters(&self) -> Vec<ParameterSpec> {
        // The gain that keeps the variance of activations: 5/3 for tanh and sqrt(2) for rectifiers are usual;
        // actor-critic practice (Andrychowicz et al. 2020, arXiv 2006.05990) takes sqrt(2) for both.
        let hidden_gain = std::f32::consts::SQRT_2;
        let mut parameters = vec![];
        for encoder in self.encoders() {
            let mut inputs = self.input_len();
            for (layer, &width) in self.section.hidden.iter().enumerate() {
                let name = format!("{encoder}.{layer}");
                parameters.extend(ParameterSpec::linear(&name, inputs, width, hidden_gain, 0.0));
                inputs = width;
            }
        }
        let inputs = self.features();
        parameters.extend(head::output_parameters(&self.section, &self.distribution, inputs));
        parameters.extend(ParameterSpec::linear(
            "value",
            self.value_features(),
            1,
            self.section.value_gain,
            0.0,
        ));
        parameters.extend(head::log_std_parameters(&self.section, &self.distribution, inputs));
        for (name, role) in core::PARAMETERS {
            let Some(core) = self.core() else { break };
            let init = match role {
                Role::OfInput | Role::OfOutput => Init::Orthogonal { gain: 1.0 },
                Role::InputBias if core.cell == Cell::Lstm => {
                    Init::ForgetGates(self.section.core_forget_bias)
                }
                Role::InputBias | Role::OutputBias => Init::Constant(0.0),
            };
            let shape = core.shape(role, self.encoded_len());
            parameters.push(ParameterSpec { name: name.into(), shape, init });
        }
        if self.normalizes() {
            let inputs = self.input_len();
            let start = [
                (normalizer::MEAN, inputs, 0.0),
                (normalizer::VARIANCE, inputs, 1.0),
                (normalizer::COUNT, 1, 0.0),
            ];
            parameters
                .extend(start.map(|(name, len, value)| ParameterSpec::constant(name, vec![len], value)));
        }
        if self.normalizes_values() {
            let start = [(value_scale::MEAN, 0.0), (value_scale::VARIANCE, 1.0), (value_scale::MASS, 0.0)];
            parameters.extend(start.map(|(name, value)| ParameterSpec::constant(name, vec![1], value)));
        }
        parameters
    }

    /// The weights that a run with this seed starts from.
    ///
    /// # Errors
    /// If memory runs out.
    pub fn initialise(&self, seed: u64) -> Result<Weights, PolicyError> {
        let mut stream = random::stream(seed, Purpose::Parameters, [0; 3]);
        let make = |p: ParameterSpec| {
            let values = match p.init {
                Init::Constant(value) => vec![value; p.shape.iter().product()],
                Init::ForgetGates(value) => {
                    let gate = p.shape[0] / Cell::Lstm.gates();
                    (0..p.shape[0]).map(|at| if at / gate == 1 { value } else { 0.0 }).collect()
                }
                Init::Orthogonal { gain } => orthogonal(p.shape[0], p.shape[1], gain, &mut stream),
            };
            Ok((p.name, Tensor::from_vec(values, p.shape, &Device::Cpu)?))
        };
        Ok(Weights(self.parameters().into_iter().map(make).collect::<Result<_, PolicyError>>()?))
    }
}

/// A `[rows, columns]` matrix with orthonormal rows or columns, whichever are fewer, times `gain`, in C order.
pub fn orthogonal(rows: usize, columns: usize, gain: f32, stream: &mut Stream) -> Vec<f32> {
    let (count, len) = (rows.min(columns), rows.max(columns));
    let mut basis: Vec<Vec<f64>> = Vec::with_capacity(count);
    while basis.len() < count {
        let mut vector: Vec<f64> = (0..len).map(|_| random::normal(stream)).collect();
        // Twice is enough for orthogonality to machine precision.
        for other in basis.iter().chain(basis.iter()) {
            let dot: f64 = vector.iter().zip(other).map(|(a, b)| a * b).sum();
            vector.iter_mut().zip(other).for_each(|(a, b)| *a -= dot * b);
        }
        let norm = vector.iter().map(|v| v * v).sum::<f64>().sqrt();
        if norm > 1e-6 {
            vector.iter_mut().for_each(|v| *v /= norm);
            basis.push(vector);
        }
    }
    let at =
        |row: usize, column: usize| if rows <= columns { basis[row][column] } else { basis[column][row] };
    (0..rows * columns).map(|i| (at(i / columns, i % columns) * f64::from(gain)) as f32).collect()
}

/// A fully connected layer.
#[derive(Debug, Clone)]
pub(super) struct Linear {
    /// `[outputs, inputs]`.
    weight: Tensor,
    /// `[outputs]`.
    bias: Tensor,
    activation: Activation,
}

impl Linear {
    /// The layer called `name` of `weights`.
    pub(super) fn new(
        weights: &Weights,
        name: &str,
        inputs: usize,
        outputs: usize,
        activation: Activation,
    ) -> Result<Self, PolicyError> {
        Ok(Self {
            weight: weights.get(&format!("{name}.weight"), &[outputs, inputs])?,
            bias: weights.get(&format!("{name}.bias"), &[outputs])?,
            activation,
        })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor, PolicyError> {
        Ok(kernels::linear(x, &self.weight, &self.bias, self.activation)?)
    }
}

/// A policy with its weights in place.
#[derive(Debug, Clone)]
pub struct Policy {
    observation: Space,
    normalizer: Option<Normalizer>,
    encoder: Vec<Linear>,
    /// Hidden layers of the value estimate, where it does not share the policy's.
    value_encoder: Option<Vec<Linear>>,
    core: Option<Core>,
    policy_head: PolicyHead,
    value_head: Linear,
}

/// What the network says about N observations.
#[derive(Debug, Clone)]
pub struct PolicyOutput {
    /// `[N, P]`: parameters of the action distribution.
    pub distribution: Tensor,
    /// `[N]`: value estimates; normalised ones ([`value_scale`]) of a policy that learns such.
    pub values: Tensor,
}

/// What acting on N observations needs.
#[derive(Debug, Clone)]
pub struct Acting {
    /// `[N, P]`: parameters of the action distribution.
    pub distribution: Tensor,
    /// What the noise of actions is made of, if it is a function of the state.
    pub noise: Option<NoiseFeatures>,
}

impl Policy {
    /// The policy over `weights`, sharing their storage.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(spec: &PolicySpec, weights: &Weights) -> Result<Self, PolicyError> {
        let hidden = match spec.section.activation {
            config::Activation::Tanh => Activation::Tanh,
            config::Activation::Relu => Activation::Relu,
        };
        let stack = |name: &str| {
            let widths = &spec.section.hidden;
            let inputs = std::iter::once(spec.input_len()).chain(widths.iter().copied());
            let layers = inputs.zip(widths).enumerate();
            layers
                .map(|(layer, (i, &o))| Linear::new(weights, &format!("{name}.{layer}"), i, o, hidden))
                .collect()
        };
        let stacks = spec.encoders().iter().map(|name| stack(name)).collect::<Result<Vec<Vec<_>>, _>>()?;
        let mut stacks = stacks.into_iter();
        let encoder = stacks.next().unwrap_or_default();
        let core = spec.core().map(|core| Core::new(core, spec.encoded_len(), weights)).transpose()?;
        let inputs = spec.features();
        Ok(Self {
            observation: spec.observation.clone(),
            normalizer: spec.normalizes().then(|| Normalizer::new(weights, spec.input_len())).transpose()?,
            encoder,
            value_encoder: stacks.next(),
            core,
            policy_head: PolicyHead::new(&spec.section, &spec.distribution, inputs, weights)?,
            value_head: Linear::new(weights, "value", spec.value_features(), 1, Activation::Identity)?,
        })
    }

    /// Distribution parameters and values for `observations`, `[N, ...]`. A policy with memory takes each for the
    /// first of an episode.
    ///
    /// # Errors
    /// If the observations do not fit the space.
    pub fn forward(&self, observations: &Tensor) -> Result<PolicyOutput, PolicyError> {
        let rows = observations.dim(0)?;
        self.forward_sequence(observations, || Sequence::beginnings(rows, self.core_state_len()))
    }

    /// Distribution parameters and values for `observations`, `[R, ...]`, that follow one another as `sequence` says.
    /// It is asked of a policy with memory only: to others, rows are rows.
    ///
    /// # Errors
    /// If the observations do not fit the space, or the sequence the observations or the policy's core.
    pub fn forward_sequence(
        &self,
        observations: &Tensor,
        sequence: impl FnOnce() -> Sequence,
    ) -> Result<PolicyOutput, PolicyError> {
        let input = self.input(observations)?;
        let mut hidden = encode(&self.encoder, &input)?;
        if let Some(core) = &self.core {
            hidden = core.sequence(&hidden, sequence())?;
        }
        let features = match (&self.value_encoder, &self.core) {
            (None, _) => hidden.clone(),
            (Some(layers), None) => encode(layers, &input)?,
            // It knows what the policy remembers, and teaches it nothing.
            (Some(layers), Some(_)) => Tensor::cat(&[&encode(layers, &input)?, &hidden.detach()], 1)?,
        };
        let values = self.value_head.forward(&features)?.flatten_all()?;
        Ok(PolicyOutput { distribution: self.policy_head.forward(&hidden)?, values })
    }

    /// Distribution parameters alone, `[N, P]`, without memory as in [`Self::forward`].
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn distribution(&self, observations: &Tensor) -> Result<Tensor, PolicyError> {
        self.step(observations, &mut vec![0.0; observations.dim(0)? * self.core_state_len()])
    }

    /// S: numbers that it remembers of a copy of the environment; 0 without memory.
    pub fn core_state_len(&self) -> usize {
        self.core.as_ref().map_or(0, Core::state_len)
    }

    /// Distribution parameters alone, `[E, P]`, of [`Self::act`].
    ///
    /// # Errors
    /// As [`Self::act`].
    pub fn step(&self, observations: &Tensor, core_states: &mut [f32]) -> Result<Tensor, PolicyError> {
        Ok(self.act(observations, core_states)?.distribution)
    }

    /// What acting on the newest observations `[E, ...]` needs.
    ///
    /// `core_states` `[E, S]` is what the policy remembers of each copy, zeros where an episode begins; it becomes what
    /// it remembers after the step. A policy without memory has S = 0. No gradient goes through the core.
    ///
    /// # Errors
    /// If the observations do not fit the space, or the states the policy's core.
    pub fn act(&self, observations: &Tensor, core_states: &mut [f32]) -> Result<Acting, PolicyError> {
        let mut hidden = encode(&self.encoder, &self.input(observations)?)?;
        match &self.core {
            Some(core) => hidden = core.step(&hidden, core_states)?,
            None if core_states.is_empty() => {}
            None => return Err(PolicyError::State { expected: 0, found: core_states.len() }),
        }
        Ok(Acting {
            distribution: self.policy_head.forward(&hidden)?,
            noise: self.policy_head.noise(&hidden),
        })
    }

    /// What the first layer sees of `observations`, `[N, ...]`: `[N, I]` numbers.
    ///
    /// # Errors
    /// If the observations do not fit the space.
    pub fn input(&self, observations: &Tensor) -> Result<Tensor, PolicyError> {
        match &self.observation {
            Space::Discrete { n } => one_hot(observations, std::slice::from_ref(n)),
            Space::MultiDiscrete { nvec } => one_hot(observations, nvec),
            Space::Box { .. } => match observations.dtype() {
                DType::U8 => Ok((observations.flatten_from(1)?.to_dtype(DType::F32)? / 255.0)?),
                _ => {
                    let input = observations.flatten_from(1)?;
                    self.normalizer.as_ref().map_or(Ok(input.clone()), |normalizer| normalizer.apply(&input))
                }
            },
        }
    }
}

/// `input`, `[N, I]`, after all `layers`.
fn encode(layers: &[Linear], input: &Tensor) -> Result<Tensor, PolicyError> {
    layers.iter().try_fold(input.clone(), |x, layer| layer.forward(&x))
}

/// Observations of choices, `[N]` or `[N, k]`, as rows of one-hot codes: choice `i` of an observation is a single 1 among
/// `nvec[i]` numbers, and the codes of its `k` choices stand one after another.
fn one_hot(choices: &Tensor, nvec: &[u32]) -> Result<Tensor, PolicyError> {
    let choices = choices.flatten_all()?.to_dtype(DType::I64)?.to_vec1::<i64>()?;
    let width: usize = nvec.iter().map(|&n| n as usize).sum();
    let rows = choices.len() / nvec.len().max(1);
    let mut codes = vec![0f32; rows * width];
    let mut rest = codes.as_mut_slice();
    for (choice, &n) in choices.iter().zip(nvec.iter().cycle()) {
        let (code, after) = rest.split_at_mut(n as usize);
        let cell = usize::try_from(*choice).ok().and_then(|choice| code.get_mut(choice));
        *cell
            .ok_or_else(|| PolicyError::Space(format!("observation {choice}, one of {n} alternatives")))? =
            1.0;
        rest = after;
    }
    Ok(Tensor::from_vec(codes, (rows, width), &Device::Cpu)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{CoreKind, Exploration, LogStd};
    use crate::policy::Snapshot;

    fn spec(action: Space) -> PolicySpec {
        let environment = EnvironmentSpec::new("Test-v0", Space::boxed(&[-1.0; 4], &[1.0; 4]), action);
        PolicySpec::new(&environment, &section()).unwrap()
    }

    fn section() -> PolicySection {
        PolicySection { hidden: vec![8, 6], ..PolicySection::default() }
    }

    #[test]
    fn initial_weights_are_orthogonal_and_follow_the_seed() {
        let spec = spec(Space::Discrete { n: 3 });
        let weights = spec.initialise(5).unwrap();
        let w = weights.get("encoder.0.weight", &[8, 4]).unwrap();
        let gram = w.t().unwrap().matmul(&w).unwrap().to_vec2::<f32>().unwrap();
        for (i, row) in gram.iter().enumerate() {
            for (j, &value) in row.iter().enumerate() {
                let expected = if i == j { 2.0 } else { 0.0 };
                assert!((value - expected).abs() < 1e-5, "gram[{i}][{j}] = {value}");
            }
        }
        let values =
            |seed| spec.initialise(seed).unwrap().0[0].1.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(values(5), values(5));
        assert_ne!(values(5), values(6));
    }

    #[test]
    fn a_value_encoder_of_its_own_leaves_the_policy_alone() {
        let shared = spec(Space::Discrete { n: 3 });
        let section = PolicySection { shared_encoder: false, ..shared.section.clone() };
        let apart = PolicySpec { section, ..shared.clone() };
        let weights = apart.initialise(3).unwrap();
        let observations = Tensor::new(&[[0.1f32, -0.2, 0.3, 0.4]], &Device::Cpu).unwrap();
        let run = |weights: &Weights| {
            let output = Policy::new(&apart, weights).unwrap().forward(&observations).unwrap();
            (output.distribution.to_vec2::<f32>().unwrap(), output.values.to_vec1::<f32>().unwrap())
        };
        let mut changed = weights.clone();
        for (name, tensor) in &mut changed.0 {
            if name.starts_with("value_encoder") {
                *tensor = (&*tensor * 2.0).unwrap();
            }
        }
        let ((policy, value), (policy_after, value_after)) = (run(&weights), run(&changed));
        assert_eq!(policy, policy_after);
        assert_ne!(value, value_after);
        assert!(shared.weight_count() < apart.weight_count());
    }

    #[test]
    fn a_policy_of_unreasonable_size_is_refused_before_any_memory_is_taken() {
        let small = || Space::boxed(&[-1.0], &[1.0]);
        for (observation, action) in [
            (small(), Space::Discrete { n: 2_000_000_000 }),
            (Space::Discrete { n: u32::MAX }, small()),
            (Space::boxed(&vec![-1.0; 1 << 24], &vec![1.0; 1 << 24]), Space::Discrete { n: 2 }),
        ] {
            let environment = EnvironmentSpec::new("Vast-v0", observation, action);
            let error = PolicySpec::new(&environment, &PolicySection::default()).unwrap_err().to_string();
            assert!(error.contains("weights, at most 67108864"), "{error}");
        }
    }

    #[test]
    fn observations_of_choices_enter_as_one_hot_codes_side_by_side() {
        let choices = Tensor::from_vec(vec![1i32, 2, 0, 0], (2, 2), &Device::Cpu).unwrap();
        let codes = one_hot(&choices, &[2, 3]).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(codes, [[0.0, 1.0, 0.0, 0.0, 1.0], [1.0, 0.0, 1.0, 0.0, 0.0]]);
        let single = Tensor::from_vec(vec![2i32, 0], 2, &Device::Cpu).unwrap();
        assert_eq!(
            one_hot(&single, &[3]).unwrap().to_vec2::<f32>().unwrap(),
            [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
        );
        for outside in [3i32, -1] {
            let choices = Tensor::from_vec(vec![1, outside], (1, 2), &Device::Cpu).unwrap();
            let error = one_hot(&choices, &[2, 3]).unwrap_err().to_string();
            assert!(error.contains(&format!("observation {outside}, one of 3 alternatives")), "{error}");
        }
    }

    #[test]
    fn a_snapshot_survives_its_encoding_in_order() {
        let weights = spec(Space::Discrete { n: 3 }).initialise(1).unwrap();
        let snapshot = Snapshot { version: 9, weights };
        let back = Snapshot::decode(&snapshot.encode().unwrap()).unwrap();
        assert_eq!(back.version, 9);
        let mut names: Vec<_> = snapshot.weights.0.iter().map(|(n, _)| n).collect();
        let mut back_names: Vec<_> = back.weights.0.iter().map(|(n, _)| n).collect();
        names.sort();
        back_names.sort();
        assert_eq!(back_names, names);
        for (name, tensor) in &snapshot.weights.0 {
            let other = back.weights.get(name, tensor.dims()).unwrap();
            let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(flat(tensor), flat(&other));
        }
    }

    #[test]
    fn a_squashed_policy_needs_bounds_and_says_so() {
        let section = PolicySection { squash: true, ..PolicySection::default() };
        let with = |action| EnvironmentSpec::new("Test-v0", Space::boxed(&[-1.0], &[1.0]), action);
        let spec = PolicySpec::new(&with(Space::boxed(&[-1.0], &[1.0])), &section).unwrap();
        assert!(spec.distribution().is_squashed());
        assert!(
            !PolicySpec::new(&with(Space::Discrete { n: 2 }), &section).unwrap().distribution().is_squashed()
        );
        let error = PolicySpec::new(&with(Space::boxed(&[-1.0], &[f32::INFINITY])), &section).unwrap_err();
        assert!(error.to_string().contains("set policy.squash = false"), "{error}");
    }

    #[test]
    fn every_parameter_of_every_network_gets_a_gradient() {
        let actions = [
            Space::Discrete { n: 3 },
            Space::MultiDiscrete { nvec: vec![2, 3] },
            Space::boxed(&[-1.0; 2], &[1.0; 2]),
        ];
        let sections = [
            PolicySection { shared_encoder: false, ..section() },
            PolicySection { log_std: LogStd::State, ..section() },
            PolicySection { core: CoreKind::Lstm, log_std: LogStd::State, ..section() },
            PolicySection { core: CoreKind::Gru, ..section() },
            PolicySection { core: CoreKind::Gru, exploration: Exploration::Gsde, ..section() },
            PolicySection { exploration: Exploration::Gsde, ..section() },
            section(),
        ];
        for (action, section) in actions.iter().flat_map(|a| sections.iter().map(move |s| (a, s))) {
            let spec = PolicySpec { section: section.clone(), ..spec(action.clone()) };
            let vars = spec.initialise(3).unwrap();
            let vars: Vec<_> = vars
                .0
                .into_iter()
                .map(|(name, tensor)| (name, candle_core::Var::from_tensor(&tensor).unwrap()))
                .collect();
            let weights = Weights(vars.iter().map(|(n, v)| (n.clone(), v.as_tensor().clone())).collect());
            let policy = Policy::new(&spec, &weights).unwrap();
            let observations: Vec<f32> = (0..20).map(|i| (i as f32 * 0.7).sin()).collect();
            let observations = Tensor::from_vec(observations, (5, 4), &Device::Cpu).unwrap();
            let sequence = || Sequence {
                columns: 2,
                resets: vec![0, 0, 0, 1],
                initial: vec![0.0; 2 * spec.core_state_len()],
                branches: vec![1],
            };
            let output = policy.forward_sequence(&observations, sequence).unwrap();
            let loss = (output.distribution.sqr().unwrap().sum_all().unwrap()
                + output.distribution.sum_all().unwrap()
                + output.values.sqr().unwrap().sum_all().unwrap()
                + output.values.sum_all().unwrap())
            .unwrap();
            let gradients = loss.backward().unwrap();
            for (name, var) in &vars {
                let gradient = gradients.get(var).unwrap_or_else(|| panic!("{name} has no gradient"));
                let size = gradient.abs().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
                assert!(size > 0.0, "the gradient of {name} is zero with {section:?}");
            }
        }
    }

    #[test]
    fn acting_step_by_step_is_the_sequence_and_needs_the_states_it_remembers() {
        for core in [CoreKind::Lstm, CoreKind::Gru] {
            let section = PolicySection { core, core_size: 5, policy_gain: 1.0, ..section() };
            let spec = PolicySpec { section, ..spec(Space::Discrete { n: 3 }) };
            let policy = Policy::new(&spec, &spec.initialise(2).unwrap()).unwrap();
            let (length, columns, state_len) = (4, 2, spec.core_state_len());
            let observations: Vec<f32> = (0..32).map(|i| (i as f32 * 0.7).sin()).collect();
            let observations = Tensor::from_vec(observations, (length * columns, 4), &Device::Cpu).unwrap();
            let resets = vec![0, 0, 1, 0, 0, 0, 0, 1];
            let initial: Vec<f32> = (0..columns * state_len).map(|i| (i as f32).cos() / 2.0).collect();
            let sequence =
                Sequence { columns, resets: resets.clone(), initial: initial.clone(), branches: vec![] };
            let whole = policy.forward_sequence(&observations, || sequence).unwrap().distribution;
            let whole = whole.to_vec2::<f32>().unwrap();
            let mut states = initial;
            for t in 0..length {
                for column in (0..columns).filter(|column| resets[t * columns + column] == 1) {
                    states[column * state_len..(column + 1) * state_len].fill(0.0);
                }
                let row = observations.narrow(0, t * columns, columns).unwrap();
                let step = policy.step(&row, &mut states).unwrap().to_vec2::<f32>().unwrap();
                for (step, whole) in step.iter().flatten().zip(whole[t * columns..].iter().flatten()) {
                    assert!((step - whole).abs() < 1e-6, "{core:?}, step {t}: {step} is not {whole}");
                }
            }
            let error = policy.step(&observations, &mut states).unwrap_err().to_string();
            assert!(error.contains("remembers"), "{error}");
        }
    }

    #[test]
    fn an_lstm_starts_with_open_forget_gates_only() {
        let section = PolicySection { core: CoreKind::Lstm, core_size: 2, ..section() };
        let spec = PolicySpec { section, ..spec(Space::Discrete { n: 3 }) };
        let weights = spec.initialise(2).unwrap();
        let bias = |name| weights.get(name, &[8]).unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(bias("core.bias_ih"), [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(bias("core.bias_hh"), [0.0; 8]);
    }
}
