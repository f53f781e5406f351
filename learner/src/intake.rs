//! Intake: admission of unrolls, exact accounting, the byte-bounded queue, and batches.
//!
//! Unrolls come from the gRPC service, which waits here while the queue is full (so that the stream is not
//! read, and the actor's environments stand still); batches go to the trainer's thread. Everything lies
//! under one short lock, pacing included, because all of it must change together. Here is who waits for whom; what
//! changes under the lock is in `books`, and one actor's part of it in `account`.

mod account;
mod books;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use impresario_common::config::{LimitsSection, RunConfig};
use impresario_common::unroll::{Unroll, UnrollLayout};
use impresario_common::wire::v1;

use crate::accounting::{Accounting, DropReason};
use crate::arrivals::{ArrivalLog, Part};
use crate::batch::Batch;
use crate::pacing::{ActorId, Grant, Pacing};
use crate::roster::Rollout;
use account::{Account, add_time};
use books::Books;

pub use account::Standing;
pub use books::SavedBooks;

/// Silence of an actor without a stream after which its grants go to others. Its stream has ended, so it has
/// probably died; if it is back in time, it goes on as if nothing had happened.
const DISCONNECTED_GRACE: Duration = Duration::from_secs(1);

/// How often somebody looks for silent actors.
const SWEEP_INTERVAL: Duration = Duration::from_millis(100);

/// How often an admission that waits for room looks again, and gives a sign of life for its actor, whose own
/// signs wait behind the unroll.
const ROOM_INTERVAL: Duration = Duration::from_millis(500);

/// Time between two looks for silent actors after which nobody is blamed for it: the learner itself may have
/// stood still, and what it should have heard lies unread in its streams.
const SWEEP_LATE: Duration = Duration::from_secs(1);

/// Which life of which actor a message belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ActorKey {
    /// Place in the roster.
    pub actor: ActorId,
    /// Which life of the process in that place.
    pub incarnation: u64,
}

/// Which stream of an actor a message belongs to. Only the newest one acts for it: what an older one still
/// holds would come twice, or tell of the past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamKey {
    /// Whose stream it is.
    pub actor: ActorKey,
    /// Position among the streams of this incarnation; 0 before the first.
    pub number: u64,
}

/// A stream that an actor has opened.
#[derive(Debug, Clone)]
pub struct OpenStream {
    /// Which.
    pub key: StreamKey,
    /// Rings when there is mail.
    pub bell: Arc<Notify>,
    /// Set when a newer stream takes over, or the account is closed.
    pub replaced: CancellationToken,
}

/// Why an unroll was not admitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdmissionError {
    /// The run is over.
    #[error("the run is over")]
    Finished,
    /// The identity is not, or no longer, in the books.
    #[error("actor {0} incarnation {1} is not in this run's books (any more): join afresh")]
    Unknown(ActorId, u64),
    /// The message came on a stream that is not the actor's newest.
    #[error("a newer stream has replaced this one")]
    Replaced,
    /// The message breaks the contract.
    #[error("{0}")]
    Malformed(String),
}

/// An unroll that has come, and what its message says beside it.
#[derive(Debug)]
pub struct Arrival {
    /// Position among its incarnation's unrolls.
    pub sequence: u64,
    /// The actor's counters when it was sent.
    pub progress: v1::Progress,
    /// The experience.
    pub unroll: Unroll,
}

/// What the actor is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// Sequence number of the first unroll not admitted.
    pub acknowledged: u64,
    /// Grants not yet sent.
    pub grants: Vec<Grant>,
    /// The run is over.
    pub finished: bool,
}

/// A batch on its way through training.
#[derive(Debug)]
pub struct Work {
    /// The experience.
    pub batch: Batch,
    /// Return and length of each episode that ended inside.
    pub episodes: Vec<(f32, u32)>,
    /// Which columns of which arrivals it was made of.
    pub parts: Vec<Part>,
}

