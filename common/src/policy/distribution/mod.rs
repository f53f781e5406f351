//! Distributions over actions: what the policy's numbers mean.
//!
//! The network emits one row of parameters a step (`[P]`, see [`ActionDistribution::parameter_count`]). Actors
//! sample from it on plain slices, without allocating; the learner computes log-probabilities and entropies
//! on tensors, with gradients.
//!
//! | action space | distribution | row of parameters | action |
//! | --- | --- | --- | --- |
//! | `Discrete(n)` | categorical | `n` logits | one `i32` |
//! | `MultiDiscrete(nvec)` | independent categoricals | the logits of each choice, one after another | an `i32` a choice |
//! | `Box(f32)` | diagonal normal | `D` means, then `D` logarithms of standard deviations | `D` of `f32` |
//!
//! | `Box(f32)`, squashed | the same through a hyperbolic tangent | the same | `D` of `f32`, before the tangent |
//!
//! Without squashing a box's bounds are not part of its distribution: samples may lie outside, and whoever steps the
//! environment clips what the environment sees, while log-probabilities stay those of the unclipped action. With it
//! actions are stored and travel as they are before the tangent, so that no precision is lost near the bounds, and
//! [`ActionDistribution::to_environment`] makes of them what the environment sees; log-probabilities are those of the
//! squashed action in `(-1, 1)^D`.
//!
//! # Layout
//!
//! - `categorical` and `gaussian`: the numerics, as functions of rows of parameters;
//! - `squash`: what the hyperbolic tangent adds to them;
//! - `mask`: illegal alternatives of discrete actions;
//! - `fisher`: the metric of the natural gradient;
//! - `op`: log-probability and entropy as one operation in candle's graph.

mod categorical;
mod fisher;
mod gaussian;
mod mask;
mod op;
mod squash;

use std::sync::Arc;

use candle_core::Tensor;

use crate::random::Stream;
use crate::space::{ElementType, Space};
use squash::Squash;

/// What is wrong with a distribution or with what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum DistributionError {
    /// The action space has no distribution.
    #[error("no policy can act in the action space {space}: {reason}")]
    UnsupportedSpace {
        /// The space.
        space: String,
        /// Why.
        reason: &'static str,
    },
    /// An action that is not one of the alternatives.
    #[error(
        "action {action} at row {row}, choice {choice} is not one of the {alternatives} alternatives 0..{alternatives}"
    )]
    ActionOutOfRange {
        /// The action found.
        action: i32,
        /// Its row.
        row: usize,
        /// Its position within the row.
        choice: usize,
        /// How many alternatives there are.
        alternatives: usize,
    },
    /// A mask that leaves a choice nothing to choose.
    #[error("row {row} of the masks of legal actions leaves choice {choice} no alternative")]
    NoLegalAction {
        /// The mask's row.
        row: usize,
        /// The choice within the row.
        choice: usize,
    },
    /// Parameters or actions that do not have the distribution's shape.
    #[error("{what}: expected {expected}, got {found}")]
    Mismatch {
        /// Which argument.
        what: &'static str,
        /// What it should be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// The distribution over actions of one action space.
#[derive(Debug, Clone, PartialEq)]
pub struct ActionDistribution {
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq)]
enum Kind {
    /// One categorical for each choice, with so many alternatives.
    Categorical { alternatives: Arc<[usize]> },
    /// A normal for each dimension, as it is or squashed.
    Gaussian { dimensions: usize, squash: Option<Squash> },
}

