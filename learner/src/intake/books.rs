//! The books: accounts, pacing and the queue, which change together under the intake's lock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use impresario_common::unroll::{Unroll, UnrollLayout};
use impresario_common::wire::v1;

use super::account::{Account, add_time};
use super::{ActorKey, AdmissionError, StreamKey};
use crate::accounting::{Accounting, DropReason};
use crate::pacing::{ActorId, Delivery, Pacing};

/// Reasons that the run's books keep apart; steps dropped for yet others count as [`OTHER_REASONS`].
const MAX_REASONS_IN_BOOKS: usize = 64;
const OTHER_REASONS: &str = "other";

/// Key of the queue: policy version, actor with incarnation, grant, sequence. The oldest version comes first; ties
/// are in the order of the roster and of the grants, so that lockstep batches do not depend on the order of
/// arrival, of which an actor's sequence numbers are one.
type QueueKey = (u64, ActorKey, u64, u64);

/// An unroll in the queue, of which the first `taken` columns are trained.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) unroll: Arc<Unroll>,
    pub(super) taken: usize,
}

#[derive(Debug)]
pub(super) struct Books {
    pub(super) pacing: Pacing,
    pub(super) layout: Option<Arc<UnrollLayout>>,
    pub(super) accounts: BTreeMap<ActorId, Account>,
    pub(super) queue: BTreeMap<QueueKey, Queued>,
    pub(super) queue_bytes: u64,
    /// Steps of the batch in training.
    pub(super) training: u64,
    pub(super) trained: u64,
    /// Steps dropped on this side.
    pub(super) dropped: BTreeMap<String, u64>,
    /// Books of accounts that are closed: produced steps and those the actors dropped themselves.
    pub(super) closed_produced: u64,
    pub(super) closed_worker_time: v1::WorkerTime,
    pub(super) bytes_admitted: u64,
    pub(super) started: Option<Instant>,
    pub(super) last_sweep: Instant,
    pub(super) finished: bool,
}

impl Books {
    pub(super) fn account(&mut self, key: ActorKey) -> Result<&mut Account, AdmissionError> {
        self.accounts
            .get_mut(&key.actor)
            .filter(|account| account.incarnation == key.incarnation)
            .ok_or(AdmissionError::Unknown(key.actor, key.incarnation))
    }

    /// The account that `stream` acts for.
    pub(super) fn stream(&mut self, stream: StreamKey) -> Result<&mut Account, AdmissionError> {
        let account = self.account(stream.actor)?;
        if account.stream == stream.number { Ok(account) } else { Err(AdmissionError::Replaced) }
    }

    pub(super) fn admit(
        &mut self,
        stream: StreamKey,
        sequence: u64,
        progress: v1::Progress,
        unroll: Unroll,
    ) -> Result<(), AdmissionError> {
        let key = stream.actor;
        let account = self.stream(stream)?;
        if sequence < account.next_sequence {
            // Sent again after a break, and already in the books: acknowledging it once more is all it needs.
            account.bell.notify_one();
            return Ok(());
        }
        if sequence > account.next_sequence {
            return Err(AdmissionError::Malformed(format!(
                "sequence: {sequence}, expected {}",
                account.next_sequence
            )));
        }
        let steps = unroll.steps() as u64;
        account.take_progress(progress)?;
        if account.progress.produced_steps < account.received + account.dropped() + steps {
            return Err(AdmissionError::Malformed("progress: the unroll's steps are not in it".into()));
        }
        let delivery = self.pacing.deliver(key.actor, unroll.grant, unroll.policy_version);
        match delivery {
            Delivery::Accepted => {}
            Delivery::Revoked => self.drop_steps(DropReason::GrantRevoked, steps),
            Delivery::NeverGranted => {
                return Err(AdmissionError::Malformed(format!(
                    "grant {} with policy version {} was never given",
                    unroll.grant, unroll.policy_version
                )));
            }
            Delivery::TooOld => {
                return Err(AdmissionError::Malformed(format!(
                    "policy_version: {} is older than grant {} permits",
                    unroll.policy_version, unroll.grant
                )));
            }
        }
        self.pacing.activate(key.actor);
        let account = self.account(key)?;
        account.next_sequence += 1;
        account.received += steps;
        account.bell.notify_one();
        if delivery == Delivery::Accepted {
            account.queued += 1;
            let bytes = unroll.bytes() as u64;
            self.queue_bytes += bytes;
            self.bytes_admitted += bytes;
            let queue_key = (unroll.policy_version, key, unroll.grant, sequence);
            self.queue.insert(queue_key, Queued { unroll: Arc::new(unroll), taken: 0 });
        }
        Ok(())
    }