/// What the intake looks like from outside, for reports.
#[derive(Debug, Clone, Default)]
pub struct IntakeView {
    /// The run's books.
    pub accounting: Accounting,
    /// Unrolls waiting.
    pub queue_unrolls: usize,
    /// Bytes waiting.
    pub queue_bytes: u64,
    /// Actors with an open stream.
    pub actors_connected: usize,
    /// Rollout workers of the actors with an open stream.
    pub workers: usize,
    /// Cumulative time of all workers of the run, by what they did.
    pub worker_time: v1::WorkerTime,
    /// Bytes of experience admitted so far.
    pub bytes_admitted: u64,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Intake {
    state: Mutex<Books>,
    /// A batch may be ready.
    batch_ready: Condvar,
    /// The queue has shrunk.
    room: Notify,
    /// An account was closed.
    departure: Notify,
    queue_bytes: u64,
    limits: LimitsSection,
    batch_size: usize,
    grant_timeout: Duration,
    reconnect: Duration,
}

impl Intake {
    /// An empty intake for a run that starts, or goes on, from policy version `version` with the books
    /// `accounting`, in which nothing is in flight.
    pub fn new(config: &RunConfig, version: u64, accounting: Accounting) -> Self {
        Self::resumed(config, vec![version], SavedBooks::closed(&accounting), None)
    }

    /// The intake of a learner that goes on from `saved`. `lives` has the policy version that each life of the run began
    /// from, the present one's last; of `layout`, the actors' unrolls, everything is known if the former life's actors may come
    /// back. What the former life had acknowledged and not trained on is lost with it.
    pub fn resumed(
        config: &RunConfig,
        lives: Vec<u64>,
        saved: SavedBooks,
        layout: Option<UnrollLayout>,
    ) -> Self {
        let learner = &config.learner;
        let pacing = Pacing::new(
            learner.max_policy_lag.0,
            learner.batch_size,
            learner.wait_for_actors,
            lives.last().copied().unwrap_or(0),
        );
        let mut books = Books::resumed(pacing, lives, saved, learner.queue_bytes);
        match layout {
            Some(layout) => books.set_layout(&layout),
            None => books.disinherit(),
        }
        Self {
            state: Mutex::new(books),
            batch_ready: Condvar::new(),
            room: Notify::new(),
            departure: Notify::new(),
            queue_bytes: learner.queue_bytes,
            limits: config.limits.clone(),
            batch_size: learner.batch_size,
            grant_timeout: Duration::from_secs_f64(learner.grant_timeout_seconds),
            // A stream opens a moment after its actor has joined.
            reconnect: Duration::from_secs_f64(learner.reconnect_seconds).max(DISCONNECTED_GRACE),
        }
    }

    /// Whether unrolls of `columns` columns can ever be granted, queued and trained.
    ///
    /// # Errors
    /// With a message that says what to change.
    pub fn check_shape(&self, layout: &UnrollLayout, columns: usize) -> Result<(), String> {
        self.state.lock().pacing.check_columns(columns)?;
        let column = layout.column_bytes();
        let limit = self.limits.message_bytes;
        if columns.saturating_mul(column) > limit {
            return Err(format!(
                "an unroll of {columns} environment copies has {} bytes, more than the {limit} of a message: start the \
                 actor with fewer --envs or more --workers, lower rollout.unroll_length, or raise limits.message_bytes",
                columns.saturating_mul(column),
            ));
        }
        let needed = self.batch_size.saturating_add(columns).saturating_mul(column) as u64;
        if needed > self.queue_bytes {
            return Err(format!(
                "a batch of {} columns and an unroll of {columns} need {needed} bytes of queue, but \
                 learner.queue_bytes is {}: raise it, or lower learner.batch_size or the actor's --envs",
                self.batch_size, self.queue_bytes,
            ));
        }
        Ok(())
    }

    /// Opens an account, closing the one of the actor's former incarnation. The token is set when it closes.
    pub fn join(
        &self,
        key: ActorKey,
        workers: usize,
        columns: usize,
        layout: &UnrollLayout,
    ) -> CancellationToken {
        let mut state = self.state.lock();
        if state.layout.is_none() {
            state.set_layout(layout);
        }
        state.close(key.actor);
        let account = Account::open(key, workers, columns);
        let closed = account.closed.clone();
        state.accounts.insert(key.actor, account);
        state.pacing.join(key.actor, workers, columns, 0);
        self.deliver_mail(&mut state);
        closed
    }

