//! One actor's account: who it is, what it has sent, and the counters that it reports.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use impresario_common::wire::v1;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{ActorKey, AdmissionError};

/// Steps that one incarnation can report. No actor takes as many, and sums over all of them stay in range.
const MAX_PRODUCED_STEPS: u64 = 1 << 48;

/// Reasons for dropped steps that an actor may name, and bytes of a name.
const MAX_REASONS: usize = 16;
const MAX_REASON_BYTES: usize = 64;

/// One actor's account.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) incarnation: u64,
    /// Environment copies of each unroll.
    pub(super) columns: usize,
    pub(super) workers: usize,
    pub(super) connected: bool,
    /// Its newest stream has ended. One that has only joined is about to open its first.
    pub(super) cut_off: bool,
    /// When it was last heard of, or lost.
    pub(super) last_heard: Instant,
    /// Sequence number of the next unroll.
    pub(super) next_sequence: u64,
    /// Steps in admitted unrolls.
    pub(super) received: u64,
    /// Index after the last grant of which an unroll was handed out for training.
    pub(super) trained_grants: u64,
    /// A former life of the run opened it, and the actor has not come back since.
    pub(super) inherited: bool,
    /// Unrolls that wait in the queue.
    pub(super) queued: usize,
    pub(super) progress: v1::Progress,
    /// Number of the newest stream.
    pub(super) stream: u64,
    /// Rung when there is mail for the newest stream; each has a bell of its own, because a bell wakes one
    /// listener only.
    pub(super) bell: Arc<Notify>,
    /// Set when a newer stream replaces the newest.
    pub(super) replaced: CancellationToken,
    /// Set when the account is closed.
    pub(super) closed: CancellationToken,
}

/// An account as a checkpoint keeps it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SavedAccount {
    actor: u32,
    incarnation: u64,
    workers: usize,
    columns: usize,
    next_sequence: u64,
    received: u64,
    produced: u64,
    dropped: BTreeMap<String, u64>,
    /// In nanoseconds: inference, environment, waiting for grants, waiting for the uplink.
    worker_time: [u64; 4],
}

impl SavedAccount {
    pub(super) fn key(&self) -> ActorKey {
        ActorKey { actor: self.actor, incarnation: self.incarnation }
    }

    fn progress(&self) -> v1::Progress {
        v1::Progress {
            produced_steps: self.produced,
            dropped_steps: self.dropped.clone().into_iter().collect(),
            worker_time: Some(time_from(self.worker_time)),
        }
    }
}

/// What an actor of a former life of the run says of itself when it comes back.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Standing {
    /// Unrolls acknowledged to it.
    pub acknowledged_unrolls: u64,
    /// Environment steps in them.
    pub acknowledged_steps: u64,
    /// Index after the last grant it has received.
    pub next_grant: u64,
    /// Its counters.
    pub progress: v1::Progress,
}

impl From<v1::Standing> for Standing {
    fn from(standing: v1::Standing) -> Self {
        Self {
            acknowledged_unrolls: standing.acknowledged_unrolls,
            acknowledged_steps: standing.acknowledged_steps,
            next_grant: standing.next_grant,
            progress: standing.progress.unwrap_or_default(),
        }
    }
}

pub(super) fn time_to(time: &v1::WorkerTime) -> [u64; 4] {
    [time.inference, time.environment, time.waiting_grant, time.waiting_uplink]
}

pub(super) fn time_from(time: [u64; 4]) -> v1::WorkerTime {
    let [inference, environment, waiting_grant, waiting_uplink] = time;
    v1::WorkerTime { inference, environment, waiting_grant, waiting_uplink }
}

impl Account {
    /// An account of which nothing has come yet.
    pub(super) fn open(key: ActorKey, workers: usize, columns: usize) -> Self {
        let closed = CancellationToken::new();
        Self {
            incarnation: key.incarnation,
            columns,
            workers,
            connected: false,
            cut_off: false,
            last_heard: Instant::now(),
            next_sequence: 0,
            received: 0,
            trained_grants: 0,
            inherited: false,
            queued: 0,
            progress: v1::Progress::default(),
            stream: 0,
            bell: Arc::default(),
            replaced: closed.child_token(),
            closed,
        }
    }

    /// The account that a former life of the run has left.
    pub(super) fn inherit(saved: &SavedAccount) -> Self {
        Self {
            next_sequence: saved.next_sequence,
            received: saved.received,
            progress: saved.progress(),
            inherited: true,
            ..Self::open(saved.key(), saved.workers, saved.columns)
        }
    }

