//! [`Crew`]: what the workers of an actor share with one another and with the network, and how they stop.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use prost::Message;
use tokio_util::sync::CancellationToken;

use super::position::{Note, Positions};
use crate::counters::Counters;
use crate::downlink::LatestPolicy;
use crate::grants::Grants;
use crate::uplink::{Abandon, Outbox};

/// The meeting points of workers and network.
#[derive(Debug)]
pub(crate) struct Crew {
    pub(crate) counters: Counters,
    pub(crate) grants: Grants,
    pub(crate) latest: LatestPolicy,
    pub(crate) outbox: Outbox,
    /// Looked at by workers in every step.
    stop: AtomicBool,
    /// The same for tasks, which can wait for it.
    stopping: CancellationToken,
    /// Workers whose threads have not ended.
    working: AtomicUsize,
    /// Set when there are none any more.
    done: CancellationToken,
    /// Why the first worker that failed did.
    failure: Mutex<Option<WorkerFailure>>,
    /// Where each worker stood before its last unrolls, in a lockstep run.
    positions: Mutex<Vec<VecDeque<Note>>>,
    /// The worker whose turn it was for the first grant.
    first_turn: AtomicUsize,
}

/// A worker that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WorkerFailure {
    pub(crate) worker: usize,
    pub(crate) message: String,
}

impl Crew {
    /// The meeting points for `workers` workers and an outbox of `outbox_bytes`.
    pub(crate) fn new(workers: usize, outbox_bytes: u64) -> Self {
        Self {
            counters: Counters::default(),
            grants: Grants::new(workers),
            latest: LatestPolicy::default(),
            outbox: Outbox::new(outbox_bytes),
            stop: AtomicBool::new(false),
            stopping: CancellationToken::new(),
            working: AtomicUsize::new(0),
            done: CancellationToken::new(),
            failure: Mutex::new(None),
            positions: Mutex::new(vec![VecDeque::new(); workers]),
            first_turn: AtomicUsize::new(0),
        }
    }

    /// The first grant shall go to worker `turn`; before there is any.
    pub(crate) fn begin_at_turn(&self, turn: usize) {
        self.first_turn.store(turn, Ordering::Relaxed);
        self.grants.begin_at_turn(turn);
    }

    /// Notes where `worker` stands; the newest `kept` such notes stay.
    pub(crate) fn note_position(&self, worker: usize, note: Note, kept: usize) {
        let mut positions = self.positions.lock().unwrap_or_else(PoisonError::into_inner);
        let noted = &mut positions[worker];
        noted.push_back(note);
        if noted.len() > kept {
            noted.pop_front();
        }
    }

    /// Where the workers stand, for the learner to keep; empty if they do not say, or if it takes more than `limit` bytes.
    pub(crate) fn rollout(&self, limit: usize) -> Vec<u8> {
        let positions = self.positions.lock().unwrap_or_else(PoisonError::into_inner);
        if positions.iter().any(VecDeque::is_empty) {
            return vec![];
        }
        let positions = Positions::new(self.first_turn.load(Ordering::Relaxed), &positions);
        let bytes = positions.encoded_len();
        if bytes > limit {
            tracing::warn!(
                bytes,
                limit,
                "where this actor stands takes {bytes} bytes, more than the {limit} that a message has room for: if the run is \
                 resumed, the one in its place starts new episodes, and the run goes another way; raise \
                 limits.message_bytes, or shorten episodes or rollout.unroll_length"
            );
            return vec![];
        }
        positions.encode_to_vec()
    }

    /// Tells the workers to stop at their next step; whoever waits for anything is woken.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.grants.close();
        self.latest.close();
        self.outbox.close();
        self.stopping.cancel();
    }

    /// Set once workers shall stop.
    pub(crate) fn stop_flag(&self) -> &AtomicBool {
        &self.stop
    }

    /// Waits until workers shall stop.
    pub(crate) async fn stopping(&self) {
        self.stopping.cancelled().await;
    }

    /// Waits until all workers have ended.
    pub(crate) async fn done(&self) {
        self.done.cancelled().await;
    }

    /// Whether all workers have ended.
    pub(crate) fn is_done(&self) -> bool {
        self.done.is_cancelled()
    }

    /// Counts unrolls that will not be sent as dropped.
    pub(crate) fn abandon(&self, which: Abandon) {
        self.counters.given_up(self.outbox.abandon(which));
    }

    /// The first failure of a worker.
    pub(crate) fn failure(&self) -> Option<WorkerFailure> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts a worker in; its thread shall run under the guard.
    pub(crate) fn enlist(self: &Arc<Self>, worker: usize) -> Enlisted {
        self.working.fetch_add(1, Ordering::AcqRel);
        Enlisted { crew: self.clone(), worker }
    }
}

/// A worker among the crew, until this is dropped.
#[derive(Debug)]
pub(crate) struct Enlisted {
    crew: Arc<Crew>,
    worker: usize,
}

impl Enlisted {
    /// Runs a worker to its end. If it fails or panics, the whole crew stops.
    pub(crate) fn watch_over(self, work: impl FnOnce() -> Result<(), String>) {
        let result = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(format!("it panicked: {}", text.unwrap_or("no message")))
        });
        if let Err(message) = result {
            let failure = WorkerFailure { worker: self.worker, message };
            let mut first = self.crew.failure.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert(failure);
            drop(first);
            self.crew.stop();
        }
    }
}

impl Drop for Enlisted {
    fn drop(&mut self) {
        if self.crew.working.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.crew.done.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use impresario_common::wire::v1;

    use super::*;
    use crate::rollout::position::Position;

    #[test]
    fn where_workers_stand_is_told_if_all_of_them_say_and_there_is_room() {
        let crew = Crew::new(2, 1);
        let observations = v1::Tensor { data: vec![0; 5000].into(), ..v1::Tensor::default() };
        let unroll = v1::Unroll { observations: Some(observations), ..v1::Unroll::default() };
        let position = Position { grant: 3, unroll: Some(unroll), ..Position::default() };
        let note = Note { position, copies: vec![] };
        crew.note_position(0, note.clone(), 2);
        assert!(crew.rollout(usize::MAX).is_empty(), "the other one has not said");
        crew.note_position(1, note, 2);
        let told = crew.rollout(usize::MAX);
        assert!(told.len() > 10_000);
        assert_eq!(crew.rollout(told.len()), told);
        assert!(crew.rollout(told.len() - 1).is_empty());
    }

    #[test]
    fn a_panic_or_an_error_stops_the_crew_and_the_first_is_kept() {
        let crew = Arc::new(Crew::new(2, 1));
        let (first, second) = (crew.enlist(0), crew.enlist(1));
        std::thread::spawn(move || second.watch_over(|| panic!("no more {}", "air"))).join().unwrap();
        assert!(crew.stop_flag().load(Ordering::Relaxed) && !crew.is_done());
        first.watch_over(|| Err("late".into()));
        assert!(crew.is_done());
        let failure = WorkerFailure { worker: 1, message: "it panicked: no more air".into() };
        assert_eq!(crew.failure(), Some(failure));
    }
}
