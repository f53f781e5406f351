//! One actor's account: who it is, what it has sent, and the counters that it reports.

use std::sync::Arc;
use std::time::Instant;

use impresario_common::wire::v1;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::AdmissionError;
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
    /// When it was last heard of, or lost.
    pub(super) last_heard: Instant,
    /// Sequence number of the next unroll.
    pub(super) next_sequence: u64,
    /// Steps in admitted unrolls.
    pub(super) received: u64,
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

impl Account {
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
        self.connected = false;
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
