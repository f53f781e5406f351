//! [`TargetPolicy`]: the policy being learned, with its parameters and optimiser.

use std::borrow::Cow;

use candle_core::{Device, Tensor};
use impresario_common::config::{PolicySection, RunConfig};
use impresario_common::kernels::{Sequence, with_slice};
use impresario_common::policy::distribution::{ActionDistribution, Actions};
use impresario_common::policy::network::PolicyOutput;
use impresario_common::policy::value_scale::{self, ValueScale};
use impresario_common::policy::{Policy, PolicyError, PolicySpec, Weights, normalizer};
use impresario_common::space::Space;
use impresario_common::unroll::Array;

use super::{Metrics, Progress, TrainError};
use crate::batch::Batch;
use crate::device;
use crate::optimizer::{Optimizer, OptimizerState, Step};
use crate::parameters::Parameters;
use crate::schedule::Scheduled;

/// The policy being learned.
#[derive(Debug)]
pub struct TargetPolicy {
    observation: Space,
    normalizes: bool,
    /// How values are normalised, if they are.
    value_knobs: Option<PolicySection>,
    distribution: ActionDistribution,
    policy: Policy,
    parameters: Parameters,
    optimizer: Optimizer,
    learning_rate: Scheduled,
}

/// What a [`TargetPolicy`] was: see [`TargetPolicy::save`].
#[derive(Debug)]
pub struct SavedTarget {
    weights: Weights,
    optimizer: OptimizerState,
}

impl TargetPolicy {
    /// The policy of `spec`, starting from copies of `weights`.
    ///
    /// # Errors
    /// If the weights do not fit the policy, or the device that the configuration names cannot be used.
    pub fn new(config: &RunConfig, spec: &PolicySpec, weights: &Weights) -> Result<Self, PolicyError> {
        let parameters = Parameters::new(&weights.on(&device::open(config.learner.device)?)?)?;
        Ok(Self {
            observation: spec.observation().clone(),
            normalizes: spec.normalizes(),
            value_knobs: spec.normalizes_values().then(|| config.policy.clone()),
            distribution: spec.distribution().clone(),
            policy: Policy::new(spec, &parameters.shared())?,
            optimizer: Optimizer::new(&config.optimizer, &parameters),
            learning_rate: Scheduled::new(
                config.optimizer.learning_rate,
                config.optimizer.schedule,
                config.run.steps,
            ),
            parameters,
        })
    }

    /// The variables.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// What the network's numbers say about actions.
    pub fn action_distribution(&self) -> &ActionDistribution {
        &self.distribution
    }

    /// S: numbers that the policy remembers of a copy of the environment; 0 without memory.
    pub fn core_state_len(&self) -> usize {
        self.policy.core_state_len()
    }

    /// The optimiser.
    pub fn optimizer(&self) -> &Optimizer {
        &self.optimizer
    }

    /// The optimiser, to be restored.
    pub fn optimizer_mut(&mut self) -> &mut Optimizer {
        &mut self.optimizer
    }

    /// The step size in force.
    pub fn learning_rate(&self, progress: Progress) -> f64 {
        self.learning_rate.at(progress.env_steps)
    }

    /// A copy of weights and optimiser, to go back to should an update of several steps fail on the way.
    ///
    /// # Errors
    /// If memory runs out.
    pub fn save(&self) -> Result<SavedTarget, PolicyError> {
        Ok(SavedTarget { weights: self.parameters.copied()?, optimizer: self.optimizer.state()? })
    }

    /// Makes weights and optimiser what they were when `saved` was taken, bit for bit.
    ///
    /// # Errors
    /// If `saved` is of another policy.
    pub fn go_back(&mut self, saved: &SavedTarget) -> Result<(), PolicyError> {
        self.optimizer.load_state(&saved.optimizer)?;
        self.parameters.load(&saved.weights)
    }

    /// Applies the network to all `N` observations of `batch`, recording a graph: `(T + 1) * B + K`, or the `T * B`
    /// of a selection. The distribution's parameters are those of the legal actions, where the batch has masks.
    ///
    /// A policy with memory goes through each column from the state that came with it, forgets at the ends of episodes,
    /// and looks at a final observation with what it remembered after the step that ended the episode.
    ///
    /// # Errors
    /// If the observations do not fit the space, the masks the actions, or the states the policy's core.
    pub fn forward(&self, batch: &Batch) -> Result<PolicyOutput, TrainError> {
        let seen = batch.seen();
        let rows = seen.len() / self.observation.len();
        let observations = self.observations(seen)?;
        let sequence = || sequence(batch, rows);
        let mut output = self.policy.forward_sequence(&observations, sequence)?;
        if !batch.action_masks.is_empty() {
            output.distribution = self.masked(&output.distribution, batch)?;
        }
        Ok(output)
    }

    /// What the network's first layer sees of `N` observations, `[N, I]`.
    ///
    /// # Errors
    /// If the observations do not fit the space.
    pub fn input(&self, observations: &Array) -> Result<Tensor, PolicyError> {
        self.policy.input(&self.observations(Cow::Borrowed(observations))?)
    }

    /// Distribution parameters, `[N, P]`, for `N` observations, recording a graph.
    ///
    /// # Errors
    /// If the observations do not fit the space.
    pub fn distribution(&self, observations: &Array) -> Result<Tensor, PolicyError> {
        self.policy.distribution(&self.observations(Cow::Borrowed(observations))?)
    }

