//! The policy: encoder -> core -> heads, and the distribution its outputs mean.
//!
//! # Layout
//!
//! * [`spec`]: which parameters a policy has, as its spaces and the configuration have it.
//! * [`network`]: how they turn observations into distribution parameters and values. Actor and learner run this same
//!   code.
//! * `input`: what the first layer sees of an observation.
//! * [`encoder`]: the hidden layers. * [`layers`]: what they are made of. * [`parameters`]: how layers start.
//! * `core`: what a policy remembers from step to step.
//! * `head`: from the last hidden layer to a row of distribution parameters.
//! * [`distribution`]: what the policy head's numbers say about actions.
//! * [`normalizer`]: observations on one scale.
//! * [`value_scale`]: values on one scale (PopArt).
//! * [`snapshot`]: one version of the weights, immutable, and its way to and from the wire.

mod core;
pub mod distribution;
pub mod encoder;
mod error;
mod head;
mod input;
pub mod layers;
pub mod network;
pub mod normalizer;
pub mod parameters;
pub mod snapshot;
pub mod spec;
pub mod value_scale;

pub use error::PolicyError;
pub use head::NoiseFeatures;
pub use network::Policy;
pub use snapshot::{Snapshot, Weights};
pub use spec::PolicySpec;
