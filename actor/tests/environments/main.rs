//! Proves that the native environments are what they say, and that the vectors around them end and start
//! episodes as they say.
//!
//! # Layout
//!
//! - `worker`: what a rollout worker keeps of a vector, for all tests;
//! - `vector`: the vector of copies, whatever the environment;
//! - `courses`: what holds for every native environment: seeds, copies, spaces;
//! - `gymnasium`: classic control, against Gymnasium's recorded episodes;
//! - `arm`: the two-joint arm, against mechanics;
//! - `minatar`: MinAtar, against recordings of the package;
//! - `memory`, `matrix_games`, `tic_tac_toe`: the others, against their rules;
//! - `positions`: where a worker stands, and another goes on.

#![allow(clippy::unwrap_used, reason = "the lint's leave for tests does not reach their helpers")]

mod arm;
mod courses;
mod gymnasium;
mod matrix_games;
mod memory;
mod minatar;
mod positions;
mod tic_tac_toe;
mod vector;
mod worker;
