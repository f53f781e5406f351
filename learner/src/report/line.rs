//! [`Line`]: one interval of a run in numbers, as `metrics.jsonl` holds it; docs/run-directory.md documents
//! the keys. Made from what the trainer noted and what the rest of the learner shows.

use std::collections::BTreeMap;
use std::time::Duration;

use impresario_common::wire::v1::WorkerTime;
use serde::{Deserialize, Serialize};

use super::histogram::LagSummary;
use super::recorder::{Totals, Window};
use super::verdict::{Evidence, Verdict, WorkerShares, verdict};
use crate::accounting::Accounting;

/// What the rest of the learner shows at one moment. Counters are cumulative and never fall: those of actors
/// that left stay in the sums.
#[derive(Debug, Clone, Default)]
pub struct SystemView {
    /// The run's books.
    pub accounting: Accounting,
    /// Unrolls that wait for the trainer.
    pub queue_unrolls: u64,
    /// Their bytes.
    pub queue_bytes: u64,
    /// Bytes that may wait.
    pub queue_capacity_bytes: u64,
    /// Actors connected now.
    pub actors_connected: u64,
    /// Actors that joined at any time.
    pub actors_joined: u64,
    /// Rollout workers of the connected actors.
    pub workers: u64,
    /// Cumulative nanoseconds, summed over all workers.
    pub worker_time: WorkerTime,
    /// Cumulative bytes of weights sent to actors.
    pub weights_bytes_sent: u64,
    /// Cumulative bytes of experience received from actors.
    pub unroll_bytes_received: u64,
}

/// All that a line is made from.
#[derive(Debug)]
pub struct Interval<'a> {
    /// Its length.
    pub elapsed: Duration,
    /// What the trainer noted in it.
    pub window: &'a Window,
    /// The whole run's sums at its end.
    pub totals: &'a Totals,
    /// The learner's view at its start.
    pub before: &'a SystemView,
    /// And at its end.
    pub after: &'a SystemView,
    /// `learner.wait_for_actors`.
    pub actors_needed: u64,
    /// `learner.max_policy_lag`.
    pub max_policy_lag: Option<u64>,
    /// Share of the machine's cores that was busy.
    pub cores_busy: Option<f64>,
    /// Its end, in seconds of Unix time.
    pub unix_time: f64,
}

/// One interval of a run. Rates and means are over the interval, counts over the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// When, in seconds of Unix time.
    pub unix_time: f64,
    /// Seconds of training.
    pub seconds: f64,
    /// Seconds of the interval. The run's last one is shorter than the others.
    pub interval_seconds: f64,
    /// Environment steps trained on.
    pub env_steps: u64,
    /// Updates applied: the policy's version.
    pub updates: u64,
    /// Updates skipped because a loss or gradient was not finite.
    pub skipped_updates: u64,
    /// Environment steps trained on per second.
    pub steps_per_second: f64,
    /// Updates per second.
    pub updates_per_second: f64,
    /// Episodes that ended.
    pub episodes: u64,
    /// Mean return of the last 100 episodes; null before there are as many.
    pub mean_return_100: Option<f64>,
    /// Mean return of the last 100 episodes, or of as many as there are.
    pub mean_return: Option<f64>,
    /// How many that is.
    pub mean_return_episodes: u64,
    /// Their mean length in environment steps.
    pub mean_length: Option<f64>,
    /// Means of the algorithm's and optimiser's diagnostics; null where none was finite.
    pub metrics: BTreeMap<String, Option<f64>>,
    /// Policy lag of the steps trained on in the interval.
    pub policy_lag: LagSummary,
    /// Who acts.
    pub actors: ActorsLine,
    /// What the learner's time and machine did.
    pub learner: LearnerLine,
    /// What waits for the trainer.
    pub queue: QueueLine,
    /// What the network carried.
    pub traffic: TrafficLine,
    /// The run's books.
    pub accounting: Accounting,
    /// What holds the run back.
    pub verdict: Verdict,
}

