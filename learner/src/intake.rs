//! Intake: admission of unrolls, exact accounting, the byte-bounded queue, and batches.
//!
//! Unrolls come from the gRPC service, which waits here while the queue is full (so that the stream is not
//! read, and the actor's environments stand still); batches go to the trainer's thread. Everything lies
//! under one short lock, pacing included, because all of it must change together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use impresario_common::config::RunConfig;
use impresario_common::unroll::{Unroll, UnrollLayout};
use impresario_common::wire::{MAX_MESSAGE_BYTES, v1};

use crate::accounting::{Accounting, DropReason};
use crate::batch::Batch;
use crate::pacing::{ActorId, Delivery, Grant, Pacing};

/// Silence of an actor without a stream after which its grants go to others. Its stream has ended, so it has
/// probably died; if it is back in time, it goes on as if nothing had happened.
const DISCONNECTED_GRACE: Duration = Duration::from_secs(1);

/// How often the trainer looks for silent actors while it waits.
const SWEEP_INTERVAL: Duration = Duration::from_millis(100);

/// How often an admission that waits for room looks again, and gives a sign of life for its actor, whose own
/// signs wait behind the unroll.
const ROOM_INTERVAL: Duration = Duration::from_millis(500);

/// Time between two looks for silent actors after which nobody is blamed for it: the learner itself may have
/// stood still, and what it should have heard lies unread in its streams.
const SWEEP_LATE: Duration = Duration::from_secs(1);

/// Steps that one incarnation can report. No actor takes as many, and sums over all of them stay in range.
const MAX_PRODUCED_STEPS: u64 = 1 << 48;

/// Reasons for dropped steps that an actor may name, and bytes of a name.
const MAX_REASONS: usize = 16;
const MAX_REASON_BYTES: usize = 64;

/// Reasons that the run's books keep apart; steps dropped for yet others count as [`OTHER_REASONS`].
const MAX_REASONS_IN_BOOKS: usize = 64;
const OTHER_REASONS: &str = "other";

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

/// One actor's account.
#[derive(Debug)]
struct Account {
    incarnation: u64,
    /// Environment copies of each unroll.
    columns: usize,
    workers: usize,
    connected: bool,
    /// When it was last heard of, or lost.
    last_heard: Instant,
    /// Sequence number of the next unroll.
    next_sequence: u64,
    /// Steps in admitted unrolls.
    received: u64,
    progress: v1::Progress,
    /// Number of the newest stream.
    stream: u64,
    /// Rung when there is mail for the newest stream; each has a bell of its own, because a bell wakes one
    /// listener only.
    bell: Arc<Notify>,
    /// Set when a newer stream replaces the newest.
    replaced: CancellationToken,
    /// Set when the account is closed.
    closed: CancellationToken,
}

impl Account {
    fn dropped(&self) -> u64 {
        self.progress.dropped_steps.values().sum()
    }

    /// Steps produced that neither came nor were dropped.
    fn outstanding(&self) -> u64 {
        self.progress.produced_steps.saturating_sub(self.received + self.dropped())
    }
}

/// Key of the queue: policy version, actor with incarnation, grant, sequence. The oldest version comes first; ties
/// are in the order of the roster and of the grants, so that lockstep batches do not depend on the order of
/// arrival, of which an actor's sequence numbers are one.
type QueueKey = (u64, ActorKey, u64, u64);

/// An unroll in the queue, of which the first `taken` columns are trained.
#[derive(Debug)]
struct Queued {
    unroll: Arc<Unroll>,
    taken: usize,
}

