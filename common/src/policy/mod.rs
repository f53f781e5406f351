//! The policy: encoder -> core -> heads, and the distribution its outputs mean.
//!
//! # Layout
//!
//! * [`network`]: which parameters a policy has, how they start, and how they turn observations into
//!   distribution parameters and values. Actor and learner run this same code.
//! * `core`: what a policy remembers from step to step.
//! * `head`: from the last hidden layer to a row of distribution parameters.
//! * [`distribution`]: what the policy head's numbers say about actions.
//! * [`normalizer`]: observations on one scale.
//! * [`value_scale`]: values on one scale (PopArt).
//! * [`snapshot`]: one version of the weights, immutable, and its way to and from the wire.

mod core;
pub mod distribution;
mod head;
pub mod network;
pub mod normalizer;
pub mod snapshot;
pub mod value_scale;

pub use head::NoiseFeatures;
pub use network::{Policy, PolicyError, PolicySpec};
pub use snapshot::{Snapshot, Weights};
