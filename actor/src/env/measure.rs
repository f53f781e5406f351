//! [`Measure`]: how well a policy does, where the mean return alone does not say it.
//!
//! An environment declares it ([`Environment::measure`](super::Environment::measure)), the registry keeps it, and
//! `impresario eval` prints it.

use super::matrix_game::MatrixGame;

/// What is told of a policy beside its mean return.
#[derive(Debug, Clone, PartialEq)]
pub enum Measure {
    /// The share of episodes that succeeded.
    Success {
        /// What success is, in a few words that a number stands before: `targets reached`.
        what: &'static str,
        /// An episode succeeded if and only if its return is at least this.
        least_return: f64,
    },
    /// How much the best response to the policy would win a round, above the value of the game: the mean of
    /// [`MatrixGame::exploitability`] over the observations that were acted on.
    Exploitability(MatrixGame),
}
