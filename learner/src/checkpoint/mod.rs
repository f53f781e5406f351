//! Checkpoints: all that a run needs to go on, written atomically and verified when read.
//!
//! The trainer copies its state into a [`Checkpoint`], plain data; a [`CheckpointWriter`] thread does the disk
//! I/O. A file appears under its final name only when it is whole, and its checksum covers every byte, so
//! that whatever happened to it since is noticed.
//!
//! # Layout
//!
//! * [`file`](self): one checkpoint as bytes, with its checksum.
//! * [`store`](self): the folder `checkpoints/`: [`save`], [`load`], [`latest`], [`paths`], retention.
//! * [`writer`](self): the thread that writes.
//! * [`skipped`](self): batches whose update was skipped, for the inquest.
//!
//! # Format
//!
//! `checkpoints/step-<environment steps, 12 digits>.safetensors`: tensors are `f32`.
//!
//! | tensor | meaning |
//! | --- | --- |
//! | `policy/<parameter>` | weights, by the policy's names |
//! | `optimizer/<parameter>/<moment>` | state of the optimiser |
//! | `algorithm/<name>` | what the method itself remembers |
//! | `experience/<name>` | experience that the method keeps (SAC's replay), of the element types it has |
//! | `rollout/<number>` | bytes: where the actors of a lockstep run stood that was stopped in good order |
//!
//! | metadata | meaning |
//! | --- | --- |
//! | `format` | `impresario-checkpoint-2` |
//! | `run_id` | the run, as actors know it |
//! | `policy_version` | updates applied |
//! | `env_steps` | environment steps trained on |
//! | `optimizer_steps` | steps of the optimiser |
//! | `environment` | its spaces and limits, TOML (JSON has no infinite bounds) |
//! | `config` | the run's configuration, TOML, as in `config.toml` |
//! | `totals`, `accounting` | the run's sums with its last 100 episodes, and its books, JSON |
//! | `actors` | each actor's account: who it is, the next sequence number, its counters, JSON |
//! | `skipped_in_a_row` | updates skipped since the last one that was not |
//! | `crc32c` | CRC-32C of the whole file with these eight hexadecimal digits taken as zeros |

mod file;
mod skipped;
mod store;
#[cfg(test)]
mod tests;
mod writer;

use std::path::PathBuf;

use impresario_common::config::RunConfig;
use impresario_common::policy::Weights;
use impresario_common::space::EnvironmentSpec;
use impresario_common::unroll::Array;

use crate::accounting::Accounting;
use crate::optimizer::OptimizerState;
use crate::report::Totals;
use crate::roster::{Rollout, SavedActors};

pub use store::{Retention, latest, load, paths, save, write};
pub use writer::CheckpointWriter;

/// All that a run needs to go on: plain data that shares nothing with the trainer.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// The run, as actors know it.
    pub run_id: String,
    /// Updates applied to the policy.
    pub policy_version: u64,
    /// Environment steps trained on.
    pub env_steps: u64,
    /// What the policy acts in.
    pub environment: EnvironmentSpec,
    /// The run's configuration.
    pub config: RunConfig,
    /// The policy's weights.
    pub weights: Weights,
    /// The optimiser's state.
    pub optimizer: OptimizerState,
    /// What the algorithm itself remembers.
    pub algorithm: Weights,
    /// Updates skipped since the last one that was not.
    pub skipped_in_a_row: u32,
    /// Experience that the algorithm keeps, by name.
    pub experience: Vec<(String, Array)>,
    /// The run's sums and episodes so far.
    pub totals: Totals,
    /// The run's books.
    pub accounting: Accounting,
    /// The actors' accounts, and which places are taken.
    pub actors: SavedActors,
    /// Where the actors stood, if the run was stopped in lockstep: one entry an actor, in the order of the roster.
    pub rollouts: Vec<Rollout>,
}

impl Checkpoint {
    /// The bytes of its file.
    ///
    /// # Errors
    /// If a part of it has no encoding.
    pub fn encode(&self) -> Result<Vec<u8>, CheckpointError> {
        file::encode(self)
    }

    /// What [`Self::encode`] made into `bytes`, however they came here.
    ///
    /// # Errors
    /// With what is wrong with them.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        file::decode(bytes)
    }
}

/// A checkpoint that cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The disk refused.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The file is not what was written.
    #[error("{path} is not a whole checkpoint: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The state has no encoding.
    #[error("cannot encode the checkpoint: {0}")]
    Encode(String),
}
