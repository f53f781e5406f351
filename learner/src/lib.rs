//! placeholder
pub mod returns;
