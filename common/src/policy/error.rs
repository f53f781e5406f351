//! [`PolicyError`]: a policy that cannot be built or run.

use crate::stacking::StackError;

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
    /// A device that cannot be used.
    #[error("learner.device is \"{name}\": {reason}")]
    Device {
        /// Its name in the configuration.
        name: &'static str,
        /// Why, and what to do.
        reason: String,
    },
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}
