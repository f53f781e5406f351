//! Impresario's learner.

pub mod accounting;
pub mod algorithm;
pub mod batch;
pub mod checkpoint;
pub mod intake;
pub mod optimizer;
pub mod pacing;
pub mod parameters;
pub mod returns;
pub mod trainer;
