//! The run's books: every environment step that an actor produced is trained, dropped for a named reason,
//! or in flight.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Where all environment steps of the run are. `produced = trained + sum(dropped) + in_flight` always.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accounting {
    /// Steps that actors reported to have taken.
    pub produced: u64,
    /// Steps that an update was made on.
    pub trained: u64,
    /// Steps that never will be, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Steps in unfinished unrolls, uplinks, the queue and the batch being trained.
    pub in_flight: u64,
}

/// Why steps were dropped on the learner's side. Actors name reasons of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropReason {
    /// The actor vanished with them.
    ActorLost,
    /// Their grant had been given to others, and training on them would break the lag bound.
    GrantRevoked,
    /// A learner had acknowledged them that died before they were in a checkpoint as trained, or they were acted with weights
    /// that died with it.
    LearnerRestart,
    /// The run ended while they waited.
    RunEnded,
    /// The update they were part of was skipped: its loss or gradient was not finite.
    UpdateSkipped,
}

impl DropReason {
    /// The name in logs and summaries.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ActorLost => "actor_lost",
            Self::GrantRevoked => "grant_revoked",
            Self::LearnerRestart => "learner_restart",
            Self::RunEnded => "run_ended",
            Self::UpdateSkipped => "update_skipped",
        }
    }
}
