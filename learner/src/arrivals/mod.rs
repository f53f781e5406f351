//! Arrivals on record: which unrolls were admitted, in which order they came, and how batches were made of them, so that what the
//! learner made of an asynchronous run can be made again, bit for bit, without any actor.
//!
//! # Layout
//!
//! * here: what is on record;
//! * [`frames`]: records in a file, each with its checksum;
//! * [`log`]: the thread that writes them;
//! * [`replay`]: the learner again, from the records alone.
//!
//! # Format
//!
//! `arrivals/life-<number>.records` has the records of one life of the run, after the line [`MAGIC`]: each the length of its
//! encoding and the CRC-32C of that (both `u32`, little-endian), and the encoding (protobuf). The first one is a [`Begin`], and the
//! last one an [`End`] if all that happened is on record. A life that goes on from a checkpoint has it beside the records, as
//! `life-<number>.safetensors`.

pub mod frames;
pub mod log;
pub mod replay;

use std::path::{Path, PathBuf};

use impresario_common::policy::{PolicyError, Weights};
use impresario_common::unroll::{Unroll, UnrollLayout};
use impresario_common::wire::v1;
use prost::Message;
use sha2::{Digest, Sha256};

pub use frames::{Frames, RecordError};
pub use log::ArrivalLog;

/// The first line of a file of records.
pub const MAGIC: &[u8] = b"impresario-arrivals-1\n";

/// One thing that happened.
#[derive(Clone, PartialEq, Message)]
pub struct Record {
    /// What.
    #[prost(oneof = "Event", tags = "1, 2, 3, 4")]
    pub event: Option<Event>,
}

/// What can happen.
#[derive(Clone, PartialEq, prost::Oneof)]
#[allow(clippy::large_enum_variant, reason = "there is one at a time")]
pub enum Event {
    /// A life of the run began.
    #[prost(message, tag = "1")]
    Begin(Begin),
    /// An unroll was admitted.
    #[prost(message, tag = "2")]
    Arrival(Arrival),
    /// A batch was trained on.
    #[prost(message, tag = "3")]
    Trained(Trained),
    /// The life ended, and all that happened in it is on record. Absent where the learner was killed or the disk refused.
    #[prost(message, tag = "4")]
    End(End),
}

/// The life ended.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct End {}

/// How a life of the run began.
#[derive(Clone, PartialEq, Message)]
pub struct Begin {
    /// The run.
    #[prost(string, tag = "1")]
    pub run_id: String,
    /// Which life of it.
    #[prost(uint64, tag = "2")]
    pub life: u64,
    /// The policy version that it began from.
    #[prost(uint64, tag = "3")]
    pub policy_version: u64,
    /// Environment steps trained on by then.
    #[prost(uint64, tag = "4")]
    pub env_steps: u64,
    /// The configuration, TOML.
    #[prost(string, tag = "5")]
    pub config: String,
    /// The environment, TOML.
    #[prost(string, tag = "6")]
    pub environment: String,
    /// Whether unrolls are on record with their content.
    #[prost(bool, tag = "7")]
    pub content: bool,
}

/// An unroll was admitted.
#[derive(Clone, PartialEq, Message)]
pub struct Arrival {
    /// Its place in the order of arrival, from 0.
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// Who sent it: the place in the roster,
    #[prost(uint32, tag = "2")]
    pub actor: u32,
    /// and which life of the process in it.
    #[prost(uint64, tag = "3")]
    pub incarnation: u64,
    /// Position among that incarnation's unrolls.
    #[prost(uint64, tag = "4")]
    pub sequence: u64,
    /// The policy version that acted.
    #[prost(uint64, tag = "5")]
    pub policy_version: u64,
    /// E: its columns.
    #[prost(uint32, tag = "6")]
    pub copies: u32,
    /// [`content_hash`].
    #[prost(bytes = "vec", tag = "7")]
    pub hash: Vec<u8>,
    /// The unroll itself, on request.
    #[prost(message, optional, tag = "8")]
    pub content: Option<v1::Unroll>,
}

/// A batch was trained on.
#[derive(Clone, PartialEq, Message)]
pub struct Trained {
    /// What it was made of, in order.
    #[prost(message, repeated, tag = "1")]
    pub parts: Vec<Part>,
    /// The policy's version afterwards.
    #[prost(uint64, tag = "2")]
    pub policy_version: u64,
    /// [`weights_hash`] of the policy afterwards.
    #[prost(bytes = "vec", tag = "3")]
    pub hash: Vec<u8>,
    /// The update was skipped, its loss or gradient not being finite.
    #[prost(bool, tag = "4")]
    pub skipped: bool,
}

/// Columns of an unroll that went into a batch.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Part {
    /// Number of the arrival.
    #[prost(uint64, tag = "1")]
    pub arrival: u64,
    /// The first column,
    #[prost(uint32, tag = "2")]
    pub from: u32,
    /// and the one after the last.
    #[prost(uint32, tag = "3")]
    pub upto: u32,
}

/// The unroll as it is kept, and the SHA-256 of its encoding.
pub fn content_hash(unroll: &Unroll, layout: &UnrollLayout) -> (v1::Unroll, Vec<u8>) {
    let message = unroll.to_wire(layout);
    let hash = Sha256::digest(message.encode_to_vec()).to_vec();
    (message, hash)
}

/// SHA-256 of names, shapes and numbers of `weights`, in their order.
///
/// # Errors
/// If a tensor cannot be read.
pub fn weights_hash(weights: &Weights) -> Result<Vec<u8>, PolicyError> {
    let mut hash = Sha256::new();
    for (name, tensor) in &weights.0 {
        hash.update(format!("{name} {:?}\n", tensor.dims()));
        for value in tensor.flatten_all()?.to_vec1::<f32>()? {
            hash.update(value.to_le_bytes());
        }
    }
    Ok(hash.finalize().to_vec())
}

/// A hash for people to compare.
pub fn hex(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The folder of records in a run directory.
pub fn folder(run_dir: &Path) -> PathBuf {
    run_dir.join("arrivals")
}

/// The records of a life.
pub fn records_path(run_dir: &Path, life: u64) -> PathBuf {
    folder(run_dir).join(format!("life-{life}.records"))
}

/// The checkpoint that a life goes on from, beside its records.
pub fn origin_path(run_dir: &Path, life: u64) -> PathBuf {
    folder(run_dir).join(format!("life-{life}.safetensors"))
}
