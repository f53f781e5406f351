//! [`PolicySpec`]: which parameters a policy has, and how they start.

use super::core::CoreSpec;
use super::distribution::ActionDistribution;
use super::encoder::EncoderSpec;
use super::error::PolicyError;
use super::parameters::{self, ParameterSpec};
use super::snapshot::Weights;
use super::{head, normalizer, value_scale};
use crate::config::{PolicySection, RunConfig};
use crate::random::{self, Purpose};
use crate::space::{ElementType, EnvironmentSpec, Space};

/// Most weights of a policy: what goes out with every version must stay within reason, and an actor that offers
/// an enormous space must not take the learner's memory.
const MAX_WEIGHTS: usize = 1 << 26;

/// A policy's architecture: sizes follow from the environment's spaces and the configuration.
#[derive(Debug, Clone)]
pub struct PolicySpec {
    pub(super) observation: Space,
    pub(super) distribution: ActionDistribution,
    pub(super) section: PolicySection,
    encoder: EncoderSpec,
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
        let spec = Self {
            observation: environment.observation.clone(),
            distribution,
            section: section.clone(),
            encoder: EncoderSpec::new(&environment.observation, section)?,
        };
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
    pub fn weight_count(&self) -> usize {
        self.parameters().iter().map(ParameterSpec::len).fold(0, usize::saturating_add)
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

    pub(super) fn core(&self) -> Option<CoreSpec> {
        CoreSpec::new(&self.section)
    }

    /// The encoder, of which a policy may have two.
    pub fn encoder(&self) -> &EncoderSpec {
        &self.encoder
    }

    /// Numbers that all layers give for an observation, which the gradient needs; a memory's gates included.
    pub fn activations(&self) -> usize {
        let memory = self.core().map_or(0, |core| 6 * core.size);
        self.encoders().len() * self.encoder.activations() + memory + self.distribution.parameter_count() + 1
    }

    /// Numbers that the heads see.
    pub(super) fn features(&self) -> usize {
        self.core().map_or(self.encoder.outputs(), |core| core.size)
    }

    /// Numbers that the value head sees: the policy's where it shares its layers, else those of layers of its own, beside what
    /// the policy's core remembers.
    pub(super) fn value_features(&self) -> usize {
        match self.section.shared_encoder {
            true => self.features(),
            false => self.encoder.outputs() + self.core().map_or(0, |core| core.size),
        }
    }

    /// Names of the encoders: the policy's, and the value's where it has one of its own.
    pub(super) fn encoders(&self) -> &'static [&'static str] {
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
        let (section, inputs) = (&self.section, self.features());
        let mut parameters = vec![];
        for encoder in self.encoders() {
            parameters.extend(self.encoder.parameters(encoder));
        }
        parameters.extend(head::output_parameters(section, &self.distribution, inputs));
        parameters.extend(ParameterSpec::layer(
            "value",
            vec![1, self.value_features()],
            section.value_gain,
            0.0,
        ));
        parameters.extend(head::log_std_parameters(section, &self.distribution, inputs));
        if let Some(core) = self.core() {
            parameters.extend(core.parameters(self.encoder.outputs(), section.core_forget_bias));
        }
        if self.normalizes() {
            parameters.extend(normalizer::parameters(self.input_len()));
        }
        if self.normalizes_values() {
            parameters.extend(value_scale::parameters());
        }
        parameters
    }

    /// The weights that a run with this seed starts from.
    ///
    /// # Errors
    /// If memory runs out.
    pub fn initialise(&self, seed: u64) -> Result<Weights, PolicyError> {
        let mut stream = random::stream(seed, Purpose::Parameters, [0; 3]);
        parameters::initialise(self.parameters(), &mut stream)
    }
}
