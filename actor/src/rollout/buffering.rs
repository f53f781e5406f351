//! Double buffering: each worker's copies in two groups, so that the policy acts for one while the other steps.
//!
//! A group is a worker of its own: a thread, with copies, grants and unrolls that are its alone. Where environments step
//! elsewhere, such as in another process, a thread that waits for its group leaves its core to the one that chooses the other's
//! actions. Each copy draws from the same streams as without, and to the learner the actor has twice as many workers.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use impresario_common::config::{DoubleBuffering, RunConfig};
use impresario_common::policy::{Policy, PolicySpec};
use impresario_common::random::{Purpose, stream};
use impresario_common::unroll::{Unroll, UnrollLayout};

use super::sampler::{ActionChoice, Sampler};
use crate::counters::Counters;
use crate::env::VectorEnvironment;
use crate::env::source::Source;
use crate::error::ActorError;
use crate::options::Division;

/// Rows of steps that are timed. As many before them are not: processes start, memory is touched for the first time.
const TIMED_ROWS: usize = 16;

/// What a row of steps of all copies of a worker takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    inference: Duration,
    environment: Duration,
}

/// Divides the copies of each worker of `division` into two groups, if the run asks for it or gains by it; says why or why not.
///
/// Environments may be made and stepped to find out: call it on a thread that may block.
///
/// # Errors
/// If the environment cannot be made.
pub(crate) fn divide(
    config: &RunConfig,
    environment: &Source,
    policy: &PolicySpec,
    division: Division,
) -> Result<Division, ActorError> {
    let id = &config.environment.id;
    let players = environment.players();
    let wanted = config.rollout.double_buffering;
    let Some(halves) = division.halves(players) else {
        if wanted == DoubleBuffering::On {
            tracing::warn!(
                "no double buffering: {} copies a worker cannot be divided into two groups; choose an even number with --envs",
                division.copies
            );
        }
        return Ok(division);
    };
    let (divided, why) = match wanted {
        DoubleBuffering::Off => return Ok(division),
        DoubleBuffering::On => (true, "rollout.double_buffering is \"on\"".into()),
        DoubleBuffering::Auto => {
            let streams =
                (0..division.copies as u32).map(|i| stream(config.run.seed, Purpose::Evaluation, [i; 3]));
            let vector = environment.make_vector(streams.collect())?;
            match vector.steps_elsewhere() {
                false => (false, format!("{id} steps on the worker's own thread")),
                // What is timed differs from run to run, and lockstep runs must not.
                true if config.learner.max_policy_lag.0 == Some(0) => {
                    (true, format!("{id} steps in another process, and the run is in lockstep"))
                }
                // What fails here may do so in a worker again, which knows how to begin anew and what to count.
                true => match time(config, vector, policy) {
                    Ok(row) => (row.environment >= row.inference, in_words(row)),
                    Err(failure) => {
                        tracing::warn!("no double buffering: timing {id} failed: {failure}");
                        return Ok(division);
                    }
                },
            }
        }
    };
    tracing::info!("double buffering {}: {why}", if divided { "on" } else { "off" });
    Ok(if divided { halves } else { division })
}

fn in_words(row: Row) -> String {
    format!("environments take {:.0?} a step of all copies, inference {:.0?}", row.environment, row.inference)
}

/// Times steps with a policy of the run's architecture.
fn time(config: &RunConfig, vector: Box<dyn VectorEnvironment>, spec: &PolicySpec) -> Result<Row, String> {
    let copies = vector.copies();
    let layout = UnrollLayout::of_run(config, TIMED_ROWS, vector.spec(), spec);
    let weights = spec.initialise(config.run.seed).map_err(|e| e.to_string())?;
    let policy = Policy::new(spec, &weights).and_then(Policy::packed).map_err(|e| e.to_string())?;
    let streams =
        (0..copies as u32).map(|i| stream(config.run.seed, Purpose::Evaluation, [i, 1, 0])).collect();
    let mut sampler =
        Sampler::new(vector, spec.distribution().clone(), &layout, streams, ActionChoice::Sampled)
            .map_err(|e| e.to_string())?;
    let mut unroll = Unroll::zeros(&layout, copies);
    let mut fill = || {
        let counters = Counters::default();
        let filled = sampler.fill(&policy, &mut unroll, &counters, &AtomicBool::new(false));
        filled.map(|_| counters).map_err(|e| e.to_string())
    };
    fill()?;
    let counters = fill()?;
    let row = |nanoseconds: u64| Duration::from_nanos(nanoseconds / TIMED_ROWS as u64);
    Ok(Row {
        inference: row(counters.inference.load(Relaxed)),
        environment: row(counters.environment.load(Relaxed)),
    })
}
