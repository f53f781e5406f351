//! Impresario's learner.

pub mod accounting;
pub mod batch;
pub mod pacing;
pub mod returns;
