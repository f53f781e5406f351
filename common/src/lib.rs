//! What Impresario's actors and learner must agree on.
//!
//! # Layout
//!
//! * [`config`]: the run's configuration, read and validated in one place.
//! * [`space`]: observation and action spaces.
//! * [`unroll`]: a time-major block of experience, and its way to and from the wire.
//! * [`wire`]: the gRPC contract in Rust.
//! * [`policy`]: the network, its weights, and what its outputs say about actions.
//! * [`random`]: the streams through which all randomness flows from the run's seed.

pub mod config;
// pub mod policy;
pub mod random;
pub mod space;
pub mod unroll;
pub mod wire;
