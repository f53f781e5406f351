//! What was produced, what was dropped, and where the workers' time went. Workers write, the uplink reports.

use std::collections::BTreeMap;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::time::Duration;

use impresario_common::wire::v1;

/// Environment steps of unrolls that were unfinished when the actor stopped.
pub const PARTIAL_UNROLL: &str = "partial_unroll";

/// Environment steps of finished unrolls that the learner no longer wanted or was never sent.
pub const UNSENT: &str = "unsent";

/// Environment steps of unrolls that an environment's failure cut short.
pub const ENVIRONMENT_FAILURE: &str = "environment_failure";

/// Counters of all workers together, since the incarnation began.
#[derive(Debug, Default)]
pub struct Counters {
    /// Environment steps taken.
    pub(crate) produced: AtomicU64,
    /// Environment steps dropped as [`PARTIAL_UNROLL`].
    partial_unroll: AtomicU64,
    /// Environment steps dropped as [`UNSENT`].
    unsent: AtomicU64,
    /// Environment steps dropped as [`ENVIRONMENT_FAILURE`].
    environment_failure: AtomicU64,
    /// Nanoseconds spent choosing actions.
    pub(crate) inference: AtomicU64,
    /// Nanoseconds spent stepping environments.
    pub(crate) environment: AtomicU64,
    /// Nanoseconds spent waiting for grants and weights.
    pub(crate) waiting_grant: AtomicU64,
    /// Nanoseconds spent waiting for room in the uplink.
    pub(crate) waiting_uplink: AtomicU64,
}

impl Counters {
    /// Notes one step of each of `copies` environment copies, and what it took.
    pub(crate) fn stepped(&self, copies: usize, inference: Duration, environment: Duration) {
        self.produced.fetch_add(copies as u64, Relaxed);
        self.inference.fetch_add(inference.as_nanos() as u64, Relaxed);
        self.environment.fetch_add(environment.as_nanos() as u64, Relaxed);
    }

    /// Notes `steps` environment steps, counted before as taken, that ended in no unroll.
    pub(crate) fn cut_short(&self, steps: u64) {
        self.partial_unroll.fetch_add(steps, Release);
    }

    /// Notes `steps` environment steps, counted before as taken, of an unroll whose environment failed.
    pub(crate) fn environment_failed(&self, steps: u64) {
        self.environment_failure.fetch_add(steps, Release);
    }

    /// Notes `steps` environment steps, counted before as taken, of unrolls given up.
    pub(crate) fn given_up(&self, steps: u64) {
        self.unsent.fetch_add(steps, Release);
    }

    /// Environment steps taken so far.
    pub fn produced_steps(&self) -> u64 {
        self.produced.load(Relaxed)
    }

    /// Environment steps that will never be sent, by reason; reasons without any are left out.
    pub fn dropped_steps(&self) -> BTreeMap<String, u64> {
        [
            (PARTIAL_UNROLL, &self.partial_unroll),
            (ENVIRONMENT_FAILURE, &self.environment_failure),
            (UNSENT, &self.unsent),
        ]
        .into_iter()
        // Whoever sees a step dropped sees it produced.
        .map(|(reason, steps)| (reason.to_owned(), steps.load(Acquire)))
        .filter(|&(_, steps)| steps > 0)
        .collect()
    }

    /// The message for the learner.
    pub(crate) fn progress(&self) -> v1::Progress {
        v1::Progress {
            // Drops before production: a step is counted as produced first, so that drops never exceed it.
            dropped_steps: self.dropped_steps(),
            produced_steps: self.produced_steps(),
            worker_time: Some(v1::WorkerTime {
                inference: self.inference.load(Relaxed),
                environment: self.environment.load(Relaxed),
                waiting_grant: self.waiting_grant.load(Relaxed),
                waiting_uplink: self.waiting_uplink.load(Relaxed),
            }),
        }
    }
}
