//! Permissions from the learner to start unrolls, on their way from the uplink to the workers.
//!
//! Grants go to the workers in turn, in the order in which they arrive, and not to whoever asks first: which
//! environment copies act on which grant does not depend on the scheduling of threads, so that lockstep runs
//! are repeatable, and slow copies contribute as much experience as fast ones.
//!
//! A free-running learner grants everything at once (`0..u64::MAX`), so grants are kept as ranges.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::AtomicU64;

use impresario_common::wire::v1;

use crate::gate::Gate;

/// Ranges of grants that may wait for the workers; a learner that sends more has lost count.
const MAX_WAITING: usize = 1 << 16;

/// Permission to start one unroll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Permission {
    /// Index of the grant.
    pub(crate) grant: u64,
    /// The unroll must be acted with this version of the policy or a newer one.
    pub(crate) min_version: u64,
    /// The life of the run that gave it.
    pub(crate) life: u64,
}

/// Grants received and not yet used.
#[derive(Debug)]
pub(crate) struct Grants {
    gate: Gate<State>,
}

#[derive(Debug)]
struct State {
    waiting: VecDeque<Waiting>,
    /// Every index ever received, as disjoint ranges from start to end: the learner repeats on a new stream
    /// what it sent on the one that broke.
    received: BTreeMap<u64, u64>,
    workers: usize,
    /// The worker that the next index goes to.
    turn: usize,
    /// Index after the last one received.
    next: u64,
    /// The life of the run that gives them.
    life: u64,
    closed: bool,
}

/// A range of grants; the workers share it in turn.
#[derive(Debug)]
struct Waiting {
    min_version: u64,
    /// End of the range.
    upto: u64,
    /// The next index of each worker; beyond the range when it has had its share.
    next: Vec<u64>,
}

impl State {
    /// The parts of `from..upto` that have not been received before; they count as received from now on.
    fn unseen(&mut self, from: u64, upto: u64) -> Vec<(u64, u64)> {
        let (mut parts, mut start) = (vec![], from);
        let (mut merged_from, mut merged_upto) = (from, upto);
        // Ranges that overlap or touch; disjoint, hence few beyond the first begin before `from`.
        let first = self.received.range(..=from).next_back().map_or(from, |(&f, _)| f);
        let touching: Vec<(u64, u64)> = self
            .received
            .range(first..=upto)
            .map(|(&f, &u)| (f, u))
            .filter(|&(f, u)| u >= from && f <= upto)
            .collect();
        for (seen_from, seen_upto) in touching {
            if start < seen_from {
                parts.push((start, seen_from));
            }
            start = start.max(seen_upto);
            merged_from = merged_from.min(seen_from);
            merged_upto = merged_upto.max(seen_upto);
            self.received.remove(&seen_from);
        }
        if start < upto {
            parts.push((start, upto));
        }
        self.received.insert(merged_from, merged_upto);
        parts
    }

    /// Queues a range that nobody has had yet.
    fn queue(&mut self, from: u64, upto: u64, min_version: u64) {
        let workers = self.workers as u64;
        let next = |worker: u64| from.saturating_add((worker + workers - self.turn as u64) % workers);
        self.waiting.push_back(Waiting { min_version, upto, next: (0..workers).map(next).collect() });
        self.turn = ((self.turn as u64 + (upto - from) % workers) % workers) as usize;
    }
}

impl Grants {
    pub(crate) fn new(workers: usize) -> Self {
        let (waiting, received) = (VecDeque::new(), BTreeMap::new());
        let state = State { waiting, received, workers, turn: 0, next: 0, life: 0, closed: false };
        Self { gate: Gate::new(state) }
    }

    /// The first grant shall go to worker `turn`; before there is any.
    pub(crate) fn begin_at_turn(&self, turn: usize) {
        self.gate.update(|state| state.turn = turn % state.workers);
    }

    /// Index after the last grant received, in whatever life of the run.
    pub(crate) fn next(&self) -> u64 {
        self.gate.read(|state| state.next)
    }

    /// The life of the run that gives grants.
    pub(crate) fn life(&self) -> u64 {
        self.gate.read(|state| state.life)
    }

    /// The learner was restarted, and the run is in another life: what the one before granted is void.
    pub(crate) fn begin_life(&self, life: u64) {
        self.gate.update(|state| {
            state.life = life;
            state.waiting.clear();
            state.received.clear();
        });
    }

    /// Takes in what the learner sent. An index that came before is not used twice.
    ///
    /// # Errors
    /// If the grant is not one that a learner can mean.
    pub(crate) fn add(&self, grant: &v1::Grant) -> Result<(), String> {
        let v1::Grant { from, upto, min_version } = *grant;
        if from > upto {
            return Err(format!("it grants the unrolls from {from} up to {upto}"));
        }
        if from == upto {
            return Ok(());
        }
        self.gate.update(|state| {
            state.next = state.next.max(upto);
            for (from, upto) in state.unseen(from, upto) {
                state.queue(from, upto, min_version);
            }
            match state.waiting.len() > MAX_WAITING {
                true => Err(format!("it sends more than {MAX_WAITING} grants at once to one actor")),
                false => Ok(()),
            }
        })
    }