    /// Takes `columns` columns from the head of the queue.
    pub(super) fn take(&mut self, columns: usize) -> Vec<(Arc<Unroll>, std::ops::Range<usize>)> {
        self.pacing.begin(columns);
        let mut parts = vec![];
        let mut missing = columns;
        while missing > 0 {
            let mut head = self.queue.first_entry().expect("pacing counts the columns in the queue");
            let queued = head.get_mut();
            let upto = queued.unroll.copies.min(queued.taken + missing);
            parts.push((queued.unroll.clone(), queued.taken..upto));
            missing -= upto - queued.taken;
            self.training += ((upto - queued.taken) * queued.unroll.length) as u64;
            queued.taken = upto;
            if upto == queued.unroll.copies {
                self.queue_bytes -= queued.unroll.bytes() as u64;
                let actor = head.key().1;
                head.remove();
                if let Ok(account) = self.account(actor) {
                    account.queued = account.queued.saturating_sub(1);
                }
            }
        }
        parts
    }

    pub(super) fn drop_queue(&mut self) {
        let steps = self.queue.values().map(|q| ((q.unroll.copies - q.taken) * q.unroll.length) as u64).sum();
        self.drop_steps(DropReason::RunEnded, steps);
        self.queue.clear();
        self.accounts.values_mut().for_each(|account| account.queued = 0);
        self.queue_bytes = 0;
    }

    pub(super) fn drop_steps(&mut self, reason: DropReason, steps: u64) {
        add_dropped(&mut self.dropped, reason.as_str(), steps);
    }

    /// Closes an account: what it produced and neither sent nor dropped is lost.
    pub(super) fn close(&mut self, actor: ActorId) {
        self.pacing.remove(actor);
        let Some(account) = self.accounts.remove(&actor) else { return };
        self.drop_steps(DropReason::ActorLost, account.outstanding());
        for (reason, steps) in &account.progress.dropped_steps {
            add_dropped(&mut self.dropped, reason, *steps);
        }
        self.closed_produced += account.progress.produced_steps;
        add_time(&mut self.closed_worker_time, &account.progress);
        account.closed.cancel();
    }

    pub(super) fn accounting(&self) -> Accounting {
        let queued: u64 =
            self.queue.values().map(|q| ((q.unroll.copies - q.taken) * q.unroll.length) as u64).sum();
        let mut books = Accounting {
            produced: self.closed_produced,
            trained: self.trained,
            dropped: self.dropped.clone(),
            in_flight: queued + self.training,
        };
        for account in self.accounts.values() {
            books.produced += account.progress.produced_steps;
            books.in_flight += account.outstanding();
            for (reason, steps) in &account.progress.dropped_steps {
                add_dropped(&mut books.dropped, reason, *steps);
            }
        }
        books
    }
}

/// Adds steps to the books under `reason`.
fn add_dropped(dropped: &mut BTreeMap<String, u64>, reason: &str, steps: u64) {
    if steps == 0 {
        return;
    }
    let known = dropped.contains_key(reason) || dropped.len() < MAX_REASONS_IN_BOOKS;
    *dropped.entry(if known { reason } else { OTHER_REASONS }.to_owned()).or_default() += steps;
}
