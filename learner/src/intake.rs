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

use impresario_common::config::RunConfig;
use impresario_common::unroll::{Unroll, UnrollLayout};
use impresario_common::wire::v1;

use crate::accounting::{Accounting, DropReason};
use crate::batch::Batch;
use crate::pacing::{ActorId, Delivery, Grant, Pacing};

/// Silence of an actor without a stream after which its grants go to others. Its stream has ended, so it has
/// probably died; if it is back in time, it goes on as if nothing had happened.
const DISCONNECTED_GRACE: Duration = Duration::from_secs(1);

/// How often the trainer looks for silent actors while it waits.
const SWEEP_INTERVAL: Duration = Duration::from_millis(100);

/// Which life of which actor a message belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ActorKey {
    /// Place in the roster.
    pub actor: ActorId,
    /// Which life of the process in that place.
    pub incarnation: u64,
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
    /// Rung when there is mail.
    bell: Arc<Notify>,
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

/// Key of the queue: oldest policy version first; ties in the order of the roster, so that lockstep batches do
/// not depend on the order of arrival.
type QueueKey = (u64, ActorId, u64);

/// An unroll in the queue, of which the first `taken` columns are trained.
#[derive(Debug)]
struct Queued {
    unroll: Arc<Unroll>,
    taken: usize,
}