#[derive(Debug)]
struct State {
    pacing: Pacing,
    layout: Option<Arc<UnrollLayout>>,
    accounts: BTreeMap<ActorId, Account>,
    queue: BTreeMap<QueueKey, Queued>,
    queue_bytes: u64,
    /// Steps of the batch in training.
    training: u64,
    trained: u64,
    /// Steps dropped on this side.
    dropped: BTreeMap<String, u64>,
    /// Books of accounts that are closed: produced steps and those the actors dropped themselves.
    closed_produced: u64,
    closed_worker_time: v1::WorkerTime,
    bytes_admitted: u64,
    started: Option<Instant>,
    last_sweep: Instant,
    finished: bool,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Intake {
    state: Mutex<State>,
    /// A batch may be ready.
    batch_ready: Condvar,
    /// The queue has shrunk.
    room: Notify,
    /// An account was closed.
    departure: Notify,
    queue_bytes: u64,
    batch_size: usize,
    grant_timeout: Duration,
    reconnect: Duration,
}

impl Intake {
    /// An empty intake for a run that starts, or goes on, from policy version `version` with the books
    /// `accounting`, in which nothing is in flight.
    pub fn new(config: &RunConfig, version: u64, accounting: Accounting) -> Self {
        let learner = &config.learner;
        Self {
            state: Mutex::new(State {
                pacing: Pacing::new(
                    learner.max_policy_lag.0,
                    learner.batch_size,
                    learner.wait_for_actors,
                    version,
                ),
                layout: None,
                accounts: BTreeMap::new(),
                queue: BTreeMap::new(),
                queue_bytes: 0,
                training: 0,
                trained: accounting.trained,
                dropped: accounting.dropped,
                closed_produced: accounting.produced,
                closed_worker_time: v1::WorkerTime::default(),
                bytes_admitted: 0,
                started: None,
                last_sweep: Instant::now(),
                finished: false,
            }),
            batch_ready: Condvar::new(),
            room: Notify::new(),
            departure: Notify::new(),
            queue_bytes: learner.queue_bytes,
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
        if columns.saturating_mul(column) > MAX_MESSAGE_BYTES {
            return Err(format!(
                "an unroll of {columns} environment copies has {} bytes, more than the {MAX_MESSAGE_BYTES} of a \
                 message: start the actor with fewer --envs or more --workers, or lower rollout.unroll_length",
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
            state.layout = Some(Arc::new(layout.clone()));
            // What is granted must find room when it comes, whatever the lag bound permits.
            let limit = self.queue_bytes / (layout.column_bytes() as u64).max(1);
            state.pacing.limit_columns(usize::try_from(limit).unwrap_or(usize::MAX));
        }
        state.close(key.actor);
        let closed = CancellationToken::new();
        state.accounts.insert(
            key.actor,
            Account {
                incarnation: key.incarnation,
                columns,
                workers,
                connected: false,
                last_heard: Instant::now(),
                next_sequence: 0,
                received: 0,
                progress: v1::Progress::default(),
                stream: 0,
                bell: Arc::default(),
                replaced: closed.child_token(),
                closed: closed.clone(),
            },
        );
        state.pacing.join(key.actor, workers, columns);
        self.deliver_mail(&mut state);
        closed
    }

    /// `key` begins anew after a break: the sequence number of the first unroll not admitted from it, if it has
    /// an account. Its former stream acts for it no more, so that the number stays true.
    pub fn resume(&self, key: ActorKey) -> Option<u64> {
        let mut state = self.state.lock();
        let account = state.account(key).ok()?;
        account.replace_stream();
        account.last_heard = Instant::now();
        let sequence = account.next_sequence;
        self.departure.notify_waiters();
        Some(sequence)
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
            account.last_heard = Instant::now();
            self.departure.notify_waiters();
        }
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

    /// Takes an unroll into the queue and the books, waiting while the queue is full.
    ///
    /// # Errors
    /// If the run is over, `stream` does not act for an account, or the unroll breaks the contract.
    pub async fn admit(
        &self,
        stream: StreamKey,
        sequence: u64,
        progress: v1::Progress,
        unroll: Unroll,
    ) -> Result<(), AdmissionError> {
        let bytes = unroll.bytes() as u64;
        loop {
            let room = self.room.notified();
            {
                let mut state = self.state.lock();
                if state.finished {
                    return Err(AdmissionError::Finished);
                }
                state.stream(stream)?.last_heard = Instant::now();
                // A trainer that has no batch waits for this unroll or one behind it, and would wait for ever.
                if state.queue_bytes + bytes <= self.queue_bytes || state.pacing.ready() == 0 {
                    state.admit(stream, sequence, progress, unroll)?;
                    self.deliver_mail(&mut state);
                    if state.pacing.ready() > 0 {
                        self.batch_ready.notify_one();
                    }
                    return Ok(());
                }
            }
            let _ = tokio::time::timeout(ROOM_INTERVAL, room).await;
        }
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
                let parts = state.take(columns);
                let layout = state.layout.clone()?;
                drop(state);
                self.room.notify_waiters();
                return Some(assemble(&layout, parts));
            }
            self.batch_ready.wait_for(&mut state, SWEEP_INTERVAL);
            self.sweep(&mut state);
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
    fn sweep(&self, state: &mut MutexGuard<'_, State>) {
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
            } else if silence > self.grant_timeout || !account.connected && silence > DISCONNECTED_GRACE {
                stalled.push(actor);
            }
        }
        for actor in stalled {
            if state.pacing.suspend(actor) {
                tracing::warn!(actor, "actor is silent or gone: its grants go to others");
            }
        }
        for actor in lost {
            state.close(actor);
            self.departure.notify_waiters();
        }
        self.deliver_mail(state);
    }

    /// Rings the bell of everyone who has mail.
    fn deliver_mail(&self, state: &mut MutexGuard<'_, State>) {
        if state.started.is_none() && state.pacing.started() {
            state.started = Some(Instant::now());
        }
        for actor in state.pacing.with_unsent() {
            if let Some(account) = state.accounts.get(&actor) {
                account.bell.notify_one();
            }
        }
    }
}

impl Account {
    /// Makes a stream the newest; the former one is told.
    fn replace_stream(&mut self) {
        self.stream += 1;
        self.connected = false;
        self.replaced.cancel();
        self.replaced = self.closed.child_token();
        self.bell = Arc::default();
    }