    /// Observations as a tensor of their space, `[N, ...]`. Stacks, which are made for it, are not copied.
    fn observations(&self, observations: Cow<'_, Array>) -> Result<Tensor, PolicyError> {
        let mut shape = vec![observations.len() / self.observation.len()];
        shape.extend(self.observation.shape());
        Ok(match observations.into_owned() {
            Array::F32(values) => Tensor::from_vec(values, shape, &Device::Cpu)?,
            Array::U8(values) => Tensor::from_vec(values, shape, &Device::Cpu)?,
            Array::I32(values) => Tensor::from_vec(values, shape, &Device::Cpu)?,
        })
    }

    /// Distribution parameters `[N, P]` in which illegal actions are impossible. Where no action was taken everything
    /// is legal.
    fn masked(&self, distribution: &Tensor, batch: &Batch) -> Result<Tensor, TrainError> {
        let mut masks = batch.action_masks.clone();
        masks.resize(distribution.elem_count(), 1);
        Ok(self.distribution.masked(distribution, &masks)?)
    }

    /// `[N, 2]`: log-probability of the action taken and entropy of each row of [`Self::forward`].
    ///
    /// No action was taken at the bootstrap rows and final observations: what stands there is of no use.
    ///
    /// # Errors
    /// If the actions do not fit the space.
    pub fn log_prob_entropy(&self, output: &PolicyOutput, batch: &Batch) -> Result<Tensor, TrainError> {
        let rows = output.values.elem_count();
        let width = self.distribution.action_len();
        let padding = (rows - batch.steps()) * width;
        let actions = match &batch.actions {
            Array::I32(taken) => {
                let taken = taken.iter().copied();
                Actions::Discrete(taken.chain(std::iter::repeat_n(0, padding)).collect())
            }
            Array::F32(taken) => {
                let mut taken = taken.clone();
                taken.resize(taken.len() + padding, 0.0);
                Actions::Continuous(Tensor::from_vec(taken, (rows, width), &Device::Cpu)?)
            }
            Array::U8(_) => return Err(PolicyError::Space("actions of bytes".into()).into()),
        };
        Ok(self.distribution.log_prob_entropy(&output.distribution, actions)?)
    }

    /// `[N]`: the values that the value head's numbers in `output` stand for.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn values(&self, output: &PolicyOutput) -> Result<Vec<f32>, PolicyError> {
        let mut values = with_slice(&output.values, |numbers: &[f32]| numbers.to_vec())?;
        self.value_scale()?.denormalize(&mut values);
        Ok(values)
    }

    /// What the value head's numbers stand for: themselves, unless the policy learns normalised values.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn value_scale(&self) -> Result<ValueScale, PolicyError> {
        match &self.value_knobs {
            Some(knobs) => ValueScale::of(&self.parameters.shared(), knobs),
            None => Ok(ValueScale::IDENTITY),
        }
    }

    /// Takes the value targets of an update into the statistics by which values are normalised, if they are, and tells
    /// `metrics`; the scale on which they are to be learned. Every value stays what it was.
    ///
    /// The value head changes in place, below the outputs of earlier forward passes: their numbers are those of the old
    /// head, but a gradient with respect to them goes through the new one, as if they were said anew.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn absorb_values(&self, targets: &[f32], metrics: &mut Metrics) -> Result<ValueScale, PolicyError> {
        let Some(knobs) = &self.value_knobs else { return Ok(ValueScale::IDENTITY) };
        let scale = value_scale::absorb(&self.parameters.shared(), targets, knobs)?;
        metrics.push("value_target_mean", scale.mean.into());
        metrics.push("value_target_deviation", scale.deviation.into());
        Ok(scale)
    }

    /// A copy of what [`Self::absorb_values`] changes, if it does.
    ///
    /// # Errors
    /// If memory runs out.
    pub fn save_values(&self) -> Result<Option<Weights>, PolicyError> {
        self.value_knobs.as_ref().map(|_| value_scale::saved(&self.parameters.shared())).transpose()
    }

    /// Undoes what [`Self::absorb_values`] did since `saved` was taken.
    ///
    /// # Errors
    /// If `saved` is of another policy.
    pub fn forget_values(&self, saved: &Option<Weights>) -> Result<(), PolicyError> {
        saved.as_ref().map_or(Ok(()), |saved| value_scale::go_back(&self.parameters.shared(), saved))
    }

    /// Takes one step of the optimiser against the gradient of `loss`.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn minimise(&mut self, loss: &Tensor, progress: Progress) -> Result<Step, TrainError> {
        let gradients = loss.backward()?;
        let learning_rate = self.learning_rate(progress);
        Ok(self.optimizer.step(&gradients, learning_rate)?)
    }

    /// Takes the observations of the steps of `batch` into the statistics by which observations are normalised, if they are.
    /// The policy sees them from the next update on.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn observe(&self, batch: &Batch) -> Result<(), PolicyError> {
        if !self.normalizes {
            return Ok(());
        }
        match &*batch.seen() {
            Array::F32(values) => {
                let inputs = self.observation.len();
                normalizer::absorb(&self.parameters.shared(), inputs, &values[..batch.steps() * inputs])
            }
            _ => Ok(()),
        }
    }
}

/// How the `rows` rows of observations in `batch` follow one another.
fn sequence(batch: &Batch, rows: usize) -> Sequence {
    let steps = rows - batch.final_steps.len();
    let ended = batch.terminated.iter().zip(&batch.truncated).map(|(end, cut)| end | cut);
    Sequence {
        columns: batch.columns,
        // Where an episode ended before the first step, the state that came with it is zero already.
        resets: std::iter::repeat_n(0, batch.columns).chain(ended).take(steps).collect(),
        initial: batch.core_states.clone(),
        branches: batch.final_steps.clone(),
    }
}