    /// Waits for the next grant of `worker`; `None` when there will be none any more.
    pub(crate) fn take(&self, worker: usize, spent: &AtomicU64) -> Option<Permission> {
        self.gate.wait(spent, |state| {
            if state.closed {
                return Some(None);
            }
            let (workers, life) = (state.workers as u64, state.life);
            let own = state.waiting.iter_mut().find(|range| range.next[worker] < range.upto)?;
            let permission = Permission { grant: own.next[worker], min_version: own.min_version, life };
            own.next[worker] = own.next[worker].saturating_add(workers);
            while state.waiting.front().is_some_and(|range| range.next.iter().all(|&n| n >= range.upto)) {
                state.waiting.pop_front();
            }
            Some(Some(permission))
        })
    }

    /// Hands out no grant any more.
    pub(crate) fn close(&self) {
        self.gate.update(|state| state.closed = true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn grant(from: u64, upto: u64, min_version: u64) -> v1::Grant {
        v1::Grant { from, upto, min_version }
    }

    fn taken(grants: &Grants, worker: usize) -> Permission {
        grants.take(worker, &AtomicU64::new(0)).unwrap()
    }

    /// All that `worker` can have without waiting.
    fn all(grants: &Grants, worker: usize) -> Vec<u64> {
        let has_more = || grants.gate.read(|s| s.waiting.iter().any(|r| r.next[worker] < r.upto));
        std::iter::from_fn(|| has_more().then(|| taken(grants, worker).grant)).collect()
    }

    #[test]
    fn grants_go_to_the_workers_in_turn_whoever_asks_first() {
        let grants = Grants::new(2);
        grants.add(&grant(10, 13, 3)).unwrap();
        grants.add(&grant(20, 22, 4)).unwrap();
        assert_eq!(all(&grants, 1), [11, 20]);
        assert_eq!(all(&grants, 0), [10, 12, 21]);
        assert!(grants.gate.read(|s| s.waiting.is_empty()));
    }

    #[test]
    fn a_grant_that_is_sent_again_is_used_once() {
        let grants = Grants::new(1);
        grants.add(&grant(0, 2, 1)).unwrap();
        assert_eq!(taken(&grants, 0), Permission { grant: 0, min_version: 1, life: 0 });
        grants.add(&grant(0, 3, 2)).unwrap();
        assert_eq!(taken(&grants, 0), Permission { grant: 1, min_version: 1, life: 0 });
        assert_eq!(taken(&grants, 0), Permission { grant: 2, min_version: 2, life: 0 });
        assert!(all(&grants, 0).is_empty());
    }

    #[test]
    fn what_a_former_life_granted_is_void_and_the_next_one_may_grant_anew() {
        let grants = Grants::new(1);
        grants.add(&grant(0, 4, 1)).unwrap();
        grants.begin_life(2);
        assert!(all(&grants, 0).is_empty());
        assert_eq!((grants.next(), grants.life()), (4, 2));
        grants.add(&grant(4, 5, 1)).unwrap();
        assert_eq!(taken(&grants, 0), Permission { grant: 4, min_version: 1, life: 2 });
        // A learner without a bound grants the same everything again.
        grants.begin_life(3);
        grants.add(&grant(0, u64::MAX, 0)).unwrap();
        assert_eq!(taken(&grants, 0).grant, 0);
    }

    #[test]
    fn everything_can_be_granted_at_once_and_again() {
        let grants = Grants::new(3);
        for _ in 0..2 {
            grants.add(&grant(0, u64::MAX, 0)).unwrap();
        }
        assert_eq!([2, 0, 1, 2].map(|worker| taken(&grants, worker).grant), [2, 0, 1, 5]);
        assert_eq!(grants.gate.read(|s| s.waiting.len()), 1);
    }

    #[test]
    fn an_impossible_grant_is_refused() {
        assert!(Grants::new(1).add(&grant(3, 2, 0)).is_err());
    }

    #[test]
    fn closing_wakes_a_waiting_worker() {
        let grants = Grants::new(1);
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| grants.take(0, &AtomicU64::new(0)));
            grants.close();
            assert_eq!(worker.join().unwrap(), None);
        });
    }

    proptest! {
        #[test]
        fn each_index_is_used_exactly_once_however_ranges_overlap(
            ranges in proptest::collection::vec((0u64..60, 0u64..20), 1..12),
            workers in 1usize..4,
        ) {
            let grants = Grants::new(workers);
            let mut expected = std::collections::BTreeSet::new();
            for (from, len) in ranges {
                grants.add(&grant(from, from + len, 0)).unwrap();
                expected.extend(from..from + len);
            }
            let shares: Vec<Vec<u64>> = (0..workers).map(|worker| all(&grants, worker)).collect();
            let sizes = shares.iter().map(Vec::len);
            prop_assert!(sizes.clone().max().unwrap() - sizes.min().unwrap() <= 1);
            let mut used: Vec<u64> = shares.concat();
            used.sort_unstable();
            prop_assert_eq!(used, expected.into_iter().collect::<Vec<_>>());
        }
    }
}
