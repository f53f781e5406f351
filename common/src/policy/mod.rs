//! The policy: what turns observations into actions.

pub mod distribution;