/// Who acts, and where their time goes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ActorsLine {
    /// Actors connected.
    pub connected: u64,
    /// Actors that joined at any time.
    pub joined: u64,
    /// Rollout workers of the connected actors.
    pub workers: u64,
    /// Shares of the workers' time; null where their counters did not move.
    pub time: Option<WorkerShares>,
}

/// What the learner's time and machine did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LearnerLine {
    /// Share of its time that the trainer had no batch; null where no update ended.
    pub idle: Option<f64>,
    /// Share of the machine's cores that was busy, whatever with; null where it cannot be read.
    pub cores_busy: Option<f64>,
}

/// What waits for the trainer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QueueLine {
    /// Unrolls.
    pub unrolls: u64,
    /// Bytes.
    pub bytes: u64,
    /// Bytes that may wait.
    pub capacity_bytes: u64,
}

/// What the network carried.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrafficLine {
    /// Bytes of weights to actors, per second.
    pub weights_bytes_per_second: f64,
    /// Bytes of experience from actors, per second.
    pub unroll_bytes_per_second: f64,
}

impl Line {
    /// The line of `interval`.
    pub fn compose(interval: &Interval) -> Self {
        let Interval { window, totals, before, after, .. } = *interval;
        let seconds = interval.elapsed.as_secs_f64().max(1e-9);
        let rate = |before: u64, after: u64| after.saturating_sub(before) as f64 / seconds;
        let learner = LearnerLine { idle: idle(window), cores_busy: interval.cores_busy };
        let time = shares(before.worker_time, after.worker_time);
        let verdict = verdict(&Evidence {
            actors_connected: after.actors_connected,
            actors_joined: after.actors_joined,
            actors_needed: interval.actors_needed,
            updates_total: totals.updates + totals.skipped_updates,
            learner_idle: learner.idle,
            workers: time,
            queue_unrolls: after.queue_unrolls,
            queue_fill: after.queue_bytes as f64 / after.queue_capacity_bytes.max(1) as f64,
            max_policy_lag: interval.max_policy_lag,
            cores_busy: interval.cores_busy,
        });
        Self {
            unix_time: interval.unix_time,
            seconds: totals.seconds,
            interval_seconds: interval.elapsed.as_secs_f64(),
            env_steps: totals.steps,
            updates: totals.updates,
            skipped_updates: totals.skipped_updates,
            steps_per_second: window.steps as f64 / seconds,
            updates_per_second: window.updates as f64 / seconds,
            episodes: totals.episodes,
            mean_return_100: totals.recent.mean_return_100(),
            mean_return: totals.recent.mean_return(),
            mean_return_episodes: totals.recent.len() as u64,
            mean_length: totals.recent.mean_length(),
            metrics: window.metrics.iter().map(|&(name, mean)| (name.into(), finite(mean))).collect(),
            policy_lag: window.lags,
            actors: ActorsLine {
                connected: after.actors_connected,
                joined: after.actors_joined,
                workers: after.workers,
                time,
            },
            learner,
            queue: QueueLine {
                unrolls: after.queue_unrolls,
                bytes: after.queue_bytes,
                capacity_bytes: after.queue_capacity_bytes,
            },
            traffic: TrafficLine {
                weights_bytes_per_second: rate(before.weights_bytes_sent, after.weights_bytes_sent),
                unroll_bytes_per_second: rate(before.unroll_bytes_received, after.unroll_bytes_received),
            },
            accounting: after.accounting.clone(),
            verdict,
        }
    }
}

/// `value`, unless it is infinite or not a number.
pub(super) fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

/// Waiting counts when it ends, so the share is of the time accounted for and not of the interval.
fn idle(window: &Window) -> Option<f64> {
    let known = window.waited + window.worked;
    (!known.is_zero()).then(|| window.waited.as_secs_f64() / known.as_secs_f64())
}