    /// The accounts that the former life of the run has left, and what is set when each closes.
    pub fn inherited(&self) -> Vec<(ActorKey, CancellationToken)> {
        let state = self.state.lock();
        let inherited = state.accounts.iter().filter(|(_, account)| account.inherited);
        let key = |actor: &ActorId, incarnation| ActorKey { actor: *actor, incarnation };
        inherited.map(|(actor, a)| (key(actor, a.incarnation), a.closed.clone())).collect()
    }

    /// Opens an account for an actor that the former life of the run has let in, and of which its last checkpoint does not
    /// know; [`Self::resume`] follows. The token is set when it closes.
    pub fn adopt(
        &self,
        key: ActorKey,
        workers: usize,
        columns: usize,
        layout: &UnrollLayout,
    ) -> CancellationToken {
        let mut state = self.state.lock();
        if state.layout.is_none() {
            state.set_layout(layout);
        }
        let account = Account { inherited: true, ..Account::open(key, workers, columns) };
        let closed = account.closed.clone();
        state.accounts.insert(key.actor, account);
        closed
    }

    /// `key` begins anew after a break: the sequence number of the first unroll not admitted from it. Its former stream acts
    /// for it no more, so that the number stays true. If the break was the learner's, and its account is a former life's,
    /// `standing` tells what that life had acknowledged after its last checkpoint; it is lost.
    ///
    /// # Errors
    /// If it has no account, or `standing` contradicts what is known.
    pub fn resume(&self, key: ActorKey, standing: Standing) -> Result<u64, AdmissionError> {
        let mut state = self.state.lock();
        let account = state.account(key)?;
        if account.inherited {
            let next_grant = standing.next_grant;
            let lost = account.reconcile(standing)?;
            let (workers, columns) = (account.workers, account.columns);
            state.drop_steps(DropReason::LearnerRestart, lost);
            state.pacing.join(key.actor, workers, columns, next_grant);
            self.deliver_mail(&mut state);
        }
        let account = state.account(key)?;
        account.replace_stream();
        account.last_heard = Instant::now();
        let sequence = account.next_sequence;
        self.departure.notify_waiters();
        Ok(sequence)
    }

    /// The books as a checkpoint keeps them.
    pub fn saved(&self) -> (Accounting, SavedBooks) {
        let state = self.state.lock();
        (state.accounting(), state.save())
    }

    /// `key` opens a stream, which replaces its former ones.
    ///
    /// # Errors
    /// If `key` has no account.
    pub fn connect(&self, key: ActorKey) -> Result<OpenStream, AdmissionError> {
        let mut state = self.state.lock();
        let account = state.account(key)?;
        account.replace_stream();
        account.connected = true;
        account.last_heard = Instant::now();
        let stream = OpenStream {
            key: StreamKey { actor: key, number: account.stream },
            bell: account.bell.clone(),
            replaced: account.replaced.clone(),
        };
        state.pacing.activate(key.actor);
        state.pacing.resend(key.actor);
        self.deliver_mail(&mut state);
        Ok(stream)
    }

    /// A stream has ended. If it was the newest, its actor's grants stay its own for a moment.
    pub fn disconnected(&self, stream: StreamKey) {
        let mut state = self.state.lock();
        if let Ok(account) = state.stream(stream) {
            account.connected = false;
            account.cut_off = true;
            account.last_heard = Instant::now();
            self.departure.notify_waiters();
        }
    }

    /// From now on `log` is told of every unroll that is admitted, and at once of those that wait already.
    pub fn record_into(&self, log: Arc<ArrivalLog>) {
        self.state.lock().record_into(log);
    }

    /// Whether the run is over.
    pub fn is_finished(&self) -> bool {
        self.state.lock().finished
    }

