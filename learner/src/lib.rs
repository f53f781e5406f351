//! Impresario's learner.

pub mod accounting;
pub mod batch;
pub mod intake;
pub mod pacing;
pub mod returns;
