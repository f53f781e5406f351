//! The books: accounts, pacing and the queue, which change together under the intake's lock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use impresario_common::unroll::{Unroll, UnrollLayout};
use impresario_common::wire::v1;
use serde::{Deserialize, Serialize};

use super::account::{Account, SavedAccount, add_time, time_from, time_to};
use super::{ActorKey, AdmissionError, StreamKey};
use crate::accounting::{Accounting, DropReason};
use crate::arrivals::ArrivalLog;
use crate::pacing::{ActorId, Delivery, Pacing};
use crate::roster::Rollout;

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
    /// Its place in the order of arrival.
    arrival: u64,
}

/// The books as a checkpoint keeps them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedBooks {
    pub(super) trained: u64,
    pub(super) dropped: BTreeMap<String, u64>,
    pub(super) closed_produced: u64,
    closed_worker_time: [u64; 4],
    /// Steps admitted and not trained on.
    unfinished: u64,
    accounts: Vec<SavedAccount>,
}

impl SavedBooks {
    /// The books of a run that is over: there are no accounts any more.
    pub fn closed(accounting: &Accounting) -> Self {
        Self {
            trained: accounting.trained,
            dropped: accounting.dropped.clone(),
            closed_produced: accounting.produced,
            unfinished: accounting.in_flight,
            ..Self::default()
        }
    }
}

#[derive(Debug)]
pub(super) struct Books {
    /// The policy version that each life of the run began from, the present one's last.
    lives: Vec<u64>,
    /// Bytes that the queue is meant to hold.
    capacity_bytes: u64,
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
    /// Unrolls admitted to the queue.
    arrivals: u64,
    /// Is told of them.
    log: Option<Arc<ArrivalLog>>,
    /// Where actors stood that have left since it is finished.
    pub(super) rollouts: BTreeMap<ActorKey, Rollout>,
}

impl Books {
    /// The books of a life that goes on from `saved`.
    pub(super) fn resumed(pacing: Pacing, lives: Vec<u64>, saved: SavedBooks, capacity_bytes: u64) -> Self {
        let inherit = |saved: &SavedAccount| (saved.key().actor, Account::inherit(saved));
        let mut books = Self {
            lives,
            capacity_bytes,
            pacing,
            layout: None,
            accounts: saved.accounts.iter().map(inherit).collect(),
            queue: BTreeMap::new(),
            queue_bytes: 0,
            training: 0,
            trained: saved.trained,
            dropped: saved.dropped,
            closed_produced: saved.closed_produced,
            closed_worker_time: time_from(saved.closed_worker_time),
            bytes_admitted: 0,
            started: None,
            last_sweep: Instant::now(),
            finished: false,
            arrivals: 0,
            log: None,
            rollouts: BTreeMap::new(),
        };
        books.drop_steps(DropReason::LearnerRestart, saved.unfinished);
        books
    }

    /// What [`Self::resumed`] goes on from.
    pub(super) fn save(&self) -> SavedBooks {
        SavedBooks {
            trained: self.trained,
            dropped: self.dropped.clone(),
            closed_produced: self.closed_produced,
            closed_worker_time: time_to(&self.closed_worker_time),
            unfinished: self.queued_steps() + self.training,
            accounts: self.accounts.iter().map(|(actor, account)| account.save(*actor)).collect(),
        }
    }

    /// Closes the accounts that a former life has left: their actors cannot go on in this one.
    pub(super) fn disinherit(&mut self) {
        let inherited: Vec<ActorId> =
            self.accounts.iter().filter(|(_, account)| account.inherited).map(|(actor, _)| *actor).collect();
        for actor in inherited {
            self.close(actor);
        }
    }

    /// What the actors' unrolls look like, known from the first of them or from a checkpoint.
    pub(super) fn set_layout(&mut self, layout: &UnrollLayout) {
        self.layout = Some(Arc::new(layout.clone()));
        // What is granted must find room when it comes, whatever the lag bound permits.
        let limit = self.capacity_bytes / (layout.column_bytes() as u64).max(1);
        self.pacing.limit_columns(usize::try_from(limit).unwrap_or(usize::MAX));
    }

    /// Whether weights acted that a restart has undone: a version of a former life which was in no checkpoint that a later one
    /// went on from.
    fn is_undone(&self, life: u64, version: u64) -> bool {
        let later = usize::try_from(life).ok().and_then(|life| self.lives.get(life.saturating_add(1)..));
        later.into_iter().flatten().any(|&begun| version > begun)
    }

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
        if unroll.life >= self.lives.len() as u64 {
            return Err(AdmissionError::Malformed(format!("life: there has been no life {}", unroll.life)));
        }
        let undone = self.is_undone(unroll.life, unroll.policy_version);
        let account = self.stream(stream)?;
        account.take_progress(progress)?;
        if account.progress.produced_steps < account.received + account.dropped() + steps {
            return Err(AdmissionError::Malformed("progress: the unroll's steps are not in it".into()));
        }
        let delivery = match undone {
            true => self.pacing.withdraw(key.actor, unroll.grant),
            false => self.pacing.deliver(key.actor, unroll.grant, unroll.policy_version),
        };
        match delivery {
            Delivery::Accepted => {}
            Delivery::Revoked if undone => self.drop_steps(DropReason::LearnerRestart, steps),
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
            let queued = Queued { unroll: Arc::new(unroll), taken: 0, arrival: self.arrivals };
            self.arrivals += 1;
            if let Some(log) = &self.log {
                log.arrived(queued.arrival, key, sequence, queued.unroll.clone());
            }
            self.queue.insert(queue_key, queued);
        }
        Ok(())
    }

    /// Tells `log` of every arrival, and at once of those in the queue, which count anew.
    pub(super) fn record_into(&mut self, log: Arc<ArrivalLog>) {
        let mut waiting: Vec<_> = self.queue.iter_mut().collect();
        waiting.sort_by_key(|(_, queued)| queued.arrival);
        for (number, ((_, key, _, sequence), queued)) in (0..).zip(waiting) {
            queued.arrival = number;
            log.arrived(number, *key, *sequence, queued.unroll.clone());
        }
        self.arrivals = self.queue.len() as u64;
        self.log = Some(log);
    }

    /// Takes `columns` columns from the head of the queue: numbers of arrivals, their unrolls, and which columns of them.
    pub(super) fn take(&mut self, columns: usize) -> Vec<(u64, Arc<Unroll>, std::ops::Range<usize>)> {
        self.pacing.begin(columns);
        let mut parts = vec![];
        let mut missing = columns;
        while missing > 0 {
            let mut head = self.queue.first_entry().expect("pacing counts the columns in the queue");
            let queued = head.get_mut();
            let upto = queued.unroll.copies.min(queued.taken + missing);
            parts.push((queued.arrival, queued.unroll.clone(), queued.taken..upto));
            missing -= upto - queued.taken;
            self.training += ((upto - queued.taken) * queued.unroll.length) as u64;
            queued.taken = upto;
            if let Some(account) = self.accounts.get_mut(&head.key().1.actor) {
                account.trained_grants =
                    account.trained_grants.max(head.get().unroll.grant.saturating_add(1));
            }
            let queued = head.get();
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

    /// Steps that wait to be trained on.
    fn queued_steps(&self) -> u64 {
        self.queue.values().map(|q| ((q.unroll.copies - q.taken) * q.unroll.length) as u64).sum()
    }

    pub(super) fn drop_queue(&mut self) {
        let steps = self.queued_steps();
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
        let mut books = Accounting {
            produced: self.closed_produced,
            trained: self.trained,
            dropped: self.dropped.clone(),
            in_flight: self.queued_steps() + self.training,
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