    /// What is to be told on `stream` now.
    ///
    /// # Errors
    /// If `stream` does not act for an account.
    pub fn mail(&self, stream: StreamKey) -> Result<Mail, AdmissionError> {
        let mut state = self.state.lock();
        let acknowledged = state.stream(stream)?.next_sequence;
        let grants = state.pacing.take_unsent(stream.actor.actor);
        Ok(Mail { acknowledged, grants, finished: state.finished })
    }

    /// [`Self::admit_all`] for a single unroll.
    ///
    /// # Errors
    /// As there.
    pub async fn admit(
        &self,
        stream: StreamKey,
        sequence: u64,
        progress: v1::Progress,
        unroll: Unroll,
    ) -> Result<(), AdmissionError> {
        self.admit_all(stream, &mut VecDeque::from([Arrival { sequence, progress, unroll }])).await
    }

    /// Takes unrolls into the queue and the books, in their order, waiting while the queue is full. Those that are
    /// in leave `arrivals`, however it ends: all of them if it ends well.
    ///
    /// # Errors
    /// If the run is over, `stream` does not act for an account, or an unroll breaks the contract.
    pub async fn admit_all(
        &self,
        stream: StreamKey,
        arrivals: &mut VecDeque<Arrival>,
    ) -> Result<(), AdmissionError> {
        loop {
            let room = self.room.notified();
            {
                let mut state = self.state.lock();
                let admitted = self.admit_what_fits(&mut state, stream, arrivals);
                self.deliver_mail(&mut state);
                if state.pacing.ready() > 0 {
                    self.batch_ready.notify_one();
                }
                admitted?;
            }
            if arrivals.is_empty() {
                return Ok(());
            }
            let _ = tokio::time::timeout(ROOM_INTERVAL, room).await;
        }
    }

    fn admit_what_fits(
        &self,
        state: &mut Books,
        stream: StreamKey,
        arrivals: &mut VecDeque<Arrival>,
    ) -> Result<(), AdmissionError> {
        if state.finished {
            return Err(AdmissionError::Finished);
        }
        state.stream(stream)?.last_heard = Instant::now();
        while let Some(next) = arrivals.front() {
            let bytes = next.unroll.bytes() as u64;
            let full = state.queue_bytes + bytes > self.queue_bytes
                || state.stream(stream)?.queued >= self.limits.unrolls_in_flight;
            // A trainer that has no batch waits for this unroll or one behind it, and would wait for ever.
            if full && state.pacing.ready() > 0 {
                break;
            }
            let Some(Arrival { sequence, progress, unroll }) = arrivals.pop_front() else { break };
            state.admit(stream, sequence, progress, unroll)?;
        }
        Ok(())
    }

    /// Columns of each unroll that `key` sends, and the layout to read them by.
    ///
    /// # Errors
    /// If `key` has no account.
    pub fn shape(&self, key: ActorKey) -> Result<(Arc<UnrollLayout>, usize), AdmissionError> {
        let mut state = self.state.lock();
        let columns = state.account(key)?.columns;
        let layout = state.layout.clone();
        Ok((layout.ok_or(AdmissionError::Unknown(key.actor, key.incarnation))?, columns))
    }

    /// An actor's counters have come.
    ///
    /// # Errors
    /// If `stream` does not act for an account or the counters run backwards.
    pub fn progress(&self, stream: StreamKey, progress: v1::Progress) -> Result<(), AdmissionError> {
        let mut state = self.state.lock();
        state.stream(stream)?.take_progress(progress)?;
        state.pacing.activate(stream.actor.actor);
        self.deliver_mail(&mut state);
        Ok(())
    }

    /// An actor leaves for good; whatever its last counters leave open is lost.
    ///
    /// # Errors
    /// As [`Self::progress`].
    pub fn goodbye(&self, stream: StreamKey, progress: v1::Progress) -> Result<(), AdmissionError> {
        let mut state = self.state.lock();
        state.stream(stream)?.take_progress(progress)?;
        state.close(stream.actor.actor);
        self.deliver_mail(&mut state);
        self.departure.notify_waiters();
        self.batch_ready.notify_one();
        Ok(())
    }

