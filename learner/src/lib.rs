//! Impresario's learner.

pub mod accounting;
pub mod batch;
pub mod report;
