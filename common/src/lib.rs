//! What Impresario's actors and learner must agree on.

pub mod random;
pub mod space;