    /// An actor that is about to leave says where it stands. That is of use once the run is over and nothing can change it any
    /// more; it takes the room of the queue, which is empty then.
    ///
    /// # Errors
    /// If `stream` does not act for an account.
    pub fn stands(&self, stream: StreamKey, state: Vec<u8>) -> Result<(), AdmissionError> {
        let mut books = self.state.lock();
        let account = books.stream(stream)?;
        let (workers, columns, grant) = (account.workers, account.columns, account.trained_grants);
        let held: usize = books.rollouts.values().map(|rollout| rollout.state.len()).sum();
        if books.finished && !state.is_empty() && (held + state.len()) as u64 <= self.queue_bytes {
            books.rollouts.insert(stream.actor, Rollout { workers, columns, grant, state });
        }
        Ok(())
    }

    /// Where actors stood that have left since the run ended, in the order of the roster.
    pub fn rollouts(&self) -> Vec<Rollout> {
        self.state.lock().rollouts.values().cloned().collect()
    }

    /// An actor breaks the contract: it is out, and what it produced and did not send is lost.
    pub fn expel(&self, stream: StreamKey) {
        let mut state = self.state.lock();
        if state.stream(stream).is_ok() {
            state.close(stream.actor.actor);
            self.deliver_mail(&mut state);
            self.departure.notify_waiters();
        }
    }

    /// The next batch, waiting for it; `None` when the run is over.
    pub fn next_batch(&self) -> Option<Work> {
        let mut state = self.state.lock();
        loop {
            if state.finished {
                return None;
            }
            let columns = state.pacing.ready();
            if columns > 0 {
                let taken = state.take(columns);
                let layout = state.layout.clone()?;
                drop(state);
                self.room.notify_waiters();
                let part = |(arrival, _, range): &(u64, _, std::ops::Range<usize>)| Part {
                    arrival: *arrival,
                    from: range.start as u32,
                    upto: range.end as u32,
                };
                let parts = taken.iter().map(part).collect();
                let columns = taken.into_iter().map(|(_, unroll, range)| (unroll, range)).collect();
                return Some(Work { parts, ..assemble(&layout, columns) });
            }
            self.batch_ready.wait_for(&mut state, SWEEP_INTERVAL);
            if state.last_sweep.elapsed() >= SWEEP_INTERVAL {
                self.sweep(&mut state);
            }
        }
    }

    /// The batch that [`Self::next_batch`] gave is done with, and the policy's version is now `version`.
    pub fn trained(&self, skipped: bool, version: u64) {
        let mut state = self.state.lock();
        let steps = std::mem::take(&mut state.training);
        if skipped {
            state.drop_steps(DropReason::UpdateSkipped, steps);
        } else {
            state.trained += steps;
        }
        state.pacing.finish(version);
        self.deliver_mail(&mut state);
    }

    /// Ends the run: nothing more is admitted or handed out, and actors are told.
    pub fn finish(&self) {
        let mut state = self.state.lock();
        if state.finished {
            return;
        }
        state.finished = true;
        state.drop_queue();
        for account in state.accounts.values() {
            account.bell.notify_one();
        }
        self.batch_ready.notify_all();
        self.room.notify_waiters();
    }

    /// Waits until every connected actor has said goodbye.
    pub async fn departed(&self) {
        loop {
            let departure = self.departure.notified();
            if self.state.lock().accounts.values().all(|account| !account.connected) {
                return;
            }
            departure.await;
        }
    }

    /// Closes every account: what is still open is lost. The books are final afterwards.
    pub fn close_books(&self) -> Accounting {
        let mut state = self.state.lock();
        let actors: Vec<ActorId> = state.accounts.keys().copied().collect();
        for actor in actors {
            state.close(actor);
        }
        // Still in training: the trainer has broken off without a word.
        let abandoned = std::mem::take(&mut state.training);
        state.drop_steps(DropReason::RunEnded, abandoned);
        state.accounting()
    }

    /// Looks for silent actors for as long as it is polled: the trainer, which looks while it waits, may be busy for long.
    pub async fn watch(&self) {
        let mut looks = tokio::time::interval(SWEEP_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            self.sweep(&mut self.state.lock());
        }
    }

