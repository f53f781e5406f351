//! Returns and advantages: what every policy-gradient method of the learner is trained towards.
//!
//! Pure functions from rewards, discounts and value estimates (read from a batch of unrolls) to the
//! targets that the files of `algorithm` put into their losses. They know nothing of tensors, threads
//! or configuration.
//!
//! # Layout
//!
//! - [`vtrace()`]: V-trace targets and policy-gradient advantages, corrected for policy lag (IMPALA)
//! - [`gae()`]: generalized advantage estimation (PPO, A2C)
//! - [`lambda_returns()`]: TD(lambda) returns
//! - [`n_step_returns()`]: n-step bootstrapped returns (A3C)
//! - [`discounted_returns()`]: the plain discounted sum of rewards (REINFORCE)
//! - [`normalize()`]: advantages on one scale
//! - [`explained_variance()`]: how much of the targets a value function predicts, a diagnostic
//!
//! # Conventions
//!
//! The functions on one environment column take time-major slices of `T` steps, and `values` of
//! `T + 1` entries whose last one bootstraps whatever follows the slice. Their `_batch` companions take
//! C-ordered `[T, B]` blocks (`values` is `[T + 1, B]`), write into buffers of the caller and allocate
//! nothing; column `j` of their result equals, bit for bit, the single-column function on column `j`.
//!
//! `discounts[t]` is gamma, or 0 where the episode ended with step `t`, which cuts everything behind
//! it. At a truncated step the caller sets the discount to 0 too, and adds gamma times the value of
//! the final observation to the reward: the next entry of `values` belongs to the next episode.
//!
//! Local names carry their time index as in rlax: acting at time `t - 1` in the state of value `v_tm1`
//! yields `r_t` and `discount_t` and leads to the state of value `v_t`. All three share one index of
//! the slices: `v_tm1 = values[i]`, `r_t = rewards[i]`, `discount_t = discounts[i]`,
//! `v_t = values[i + 1]`.

mod discounted;
mod explained_variance;
mod gae;
mod lambda;
mod layout;
mod n_step;
mod normalize;
#[cfg(test)]
mod testing;
mod vtrace;

pub use discounted::discounted_returns;
pub use explained_variance::explained_variance;
pub use gae::{gae, gae_batch};
pub use lambda::{lambda_returns, lambda_returns_batch};
pub use n_step::{n_step_returns, n_step_returns_batch};
pub use normalize::normalize;
pub use vtrace::{VTrace, VTraceParams, vtrace, vtrace_batch};