fn shares(before: WorkerTime, after: WorkerTime) -> Option<WorkerShares> {
    let spent = |field: fn(&WorkerTime) -> u64| field(&after).saturating_sub(field(&before)) as f64;
    let inference = spent(|time| time.inference);
    let environment = spent(|time| time.environment);
    let waiting_grant = spent(|time| time.waiting_grant);
    let waiting_uplink = spent(|time| time.waiting_uplink);
    let sum = inference + environment + waiting_grant + waiting_uplink;
    (sum > 0.0).then(|| WorkerShares {
        inference: inference / sum,
        environment: environment / sum,
        waiting_grant: waiting_grant / sum,
        waiting_uplink: waiting_uplink / sum,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::verdict::Bottleneck;
    use super::*;

    /// A line in the middle of a run.
    pub(in super::super) fn example() -> Line {
        let mut totals = Totals { steps: 120_320, updates: 188, episodes: 1204, ..Totals::default() };
        (totals.seconds, totals.skipped_updates) = (10.5, 1);
        (0..100).for_each(|_| totals.recent.push((187.25, 187)));
        let window = Window {
            steps: 24_640,
            updates: 38,
            lags: LagSummary { mean: Some(1.25), p50: Some(1), p99: Some(3), max: Some(4) },
            metrics: vec![
                ("policy_loss", -0.012_345_6),
                ("value_loss", 12.345_678),
                ("entropy", 0.612_345),
                ("grad_norm", 0.512_345),
                ("explained_variance", f64::NAN),
            ],
            waited: Duration::from_millis(100),
            worked: Duration::from_millis(1900),
        };
        let before = SystemView { weights_bytes_sent: 1000, ..SystemView::default() };
        let time = |inference, environment, waiting_grant, waiting_uplink| WorkerTime {
            inference,
            environment,
            waiting_grant,
            waiting_uplink,
        };
        let mut after = SystemView {
            queue_unrolls: 12,
            queue_bytes: 1_234_567,
            queue_capacity_bytes: 256 << 20,
            actors_connected: 2,
            actors_joined: 3,
            workers: 4,
            worker_time: time(2_000_000_000, 1_000_000_000, 3_000_000_000, 2_000_000_000),
            weights_bytes_sent: 5000,
            unroll_bytes_received: 80_000,
            ..SystemView::default()
        };
        after.accounting = Accounting { produced: 130_000, trained: 120_320, ..Accounting::default() };
        after.accounting.dropped.insert("update_skipped".into(), 640);
        after.accounting.in_flight = 9040;
        Line::compose(&Interval {
            elapsed: Duration::from_secs(2),
            window: &window,
            totals: &totals,
            before: &before,
            after: &after,
            actors_needed: 2,
            max_policy_lag: Some(4),
            cores_busy: Some(0.5),
            unix_time: 1_700_000_000.25,
        })
    }

    #[test]
    fn rates_are_per_second_of_the_interval_and_shares_add_up() {
        let line = example();
        assert_eq!((line.steps_per_second, line.updates_per_second), (12_320.0, 19.0));
        assert_eq!(line.traffic.weights_bytes_per_second, 2000.0);
        assert_eq!(line.traffic.unroll_bytes_per_second, 40_000.0);
        assert_eq!((line.mean_return, line.mean_return_100), (Some(187.25), Some(187.25)));
        assert_eq!(line.learner.idle, Some(0.05));
        let shares = line.actors.time.unwrap();
        assert_eq!((shares.inference, shares.environment), (0.25, 0.125));
        assert_eq!((shares.waiting_grant, shares.waiting_uplink), (0.375, 0.25));
        assert_eq!(line.verdict.bottleneck, Bottleneck::Learner);
        assert_eq!(line.metrics["explained_variance"], None);
    }

    #[test]
    fn an_interval_in_which_nothing_happened_has_no_shares_and_no_lag() {
        let (window, totals, view) = (Window::default(), Totals::default(), SystemView::default());
        let line = Line::compose(&Interval {
            elapsed: Duration::ZERO,
            window: &window,
            totals: &totals,
            before: &view,
            after: &view,
            actors_needed: 1,
            max_policy_lag: None,
            cores_busy: None,
            unix_time: 0.0,
        });
        assert_eq!((line.steps_per_second, line.learner.idle, line.actors.time), (0.0, None, None));
        assert_eq!(line.policy_lag, LagSummary::default());
        assert_eq!(line.verdict.bottleneck, Bottleneck::NoActors);
    }
}
