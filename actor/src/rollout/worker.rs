//! One rollout worker: permission, weights, unroll, outbox, and again; and the same unroll anew where an environment failed that
//! recovers.

use std::sync::Arc;

use impresario_common::unroll::{Unroll, UnrollLayout};
use impresario_common::wire::v1;

use super::crew::Crew;
use super::sampler::{Filled, Sampler, SamplerError};
use crate::env::Recovery;

/// What one thread works with.
pub(super) struct Worker {
    pub(super) crew: Arc<Crew>,
    /// Which of the crew, from 0.
    pub(super) worker: usize,
    pub(super) sampler: Sampler,
    pub(super) layout: UnrollLayout,
    /// Failures of the environment in a row after which it is given up.
    pub(super) max_failures: u32,
    /// The unroll that is filled again and again.
    pub(super) unroll: Unroll,
    /// Notes of its position that are kept; 0 for none.
    pub(super) positions_kept: usize,
}

impl Worker {
    /// Fills unrolls until the crew stops.
    pub(super) fn run(mut self) -> Result<(), String> {
        let crew = self.crew.clone();
        let Crew { counters, grants, latest, outbox, .. } = &*crew;
        let mut unroll = std::mem::replace(&mut self.unroll, Unroll::zeros(&self.layout, 0));
        let mut failures = 0;
        // The last one as it went over the wire: its arrays are the outbox's, too.
        let mut sent = None;
        let mut stands = true;
        while let Some(permission) = grants.take(self.worker, &counters.waiting_grant) {
            let is_void = || grants.life() > permission.life;
            let Some(acting) = latest.wait_for(permission, is_void, &counters.waiting_grant) else {
                // Void, or the actor is stopping; then there is no further grant.
                continue;
            };
            self.note_position(&unroll, sent.take(), permission.grant);
            unroll.grant = permission.grant;
            unroll.policy_version = acting.version;
            unroll.life = acting.life;
            let filled = loop {
                match self.sampler.fill(&acting.policy, &mut unroll, counters, crew.stop_flag()) {
                    Ok(filled) => break filled,
                    Err(error) => {
                        // Whatever was taken of this unroll is lost with it.
                        let steps = self.sampler.steps_into_unroll();
                        match &error {
                            SamplerError::Environment(_) => counters.environment_failed(steps),
                            _ => counters.cut_short(steps),
                        }
                        failures += 1;
                        self.recover(&error, failures)?;
                    }
                }
            };
            match filled {
                Filled::Complete => {
                    failures = 0;
                    let message = unroll.to_wire(&self.layout);
                    sent = (self.positions_kept > 0).then(|| message.clone());
                    outbox.push(message, unroll.steps() as u64, &counters.waiting_uplink);
                }
                Filled::Stopped => {
                    counters.cut_short(self.sampler.steps_into_unroll());
                    stands = false;
                    break;
                }
            }
        }
        if stands {
            self.note_position(&unroll, sent, u64::MAX);
        }
        Ok(())
    }

    /// Notes where it stands before the unroll of `grant`, if such notes are kept; `sent` is `unroll` where it has been sent.
    fn note_position(&mut self, unroll: &Unroll, sent: Option<v1::Unroll>, grant: u64) {
        if self.positions_kept > 0
            && let Some(mut note) =
                self.sampler.position(sent.unwrap_or_else(|| unroll.to_wire(&self.layout)))
        {
            note.position.grant = grant;
            self.crew.note_position(self.worker, note, self.positions_kept);
        }
    }

    /// Has the environment begin anew after its failure number `failures` in a row.
    fn recover(&mut self, error: &SamplerError, failures: u32) -> Result<(), String> {
        match self.sampler.recover(error) {
            Recovery::Impossible => Err(error.to_string()),
            Recovery::Possible if failures >= self.max_failures => {
                Err(format!("{failures} failures in a row, the last one: {error}"))
            }
            Recovery::Possible => {
                tracing::warn!(
                    worker = self.worker,
                    "failure {failures} of at most {} in a row, starting anew: {error}",
                    self.max_failures
                );
                Ok(())
            }
        }
    }
}
