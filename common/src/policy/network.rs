//! [`Policy`]: from observations to distribution parameters and values.
//!
//! Actor and learner run this same code: the actor over a snapshot's tensors, which record no graph; the
//! learner over its variables.

use candle_core::{Device, Tensor};

use super::core::Core;
use super::encoder::Encoder;
use super::error::PolicyError;
use super::head::{NoiseFeatures, PolicyHead};
use super::input::Input;
use super::layers::Linear;
use super::normalizer::Normalizer;
use super::snapshot::Weights;
use super::spec::PolicySpec;
use crate::kernels::{self, Sequence};

/// A policy with its weights in place.
#[derive(Debug, Clone)]
pub struct Policy {
    input: Input,
    encoder: Encoder,
    /// Hidden layers of the value estimate, where it does not share the policy's.
    value_encoder: Option<Encoder>,
    core: Option<Core>,
    policy_head: PolicyHead,
    value_head: Linear,
}

/// What the network says about N observations.
#[derive(Debug, Clone)]
pub struct PolicyOutput {
    /// `[N, P]`: parameters of the action distribution.
    pub distribution: Tensor,
    /// `[N]`: value estimates; normalised ones ([`value_scale`](super::value_scale)) of a policy that learns such.
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
        let encoders = spec.encoders().iter().map(|name| Encoder::new(spec.encoder(), name, weights));
        let mut encoders = encoders.collect::<Result<Vec<_>, _>>()?;
        let normalizer = spec.normalizes().then(|| Normalizer::new(weights, spec.input_len())).transpose()?;
        let core = spec.core().map(|core| Core::new(core, spec.encoder().outputs(), weights)).transpose()?;
        let inputs = spec.features();
        let device = weights.0.first().map_or(Device::Cpu, |(_, tensor)| tensor.device().clone());
        Ok(Self {
            input: Input::new(&spec.observation, spec.encoder().trunk.image(), normalizer, &device),
            encoder: encoders.remove(0),
            value_encoder: encoders.pop(),
            core,
            policy_head: PolicyHead::new(&spec.section, &spec.distribution, inputs, weights)?,
            value_head: Linear::new(weights, "value", spec.value_features(), 1)?,
        })
    }

    /// The same policy with its weights laid out for the processor, which saves that work with every call: for weights that do
    /// not change any more, for later changes go unnoticed. On another device than the CPU it is as it was.
    ///
    /// # Errors
    /// If the weights cannot be read.
    pub fn packed(mut self) -> Result<Self, PolicyError> {
        if kernels::is_fused(self.input.device()) {
            self.encoder.pack()?;
            self.value_encoder.as_mut().map_or(Ok(()), Encoder::pack)?;
        }
        Ok(self)
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
        let mut hidden = self.encoder.forward(&input)?;
        if let Some(core) = &self.core {
            hidden = core.sequence(&hidden, sequence())?;
        }
        let features = match (&self.value_encoder, &self.core) {
            (None, _) => hidden.clone(),
            (Some(encoder), None) => encoder.forward(&input)?,
            // It knows what the policy remembers, and teaches it nothing.
            (Some(encoder), Some(_)) => Tensor::cat(&[&encoder.forward(&input)?, &hidden.detach()], 1)?,
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
        let mut hidden = self.encoder.forward(&self.input(observations)?)?;
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

    /// What the first layer sees of `observations`, `[N, ...]`: `[N, I]` numbers, or images as bytes or numbers.
    ///
    /// # Errors
    /// If the observations do not fit the space.
    pub fn input(&self, observations: &Tensor) -> Result<Tensor, PolicyError> {
        self.input.of(observations)
    }
}

#[cfg(test)]
mod image_tests;
#[cfg(test)]
mod tests;
