//! What Impresario's actors and learner must agree on.

pub mod kernels;
pub mod policy;
pub mod random;
pub mod space;
