//! Rollout workers: threads that step environments with the newest policy and fill unrolls.
//!
//! # Layout
//!
//! * [`sampler`]: one worker's environments: act, step, write into the unroll.
//! * `buffering`: whether a worker's copies are divided into two groups.
//! * `noise`: noise that is a function of the state.
//! * `worker`: one worker's loop: permission, weights, unroll, outbox.
//! * `crew`: what all workers share, with the network too, and how they stop.
//! * here: starting them.

pub(crate) mod buffering;
mod crew;
mod noise;
pub mod sampler;
mod worker;

use std::sync::Arc;

use impresario_common::policy::PolicySpec;
use impresario_common::random::{self, Purpose, Stream};
use impresario_common::unroll::UnrollLayout;

use crate::env::source::Source;
use crate::error::ActorError;
use crate::options::Division;

pub(crate) use crew::Crew;
pub use sampler::{ActionChoice, Filled, Sampler, SamplerError};

/// What the workers are to do.
pub(crate) struct Plan {
    pub(crate) environment: Source,
    pub(crate) layout: UnrollLayout,
    pub(crate) policy: PolicySpec,
    pub(crate) division: Division,
    pub(crate) streams: Streams,
    /// Failures of an environment in a row after which its worker fails.
    pub(crate) max_failures: u32,
}

/// Where the randomness of an actor's environment copies comes from: the run's seed, the actor's place and
/// incarnation, and the copy's number among the actor's copies, however these are divided among workers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Streams {
    pub(crate) seed: u64,
    pub(crate) actor: u32,
    pub(crate) incarnation: u64,
}

impl Streams {
    /// One stream for each of the `copies` copies of `worker`.
    fn of(self, purpose: Purpose, worker: usize, copies: usize) -> Vec<Stream> {
        let first = worker * copies;
        let stream = |copy: usize| {
            // Incarnations count from small numbers; only their lower half tells streams apart.
            random::stream(self.seed, purpose, [self.actor, self.incarnation as u32, copy as u32])
        };
        (first..first + copies).map(stream).collect()
    }
}

/// Starts the workers. They end when the crew is stopped or one of them fails.
///
/// # Errors
/// If the environment is unknown, its observations cannot be acted on, or a thread cannot be started.
pub(crate) fn start(plan: &Plan, crew: &Arc<Crew>) -> Result<(), ActorError> {
    let copies = plan.division.copies;
    for worker in 0..plan.division.workers {
        let environments = plan.streams.of(Purpose::Environment, worker, copies);
        let vector = plan.environment.make_vector(environments)?;
        let actions = plan.streams.of(Purpose::Actions, worker, copies);
        let sampler = Sampler::new(
            vector,
            plan.policy.distribution().clone(),
            &plan.layout,
            actions,
            ActionChoice::Sampled,
        )
        .map_err(|e| ActorError::Worker { worker, message: e.to_string() })?;
        let guard = crew.enlist(worker);
        let work = worker::Worker {
            crew: crew.clone(),
            worker,
            sampler,
            layout: plan.layout.clone(),
            max_failures: plan.max_failures,
        };
        std::thread::Builder::new()
            .name(format!("rollout-{worker}"))
            .spawn(move || guard.watch_over(move || work.run()))
            .map_err(|source| ActorError::Thread { worker, source })?;
    }
    Ok(())
}