#[derive(Debug)]
struct State {
    pacing: Pacing,
    layout: Option<UnrollLayout>,
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
    /// An empty intake for a run that starts from policy version `version` after `trained` environment steps.
    pub fn new(config: &RunConfig, version: u64) -> Self {
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
                trained: 0,
                dropped: BTreeMap::new(),
                closed_produced: 0,
                closed_worker_time: v1::WorkerTime::default(),
                bytes_admitted: 0,
                started: None,
                finished: false,
            }),
            batch_ready: Condvar::new(),
            room: Notify::new(),
            departure: Notify::new(),
            queue_bytes: learner.queue_bytes,
            batch_size: learner.batch_size,
            grant_timeout: Duration::from_secs_f64(learner.grant_timeout_seconds),
            reconnect: Duration::from_secs_f64(learner.reconnect_seconds),
        }
    }

    /// Whether unrolls of `columns` columns can ever be granted, queued and trained.
    ///
    /// # Errors
    /// With a message that says what to change.
    pub fn check_shape(&self, layout: &UnrollLayout, columns: usize) -> Result<(), String> {
        self.state.lock().pacing.check_columns(columns)?;
        let needed = ((self.batch_size + columns) * layout.column_bytes()) as u64;
        if needed > self.queue_bytes {
            return Err(format!(
                "a batch of {} columns and an unroll of {columns} need {needed} bytes of queue, but \
                 learner.queue_bytes is {}: raise it, or lower learner.batch_size or the actor's --envs",
                self.batch_size, self.queue_bytes,
            ));
        }
        Ok(())
    }

    /// Opens an account, closing the one of the actor's former incarnation. Returns the bell that rings when
    /// there is mail.
    pub fn join(&self, key: ActorKey, workers: usize, columns: usize, layout: &UnrollLayout) -> Arc<Notify> {
        let mut state = self.state.lock();
        state.layout.get_or_insert_with(|| layout.clone());
        state.close(key.actor);
        let bell = Arc::new(Notify::new());
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
                bell: bell.clone(),
            },
        );
        state.pacing.join(key.actor, workers, columns);
        self.deliver_mail(&mut state);
        bell
    }

    /// Sequence number of the first unroll not admitted from `key`, if it has an account.
    pub fn resume_sequence(&self, key: ActorKey) -> Option<u64> {
        self.state.lock().account(key).ok().map(|account| account.next_sequence)
    }

    /// A stream of `key` is open.
    ///
    /// # Errors
    /// If `key` has no account.
    pub fn connected(&self, key: ActorKey) -> Result<(), AdmissionError> {
        let mut state = self.state.lock();
        let account = state.account(key)?;
        account.connected = true;
        account.last_heard = Instant::now();
        state.pacing.activate(key.actor);
        state.pacing.resend(key.actor);
        self.deliver_mail(&mut state);
        Ok(())
    }

    /// The stream of `key` has ended. Its grants stay its own for a moment.
    pub fn disconnected(&self, key: ActorKey) {
        if let Ok(account) = self.state.lock().account(key) {
            account.connected = false;
            account.last_heard = Instant::now();
        }
    }

    /// What `key` is to be told now.
    ///
    /// # Errors
    /// If `key` has no account.
    pub fn mail(&self, key: ActorKey) -> Result<Mail, AdmissionError> {
        let mut state = self.state.lock();
        let acknowledged = state.account(key)?.next_sequence;
        let grants = state.pacing.take_unsent(key.actor);
        Ok(Mail { acknowledged, grants, finished: state.finished })
    }

    /// Takes an unroll into the queue and the books, waiting while the queue is full.
    ///
    /// # Errors
    /// If the run is over, `key` has no account, or the unroll breaks the contract.
    pub async fn admit(
        &self,
        key: ActorKey,
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
                if state.queue_bytes == 0 || state.queue_bytes + bytes <= self.queue_bytes {
                    state.admit(key, sequence, progress, unroll)?;
                    self.deliver_mail(&mut state);
                    if state.pacing.ready() > 0 {
                        self.batch_ready.notify_one();
                    }
                    return Ok(());
                }
                state.account(key)?.last_heard = Instant::now();
            }
            room.await;
        }
    }

    /// Columns of each unroll that `key` sends, and the layout to read them by.
    ///
    /// # Errors
    /// If `key` has no account.
    pub fn shape(&self, key: ActorKey) -> Result<(UnrollLayout, usize), AdmissionError> {
        let mut state = self.state.lock();
        let columns = state.account(key)?.columns;
        let layout = state.layout.clone();
        Ok((layout.ok_or(AdmissionError::Unknown(key.actor, key.incarnation))?, columns))
    }

    /// An actor's counters have come.
    ///
    /// # Errors
    /// If `key` has no account or the counters run backwards.
    pub fn progress(&self, key: ActorKey, progress: v1::Progress) -> Result<(), AdmissionError> {
        let mut state = self.state.lock();
        state.account(key)?.take_progress(progress)?;
        state.pacing.activate(key.actor);
        self.deliver_mail(&mut state);
        Ok(())
    }

    /// An actor leaves for good; whatever its last counters leave open is lost.
    ///
    /// # Errors
    /// As [`Self::progress`].
    pub fn goodbye(&self, key: ActorKey, progress: v1::Progress) -> Result<(), AdmissionError> {
        let mut state = self.state.lock();
        state.account(key)?.take_progress(progress)?;
        state.close(key.actor);
        self.deliver_mail(&mut state);
        self.departure.notify_waiters();
        self.batch_ready.notify_one();
        Ok(())
    }

    /// An actor breaks the contract: it is out, and what it produced and did not send is lost.
    pub fn expel(&self, key: ActorKey) {
        let mut state = self.state.lock();
        if state.account(key).is_ok() {
            state.close(key.actor);
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
            // Disconnections without goodbye ring no bell.
            let _ = tokio::time::timeout(SWEEP_INTERVAL, departure).await;
        }
    }

    /// Closes every account: what is still open is lost. The books are final afterwards.
    pub fn close_books(&self) -> Accounting {
        let mut state = self.state.lock();
        let actors: Vec<ActorId> = state.accounts.keys().copied().collect();
        for actor in actors {
            state.close(actor);
        }
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
    fn take_progress(&mut self, progress: v1::Progress) -> Result<(), AdmissionError> {
        let dropped: u64 = progress.dropped_steps.values().sum();
        if progress.produced_steps < self.progress.produced_steps || dropped < self.dropped() {
            return Err(AdmissionError::Malformed("progress: counters run backwards".into()));
        }
        if progress.produced_steps < self.received.saturating_add(dropped) {
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

    fn admit(
        &mut self,
        key: ActorKey,
        sequence: u64,
        progress: v1::Progress,
        unroll: Unroll,
    ) -> Result<(), AdmissionError> {
        let account = self.account(key)?;
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
            let queue_key = (unroll.policy_version, key.actor, sequence_key(key, sequence));
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
        if steps > 0 {
            *self.dropped.entry(reason.as_str().into()).or_default() += steps;
        }
    }

    /// Closes an account: what it produced and neither sent nor dropped is lost.
    fn close(&mut self, actor: ActorId) {
        self.pacing.remove(actor);
        let Some(account) = self.accounts.remove(&actor) else { return };
        self.drop_steps(DropReason::ActorLost, account.outstanding());
        for (reason, steps) in &account.progress.dropped_steps {
            if *steps > 0 {
                *self.dropped.entry(reason.clone()).or_default() += steps;
            }
        }
        self.closed_produced += account.progress.produced_steps;
        add_time(&mut self.closed_worker_time, &account.progress);
        account.bell.notify_one();
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
                *books.dropped.entry(reason.clone()).or_default() += steps;
            }
        }
        books
    }
}

/// Orders unrolls of one actor and version: an older incarnation's first.
fn sequence_key(key: ActorKey, sequence: u64) -> u64 {
    (key.incarnation << 40) | sequence
}

fn add_time(total: &mut v1::WorkerTime, progress: &v1::Progress) {
    if let Some(time) = &progress.worker_time {
        total.inference += time.inference;
        total.environment += time.environment;
        total.waiting_grant += time.waiting_grant;
        total.waiting_uplink += time.waiting_uplink;
    }
}

fn assemble(layout: &UnrollLayout, mut parts: Vec<(Arc<Unroll>, std::ops::Range<usize>)>) -> Work {
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
        Some((unroll, _)) => Batch::whole(Arc::unwrap_or_clone(unroll)),
        None => {
            let slices: Vec<_> =
                parts.iter().map(|(unroll, range)| (unroll.as_ref(), range.clone())).collect();
            Batch::assemble(layout, &slices)
        }
    };
    Work { batch, episodes }
}