/// Where sampled actions go: `[E, action_len]` numbers of the type the action space has.
#[derive(Debug)]
pub enum ActionMut<'a> {
    /// Actions of `Discrete` and `MultiDiscrete` spaces.
    Discrete(&'a mut [i32]),
    /// Actions of `Box` spaces, before they are squashed.
    Continuous(&'a mut [f32]),
}

/// Actions that were taken, for the learner: `N` rows.
#[derive(Debug, Clone)]
pub enum Actions {
    /// Actions of `Discrete` and `MultiDiscrete` spaces: `[N, action_len]` in C order.
    Discrete(Arc<[i32]>),
    /// Actions of `Box` spaces: `f32` `[N, action_len]`, before they are squashed.
    Continuous(Tensor),
}

impl ActionDistribution {
    /// The distribution for `space`.
    ///
    /// # Errors
    /// [`DistributionError::UnsupportedSpace`] for spaces without alternatives or dimensions, and for boxes of bytes or integers.
    pub fn new(space: &Space) -> Result<Self, DistributionError> {
        let refuse = |reason| DistributionError::UnsupportedSpace { space: space.to_string(), reason };
        let categorical = |nvec: &[u32]| {
            if nvec.is_empty() {
                return Err(refuse("it offers no choice"));
            }
            if nvec.iter().any(|n| *n == 0 || *n > i32::MAX as u32) {
                return Err(refuse("each choice needs between 1 and 2^31 - 1 alternatives"));
            }
            Ok(Kind::Categorical { alternatives: nvec.iter().map(|n| *n as usize).collect() })
        };
        let kind = match space {
            Space::Discrete { n } => categorical(&[*n])?,
            Space::MultiDiscrete { nvec } => categorical(nvec)?,
            Space::Box { dtype: ElementType::F32, .. } if !space.is_empty() => {
                Kind::Gaussian { dimensions: space.len(), squash: None }
            }
            Space::Box { dtype: ElementType::F32, .. } => return Err(refuse("it has no dimension")),
            Space::Box { .. } => return Err(refuse("continuous actions are f32")),
        };
        Ok(Self { kind })
    }

    /// The distribution for `space`, squashed into it if it is a box; discrete actions have nothing to squash.
    ///
    /// # Errors
    /// As [`Self::new`], and for boxes without finite bounds.
    pub fn squashed(space: &Space) -> Result<Self, DistributionError> {
        let mut distribution = Self::new(space)?;
        if let Kind::Gaussian { squash, .. } = &mut distribution.kind {
            *squash = Some(Squash::into_box(space).ok_or_else(|| DistributionError::UnsupportedSpace {
                space: space.to_string(),
                reason: "actions can only be squashed between finite bounds, the lower one below the upper; give the \
                         environment's action space such bounds, or set policy.squash = false",
            })?);
        }
        Ok(distribution)
    }

    /// Whether the environment sees actions squashed.
    pub fn is_squashed(&self) -> bool {
        matches!(self.kind, Kind::Gaussian { squash: Some(_), .. })
    }

    /// What the environment sees of continuous `actions`, `[E, D]`: themselves, or squashed into the action space's
    /// bounds, in `buffer`.
    ///
    /// # Panics
    /// If the actions are discrete, or of another length.
    pub fn to_environment<'a>(&self, actions: &'a [f32], buffer: &'a mut Vec<f32>) -> &'a [f32] {
        let Kind::Gaussian { dimensions, squash } = &self.kind else { panic!("discrete actions are i32") };
        assert!(actions.len().is_multiple_of(*dimensions), "whole actions");
        let Some(squash) = squash else { return actions };
        buffer.clear();
        buffer.extend_from_slice(actions);
        squash.apply(buffer);
        buffer
    }

    /// Numbers the network emits for one action: logits, or means and logarithms of standard deviations.
    pub fn parameter_count(&self) -> usize {
        match &self.kind {
            Kind::Categorical { alternatives } => alternatives.iter().sum(),
            Kind::Gaussian { dimensions, .. } => 2 * dimensions,
        }
    }

    /// Numbers that make one action.
    pub fn action_len(&self) -> usize {
        match &self.kind {
            Kind::Categorical { alternatives } => alternatives.len(),
            Kind::Gaussian { dimensions, .. } => *dimensions,
        }
    }

    /// Element type of an action.
    pub fn action_dtype(&self) -> ElementType {
        match self.kind {
            Kind::Categorical { .. } => ElementType::I32,
            Kind::Gaussian { .. } => ElementType::F32,
        }
    }

    /// How many of a row's last parameters are logarithms of standard deviations: `D`, or 0 for discrete actions.
    pub fn log_std_count(&self) -> usize {
        match self.kind {
            Kind::Categorical { .. } => 0,
            Kind::Gaussian { dimensions, .. } => dimensions,
        }
    }

    /// Makes alternatives impossible that `masks` calls illegal: `params` and `masks` are `[N, P]`, a flag of 0 is an
    /// illegal alternative.
    ///
    /// # Errors
    /// [`DistributionError::NoLegalAction`] if a choice has no legal alternative, and
    /// [`DistributionError::Mismatch`] for masks of another size or of continuous actions.
    pub fn mask(&self, params: &mut [f32], masks: &[u8]) -> Result<(), DistributionError> {
        self.check_masks(params.len(), masks)?;
        mask::apply(params, masks);
        Ok(())
    }

    /// [`Self::mask`] in the graph of `params`.
    ///
    /// # Errors
    /// As [`Self::mask`]; errors of the tensor operations.
    pub fn masked(&self, params: &Tensor, masks: &[u8]) -> Result<Tensor, DistributionError> {
        self.check_masks(params.elem_count(), masks)?;
        Ok(mask::applied(params, masks)?)
    }

    /// Refuses masks that do not fit `params` numbers.
    fn check_masks(&self, params: usize, masks: &[u8]) -> Result<(), DistributionError> {
        let mismatch = |expected: String| DistributionError::Mismatch {
            what: "masks of legal actions",
            expected,
            found: format!("{} flags", masks.len()),
        };
        let Kind::Categorical { alternatives } = &self.kind else {
            return Err(mismatch("none, for continuous actions have no alternatives".into()));
        };
        if masks.len() != params || !masks.len().is_multiple_of(self.parameter_count()) {
            return Err(mismatch(format!("a flag for each of {params} logits")));
        }
        match mask::first_without_alternative(alternatives, masks) {
            None => Ok(()),
            Some((row, choice)) => Err(DistributionError::NoLegalAction { row, choice }),
        }
    }

    /// Samples one action from one row of parameters, and returns its log-probability (density, in `f32` nats).
    ///
    /// Equal to [`sample_batch`](Self::sample_batch) of one row, bit for bit. NaN parameters give a NaN
    /// log-probability and some valid action.
    ///
    /// # Panics
    /// If `params` or `action` has the wrong length or type.
    pub fn sample(&self, params: &[f32], random: &mut Stream, action: ActionMut<'_>) -> f32 {
        let mut log_prob = [0.0];
        self.sample_batch(params, std::slice::from_mut(random), action, &mut log_prob);
        log_prob[0]
    }

    /// Samples an action for each of `E` copies of the environment, each from its own stream.
    ///
    /// `params` is `[E, P]`, `actions` `[E, action_len]`, `log_probs` `[E]`. A row uses its stream alone, so
    /// that a copy's actions do not depend on the copies beside it. Allocates nothing.
    ///
    /// # Panics
    /// If a slice has the wrong length or `actions` the wrong type.
    pub fn sample_batch(
        &self,
        params: &[f32],
        streams: &mut [Stream],
        actions: ActionMut<'_>,
        log_probs: &mut [f32],
    ) {
        let rows = streams.len();
        assert_eq!(params.len(), rows * self.parameter_count(), "one row of parameters a stream");
        assert_eq!(log_probs.len(), rows, "one log-probability a stream");
        match (&self.kind, actions) {
            (Kind::Categorical { alternatives }, ActionMut::Discrete(actions)) => {
                assert_eq!(actions.len(), rows * alternatives.len(), "one action a stream");
                categorical::sample(alternatives, params, streams, actions, log_probs);
            }
            (Kind::Gaussian { dimensions, squash }, ActionMut::Continuous(actions)) => {
                assert_eq!(actions.len(), rows * dimensions, "one action a stream");
                gaussian::sample(*dimensions, params, streams, actions, log_probs);
                if squash.is_some() {
                    squash::adjust_log_probs(*dimensions, actions, log_probs);
                }
            }
            _ => panic!("actions of this space are {}", self.action_dtype()),
        }
    }

    /// Takes the continuous actions that lie `noise` `[E, D]` from the means, where the noise was drawn elsewhere, with
    /// the standard deviations of `params` `[E, P]`. `actions` is `[E, D]`, `log_probs` `[E]`.
    ///
    /// # Panics
    /// If a slice has the wrong length or actions are discrete.
    pub fn displace_batch(
        &self,
        params: &[f32],
        noise: &[f32],
        actions: ActionMut<'_>,
        log_probs: &mut [f32],
    ) {
        let (Kind::Gaussian { dimensions, squash }, ActionMut::Continuous(actions)) = (&self.kind, actions)
        else {
            panic!("discrete actions cannot be displaced")
        };
        let rows = log_probs.len();
        assert_eq!(params.len(), rows * 2 * dimensions, "one row of parameters a log-probability");
        assert_eq!([noise.len(), actions.len()], [rows * dimensions; 2], "one number a dimension");
        gaussian::displace(*dimensions, params, noise, actions, log_probs);
        if squash.is_some() {
            squash::adjust_log_probs(*dimensions, actions, log_probs);
        }
    }

    /// The likeliest action of one row of parameters: the first of equals; a normal's mean, squashed or not (where
    /// squashed, the median of each number that the environment sees).
    ///
    /// # Panics
    /// If `params` or `action` has the wrong length or type.
    pub fn mode(&self, params: &[f32], action: ActionMut<'_>) {
        self.check_row(params);
        match (&self.kind, action) {
            (Kind::Categorical { alternatives }, ActionMut::Discrete(action)) => {
                assert_eq!(action.len(), alternatives.len(), "one number a choice");
                for (action, logits) in action.iter_mut().zip(categorical::choices(alternatives, params)) {
                    *action = categorical::argmax(logits) as i32;
                }
            }
            (Kind::Gaussian { dimensions, .. }, ActionMut::Continuous(action)) => {
                action.copy_from_slice(&params[..*dimensions]);
            }
            _ => panic!("actions of this space are {}", self.action_dtype()),
        }
    }

    /// The likeliest action of each of E rows, `params` being `[E, P]` and `actions` `[E, action_len]`.
    ///
    /// # Panics
    /// If a slice has the wrong length or `actions` the wrong type.
    pub fn mode_batch(&self, params: &[f32], actions: ActionMut<'_>) {
        let (rows, len) = (params.chunks_exact(self.parameter_count()), self.action_len());
        match actions {
            ActionMut::Discrete(actions) => {
                assert_eq!(actions.len(), rows.len() * len, "one action a row");
                rows.zip(actions.chunks_exact_mut(len))
                    .for_each(|(p, a)| self.mode(p, ActionMut::Discrete(a)));
            }
            ActionMut::Continuous(actions) => {
                assert_eq!(actions.len(), rows.len() * len, "one action a row");
                rows.zip(actions.chunks_exact_mut(len))
                    .for_each(|(p, a)| self.mode(p, ActionMut::Continuous(a)));
            }
        }
    }

    /// Entropy of one row of parameters, in nats. Differential entropy, which may be negative, of a normal; where
    /// squashed, of the action in `(-1, 1)^D`, at most `D ln 2`, by quadrature.
    ///
    /// # Panics
    /// If `params` has the wrong length.
    pub fn entropy(&self, params: &[f32]) -> f32 {
        self.check_row(params);
        match &self.kind {
            Kind::Categorical { alternatives } => categorical::entropy(alternatives, params),
            Kind::Gaussian { dimensions, squash } => {
                let added = squash.as_ref().map_or(0.0, |_| squash::mean_log_slopes(params));
                gaussian::entropy(&params[*dimensions..]) + added
            }
        }
    }

    /// Kullback-Leibler divergence `KL(p || q)` of two rows of parameters, in nats; squashing does not change it.
    ///
    /// # Panics
    /// If a row has the wrong length.
    pub fn kl(&self, p: &[f32], q: &[f32]) -> f32 {
        self.check_row(p);
        self.check_row(q);
        match &self.kind {
            Kind::Categorical { alternatives } => categorical::kl(alternatives, p, q),
            Kind::Gaussian { dimensions, .. } => gaussian::kl(*dimensions, p, q),
        }
    }

    /// Log-probability of the given actions (column 0) and entropy (column 1) of each row: `[N, 2]`,
    /// differentiable with respect to `params` `[N, P]`.
    ///
    /// One operation in the graph on the CPU; candle's own operations elsewhere. Values and gradients stay
    /// finite for logits of any finite size; an alternative with a logit of `-inf` counts as impossible.
    ///
    /// # Errors
    /// [`DistributionError::ActionOutOfRange`] and [`DistributionError::Mismatch`] for actions and parameters that do not
    /// belong to this distribution; errors of the tensor operations.
    pub fn log_prob_entropy(&self, params: &Tensor, actions: Actions) -> Result<Tensor, DistributionError> {
        op::log_prob_entropy(self, params, actions)
    }

    /// Refuses discrete `actions` `[N, action_len]` that are not among the alternatives.
    fn check_actions(&self, actions: &[i32]) -> Result<(), DistributionError> {
        let Kind::Categorical { alternatives } = &self.kind else { return Ok(()) };
        for (row, actions) in actions.chunks_exact(alternatives.len()).enumerate() {
            for (choice, (action, alternatives)) in actions.iter().zip(alternatives.iter()).enumerate() {
                if usize::try_from(*action).is_ok_and(|action| action < *alternatives) {
                    continue;
                }
                return Err(DistributionError::ActionOutOfRange {
                    action: *action,
                    row,
                    choice,
                    alternatives: *alternatives,
                });
            }
        }
        Ok(())
    }

    fn check_row(&self, params: &[f32]) {
        assert_eq!(params.len(), self.parameter_count(), "one row of parameters");
    }
}

#[cfg(test)]
mod tests;
