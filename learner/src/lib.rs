//! Impresario's learner: takes in experience, improves the policy, broadcasts every new version.
//!
//! # Layout
//!
//! In the order of the data's way:
//!
//! * [`access`]: TLS, the token, and limits on connections; [`service`]: the gRPC service, thin; [`roster`]: who may join, and as
//!   whom.
//! * [`intake`]: admission, exact accounting, the byte-bounded queue, batches; [`pacing`]: who may start an unroll
//!   now, so that the lag bound holds; [`accounting`]: the books.
//! * [`batch`]: columns of several unrolls side by side.
//! * [`trainer`]: one update; [`algorithm`]: one file a method; [`returns`]: V-trace and its kin;
//!   [`optimizer`]: RMSProp and Adam over [`parameters`]; [`schedule`]: what changes over a run; [`device`]: where the network
//!   is.
//! * [`broadcast`]: new weights to every actor.
//! * [`arrivals`]: what came on record, and the learner replayed from it.
//! * [`checkpoint`], [`report`]: files, logs, metrics, the bottleneck's verdict.
//! * [`lives`]: a run's name, and how often a learner has gone on with it.
//! * [`memory`]: what all of it takes at most. [`operations`]: the port for metrics and probes.
//! * [`mod@run`]: a learner's life; [`session`]: the trainer's thread; [`command`]: flags and exit code.

pub mod access;
pub mod accounting;
pub mod algorithm;
pub mod arrivals;
pub mod batch;
pub mod broadcast;
pub mod checkpoint;
pub mod command;
pub mod device;
pub mod intake;
pub mod lives;
pub mod memory;
pub mod operations;
pub mod optimizer;
pub mod pacing;
pub mod parameters;
pub mod report;
pub mod returns;
pub mod roster;
pub mod run;
pub mod schedule;
pub mod service;
pub mod session;
#[cfg(test)]
mod testing;
pub mod trainer;

pub use command::LearnerCommand;
pub use run::{LearnerError, LearnerOptions, run};
pub use session::Ending;
