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
#[cfg(test)]
mod testing;
pub mod trainer;
