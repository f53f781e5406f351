//! Impresario actor.

pub mod env;