    pub(super) fn save(&self, actor: u32) -> SavedAccount {
        let progress = &self.progress;
        SavedAccount {
            actor,
            incarnation: self.incarnation,
            workers: self.workers,
            columns: self.columns,
            next_sequence: self.next_sequence,
            received: self.received,
            produced: progress.produced_steps,
            dropped: progress.dropped_steps.clone().into_iter().collect(),
            worker_time: progress.worker_time.as_ref().map(time_to).unwrap_or_default(),
        }
    }

    /// The actor is back, in a new life of the run, and `standing` is what it knows. Returns the steps that the former life
    /// acknowledged and left no trace of.
    pub(super) fn reconcile(&mut self, standing: Standing) -> Result<u64, AdmissionError> {
        let malformed = |problem: String| Err(AdmissionError::Malformed(format!("standing: {problem}")));
        let mut lost = 0;
        let (mut next_sequence, mut received) = (self.next_sequence, self.received);
        if standing.acknowledged_unrolls > standing.acknowledged_steps {
            return malformed(format!(
                "{} unrolls acknowledged, but only {} steps in them",
                standing.acknowledged_unrolls, standing.acknowledged_steps
            ));
        }
        if standing.acknowledged_unrolls > next_sequence {
            let Some(forgotten) = standing.acknowledged_steps.checked_sub(received) else {
                return malformed(format!(
                    "{} steps acknowledged, but {received} were received before",
                    standing.acknowledged_steps
                ));
            };
            (next_sequence, received, lost) =
                (standing.acknowledged_unrolls, standing.acknowledged_steps, forgotten);
        }
        let former = (self.next_sequence, self.received);
        (self.next_sequence, self.received) = (next_sequence, received);
        self.take_progress(standing.progress)
            .inspect_err(|_| (self.next_sequence, self.received) = former)?;
        self.inherited = false;
        Ok(lost)
    }

    pub(super) fn dropped(&self) -> u64 {
        self.progress.dropped_steps.values().sum()
    }

    /// Steps produced that neither came nor were dropped.
    pub(super) fn outstanding(&self) -> u64 {
        self.progress.produced_steps.saturating_sub(self.received + self.dropped())
    }

    /// Makes a stream the newest; the former one is told.
    pub(super) fn replace_stream(&mut self) {
        self.stream += 1;
        (self.connected, self.cut_off) = (false, false);
        self.replaced.cancel();
        self.replaced = self.closed.child_token();
        self.bell = Arc::default();
    }

    pub(super) fn take_progress(&mut self, progress: v1::Progress) -> Result<(), AdmissionError> {
        let dropped = check_counters(&progress)?;
        if progress.produced_steps < self.progress.produced_steps || dropped < self.dropped() {
            return Err(AdmissionError::Malformed("progress: counters run backwards".into()));
        }
        if progress.produced_steps < self.received + dropped {
            return Err(AdmissionError::Malformed(format!(
                "progress: {} steps produced, but {} received and {dropped} dropped",
                progress.produced_steps, self.received
            )));
        }
        self.last_heard = Instant::now();
        self.progress = progress;
        Ok(())
    }
}

/// Checks that a message's counters are numbers that can be added up, and returns the dropped steps.
fn check_counters(progress: &v1::Progress) -> Result<u64, AdmissionError> {
    let malformed = |problem: String| Err(AdmissionError::Malformed(format!("progress: {problem}")));
    if progress.produced_steps > MAX_PRODUCED_STEPS {
        return malformed(format!("{} steps produced, more than can be", progress.produced_steps));
    }
    let reasons = &progress.dropped_steps;
    if reasons.len() > MAX_REASONS {
        return malformed(format!("{} reasons for dropped steps, at most {MAX_REASONS}", reasons.len()));
    }
    let is_name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    if !reasons.keys().all(|r| (1..=MAX_REASON_BYTES).contains(&r.len()) && r.bytes().all(is_name)) {
        return malformed(format!(
            "a reason for dropped steps is not a name of 1 to {MAX_REASON_BYTES} lower-case letters, digits and _"
        ));
    }
    match reasons.values().try_fold(0u64, |sum, &steps| sum.checked_add(steps)) {
        Some(dropped) if dropped <= progress.produced_steps => Ok(dropped),
        _ => malformed(format!("more steps dropped than the {} produced", progress.produced_steps)),
    }
}

pub(super) fn add_time(total: &mut v1::WorkerTime, progress: &v1::Progress) {
    if let Some(time) = &progress.worker_time {
        // What actors claim may be anything.
        let add = |total: &mut u64, nanoseconds: u64| *total = total.saturating_add(nanoseconds);
        add(&mut total.inference, time.inference);
        add(&mut total.environment, time.environment);
        add(&mut total.waiting_grant, time.waiting_grant);
        add(&mut total.waiting_uplink, time.waiting_uplink);
    }
}
