//! One rollout worker: permission, weights, unroll, outbox, and again.

use std::sync::Arc;

use impresario_common::unroll::{Unroll, UnrollLayout};

use super::crew::Crew;
use super::sampler::{Filled, Sampler};

/// What one thread works with.
pub(super) struct Worker {
    pub(super) crew: Arc<Crew>,
    /// Which of the crew, from 0.
    pub(super) worker: usize,
    pub(super) sampler: Sampler,
    pub(super) layout: UnrollLayout,
}

impl Worker {
    /// Fills unrolls until the crew stops.
    pub(super) fn run(mut self) -> Result<(), String> {
        let Crew { counters, grants, latest, outbox, .. } = &*self.crew;
        let mut unroll = Unroll::zeros(&self.layout, self.sampler.copies());
        while let Some(permission) = grants.take(self.worker, &counters.waiting_grant) {
            let Some(acting) = latest.wait_for(permission.min_version, &counters.waiting_grant) else {
                break;
            };
            unroll.grant = permission.grant;
            unroll.policy_version = acting.version;
            let filled = self.sampler.fill(&acting.policy, &mut unroll, counters, self.crew.stop_flag());
            match filled.map_err(|e| {
                // Whatever was taken of this unroll is lost with it.
                counters.cut_short(self.sampler.steps_into_unroll());
                e.to_string()
            })? {
                Filled::Complete => {
                    let message = unroll.to_wire(&self.layout);
                    outbox.push(message, unroll.steps() as u64, &counters.waiting_uplink);
                }
                Filled::Stopped => {
                    counters.cut_short(self.sampler.steps_into_unroll());
                    break;
                }
            }
        }
        Ok(())
    }
}
