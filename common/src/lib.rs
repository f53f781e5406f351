//! What Impresario's actors and learner must agree on.
//!
//! # Layout
//!
//! * [`config`]: the run's configuration, read and validated in one place.
//! * [`space`]: observation and action spaces; [`composite`]: observations of several parts, laid out flat;
//!   [`stacking`]: several of them seen at once.
//! * [`unroll`]: a time-major block of experience, and its way to and from the wire; [`compression`] of it.
//! * [`policy`]: the network, its weights, and what its outputs say about actions.
//! * [`kernels`]: fused and vectorised arithmetic where candle's own is slow.
//! * [`wire`]: the gRPC contract in Rust; [`codec`]: how its messages are encoded.
//! * [`security`]: the shared token, and TLS as a learner's client speaks it.
//! * [`random`]: the streams through which all randomness flows from the run's seed.
//! * [`process`], [`signals`], [`telemetry`]: what every binary does around its work.

pub mod codec;
pub mod composite;
pub mod compression;
pub mod config;
pub mod kernels;
pub mod policy;
pub mod process;
pub mod random;
pub mod security;
pub mod signals;
pub mod space;
pub mod stacking;
pub mod telemetry;
pub mod unroll;
pub mod wire;