    /// When the first unroll was granted.
    pub fn started(&self) -> Option<Instant> {
        self.state.lock().started
    }

    /// The state of things, for reports.
    pub fn view(&self) -> IntakeView {
        let mut state = self.state.lock();
        self.sweep(&mut state);
        let mut worker_time = state.closed_worker_time;
        for account in state.accounts.values() {
            add_time(&mut worker_time, &account.progress);
        }
        let connected = || state.accounts.values().filter(|a| a.connected);
        IntakeView {
            accounting: state.accounting(),
            queue_unrolls: state.queue.len(),
            queue_bytes: state.queue_bytes,
            actors_connected: connected().count(),
            workers: connected().map(|a| a.workers).sum(),
            worker_time,
            bytes_admitted: state.bytes_admitted,
        }
    }

    /// Takes grants back from silent actors, and closes the accounts of those that are gone.
    fn sweep(&self, state: &mut MutexGuard<'_, Books>) {
        let now = Instant::now();
        let since_last = now.duration_since(std::mem::replace(&mut state.last_sweep, now));
        if since_last > SWEEP_LATE {
            for account in state.accounts.values_mut() {
                account.last_heard = (account.last_heard + since_last).min(now);
            }
        }
        let silent = |account: &Account| now.duration_since(account.last_heard);
        let mut lost = vec![];
        let mut stalled = vec![];
        for (&actor, account) in &state.accounts {
            let silence = silent(account);
            if !account.connected && silence > self.reconnect {
                lost.push(actor);
            } else if silence > self.grant_timeout || account.cut_off && silence > DISCONNECTED_GRACE {
                stalled.push(actor);
            }
        }
        for actor in stalled {
            if state.pacing.suspend(actor) {
                tracing::warn!(actor, "actor is silent or gone: its grants go to others");
            }
        }
        for actor in lost {
            tracing::warn!(actor, "actor is gone: what it held counts as lost");
            state.close(actor);
            self.departure.notify_waiters();
        }
        self.deliver_mail(state);
    }

    /// Rings the bell of everyone who has been given grants.
    fn deliver_mail(&self, state: &mut MutexGuard<'_, Books>) {
        if state.started.is_none() && state.pacing.started() {
            state.started = Some(Instant::now());
        }
        for actor in state.pacing.take_news() {
            if let Some(account) = state.accounts.get(&actor) {
                account.bell.notify_one();
            }
        }
    }
}

/// The batch of these columns of these unrolls.
pub(crate) fn assemble(layout: &UnrollLayout, mut parts: Vec<(Arc<Unroll>, std::ops::Range<usize>)>) -> Work {
    let mut episodes = vec![];
    for (unroll, range) in &parts {
        // An unroll's episodes count once, with its first columns.
        if range.start == 0 {
            episodes
                .extend(unroll.episode_returns.iter().copied().zip(unroll.episode_lengths.iter().copied()));
        }
    }
    let whole = match parts.as_slice() {
        // Usual where an actor has as many copies as a batch has columns.
        [(unroll, range)] if range.len() == unroll.copies => parts.pop(),
        _ => None,
    };
    let batch = match whole {
        Some((unroll, _)) => Batch::whole(layout, Arc::unwrap_or_clone(unroll)),
        None => {
            let slices: Vec<_> =
                parts.iter().map(|(unroll, range)| (unroll.as_ref(), range.clone())).collect();
            Batch::assemble(layout, &slices)
        }
    };
    Work { batch, episodes, parts: vec![] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_dead_or_silent_loses_its_grants_within_ten_seconds_unless_told_otherwise() {
        // A look that is late by more excuses everybody for as long.
        let look = SWEEP_INTERVAL + SWEEP_LATE;
        let silent = Duration::from_secs_f64(RunConfig::default().learner.grant_timeout_seconds);
        assert!(silent + look < Duration::from_secs(10), "a silent one");
        assert!(DISCONNECTED_GRACE + look < Duration::from_secs(5), "one whose stream has ended");
    }
}