    fn take_progress(&mut self, progress: v1::Progress) -> Result<(), AdmissionError> {
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

impl State {
    fn account(&mut self, key: ActorKey) -> Result<&mut Account, AdmissionError> {
        self.accounts
            .get_mut(&key.actor)
            .filter(|account| account.incarnation == key.incarnation)
            .ok_or(AdmissionError::Unknown(key.actor, key.incarnation))
    }

    /// The account that `stream` acts for.
    fn stream(&mut self, stream: StreamKey) -> Result<&mut Account, AdmissionError> {
        let account = self.account(stream.actor)?;
        if account.stream == stream.number { Ok(account) } else { Err(AdmissionError::Replaced) }
    }

    fn admit(
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
            let bytes = unroll.bytes() as u64;
            self.queue_bytes += bytes;
            self.bytes_admitted += bytes;
            let queue_key = (unroll.policy_version, key, unroll.grant, sequence);
            self.queue.insert(queue_key, Queued { unroll: Arc::new(unroll), taken: 0 });
        }
        Ok(())
    }

    /// Takes `columns` columns from the head of the queue.
    fn take(&mut self, columns: usize) -> Vec<(Arc<Unroll>, std::ops::Range<usize>)> {
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
                head.remove();
            }
        }
        parts
    }

    fn drop_queue(&mut self) {
        let steps = self.queue.values().map(|q| ((q.unroll.copies - q.taken) * q.unroll.length) as u64).sum();
        self.drop_steps(DropReason::RunEnded, steps);
        self.queue.clear();
        self.queue_bytes = 0;
    }

    fn drop_steps(&mut self, reason: DropReason, steps: u64) {
        add_dropped(&mut self.dropped, reason.as_str(), steps);
    }

    /// Closes an account: what it produced and neither sent nor dropped is lost.
    fn close(&mut self, actor: ActorId) {
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

    fn accounting(&self) -> Accounting {
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

/// Adds steps to the books under `reason`.
fn add_dropped(dropped: &mut BTreeMap<String, u64>, reason: &str, steps: u64) {
    if steps == 0 {
        return;
    }
    let known = dropped.contains_key(reason) || dropped.len() < MAX_REASONS_IN_BOOKS;
    *dropped.entry(if known { reason } else { OTHER_REASONS }.to_owned()).or_default() += steps;
}

fn add_time(total: &mut v1::WorkerTime, progress: &v1::Progress) {
    if let Some(time) = &progress.worker_time {
        // What actors claim may be anything.
        let add = |total: &mut u64, nanoseconds: u64| *total = total.saturating_add(nanoseconds);
        add(&mut total.inference, time.inference);
        add(&mut total.environment, time.environment);
        add(&mut total.waiting_grant, time.waiting_grant);
        add(&mut total.waiting_uplink, time.waiting_uplink);
    }
}

fn assemble(layout: &UnrollLayout, parts: Vec<(Arc<Unroll>, std::ops::Range<usize>)>) -> Work {
    let slices: Vec<_> = parts.iter().map(|(unroll, range)| (unroll.as_ref(), range.clone())).collect();
    let mut episodes = vec![];
    for (unroll, range) in &parts {
        // An unroll's episodes count once, with its first columns.
        if range.start == 0 {
            episodes
                .extend(unroll.episode_returns.iter().copied().zip(unroll.episode_lengths.iter().copied()));
        }
    }
    Work { batch: Batch::assemble(layout, &slices), episodes }
}
