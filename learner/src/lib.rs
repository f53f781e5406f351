//! Impresario's learner.

pub mod accounting;
pub mod batch;
pub mod broadcast;
pub mod intake;
pub mod pacing;
pub mod returns;
pub mod roster;
pub mod service;
