//! [`Point`]: the state of learning at one count of environment steps, as `curve.jsonl` holds it;
//! docs/run-directory.md documents the keys.
//!
//! Points are made on the trainer's thread right after the update that reaches their step, so that each is exact
//! at the step that it names, however fast a run is. They wait in memory for the reporter, who writes them.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::histogram::{LagHistogram, LagSummary};
use super::line::finite;
use super::metric_means::MetricMeans;
use super::recorder::{Totals, UpdateEvent};

/// Points that may wait for the reporter. While there are as many, none is made: the next one covers more steps.
const MOST_WAITING: usize = 1024;

/// The state of learning right after an update. Means of metrics and lags are since the point before, counts over
/// the run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// When, in seconds of Unix time.
    pub unix_time: f64,
    /// Seconds of training.
    pub seconds: f64,
    /// Environment steps trained on.
    pub env_steps: u64,
    /// Updates applied: the policy's version.
    pub updates: u64,
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
    /// Policy lag of the steps trained on.
    pub policy_lag: LagSummary,
}

/// Makes points and holds them for the reporter.
#[derive(Debug, Default)]
pub(super) struct Curve {
    /// Environment steps between two points; 0 for no curve.
    every: u64,
    /// Environment steps at which the next point is due.
    due: u64,
    /// Environment steps at the last point.
    last: u64,
    /// Since the last point.
    metrics: MetricMeans,
    lags: LagHistogram,
    waiting: VecDeque<Point>,
}

impl Curve {
    /// A curve with a point at the first update that reaches or passes a multiple of `every` environment steps, from
    /// `steps` on.
    pub(super) fn new(every: u64, steps: u64) -> Self {
        let mut curve = Self { every, last: steps, ..Self::default() };
        curve.plan(steps);
        curve
    }

    fn plan(&mut self, steps: u64) {
        self.due = steps.checked_div(self.every).map_or(u64::MAX, |n| (n + 1).saturating_mul(self.every));
    }

    /// Notes an update that was applied.
    pub(super) fn note(&mut self, event: &UpdateEvent) {
        if self.every > 0 {
            self.metrics.add(event.metrics);
            self.lags.record(event.lags, event.steps_per_column);
        }
    }

    /// Whether a point is due at `steps` environment steps, and there is room for it.
    pub(super) fn is_due(&self, steps: u64) -> bool {
        self.every > 0 && steps >= self.due && self.waiting.len() < MOST_WAITING
    }

    /// Whether steps have been trained on since the last point.
    pub(super) fn is_behind(&self, steps: u64) -> bool {
        self.every > 0 && steps > self.last
    }

    /// Makes the point of `totals`, after `seconds` of training.
    pub(super) fn add(&mut self, totals: &Totals, seconds: f64, unix_time: f64) {
        let metrics = self.metrics.take().map(|(name, mean)| (name.into(), finite(mean))).collect();
        self.waiting.push_back(Point {
            unix_time,
            seconds,
            env_steps: totals.steps,
            updates: totals.updates,
            episodes: totals.episodes,
            mean_return_100: totals.recent.mean_return_100().and_then(finite),
            mean_return: totals.recent.mean_return().and_then(finite),
            mean_return_episodes: totals.recent.len() as u64,
            mean_length: totals.recent.mean_length(),
            metrics,
            policy_lag: std::mem::take(&mut self.lags).summary(),
        });
        self.last = totals.steps;
        self.plan(totals.steps);
    }

    /// The points that wait, oldest first.
    pub(super) fn take(&mut self) -> VecDeque<Point> {
        std::mem::take(&mut self.waiting)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::recorder::Recorder;
    use super::*;

    /// An update of `steps`, with the episodes that ended in it.
    fn update(recorder: &Recorder, version: u64, steps: u64, episodes: &[(f32, u32)]) {
        recorder.update(&UpdateEvent {
            version,
            steps,
            lags: &[version],
            steps_per_column: steps,
            episodes,
            metrics: &[("entropy", version as f32)],
            ..UpdateEvent::default()
        });
    }

    #[test]
    fn points_are_exact_at_the_updates_that_reach_multiples_of_the_distance() {
        let recorder = Recorder::new(Totals::default());
        recorder.record_curve(100);
        for version in 1..=10 {
            update(&recorder, version, 40, &[(version as f32, 1); 20]);
        }
        let points: Vec<Point> = recorder.take_points().into();
        let steps: Vec<u64> = points.iter().map(|point| point.env_steps).collect();
        assert_eq!(steps, [120, 200, 320, 400]);
        for point in &points {
            // The definition, from the start: 20 episodes an update, each with the version as its return.
            let returns: Vec<f64> =
                (1..=point.updates).flat_map(|v| [v as f64; 20]).rev().take(100).collect();
            let mean = returns.iter().sum::<f64>() / returns.len() as f64;
            assert_eq!(point.updates * 40, point.env_steps);
            assert_eq!(point.episodes, 20 * point.updates);
            assert_eq!((point.mean_return, point.mean_return_episodes), (Some(mean), returns.len() as u64));
            assert_eq!(point.mean_return_100, (returns.len() == 100).then_some(mean));
        }
        // Versions 1 to 3, 4 and 5, 6 to 8, 9 and 10.
        let entropy: Vec<f64> = points.iter().map(|point| point.metrics["entropy"].unwrap()).collect();
        assert_eq!(entropy, [2.0, 4.5, 7.0, 9.5]);
        let lags: Vec<f64> = points.iter().map(|point| point.policy_lag.mean.unwrap()).collect();
        assert_eq!(lags, entropy);
        assert!(recorder.take_points().is_empty());
    }

    #[test]
    fn the_curve_ends_where_the_run_does() {
        let recorder = Recorder::new(Totals::default());
        recorder.record_curve(1000);
        recorder.close_curve();
        assert!(recorder.take_points().is_empty(), "nothing was trained");
        update(&recorder, 1, 40, &[]);
        recorder.close_curve();
        recorder.close_curve();
        let points = recorder.take_points();
        assert_eq!(points.iter().map(|point| point.env_steps).collect::<Vec<_>>(), [40]);
    }

    #[test]
    fn a_resumed_run_goes_on_at_the_next_multiple() {
        let recorder = Recorder::new(Totals { steps: 250, updates: 5, ..Totals::default() });
        recorder.record_curve(100);
        recorder.close_curve();
        (6..=8).for_each(|version| update(&recorder, version, 50, &[]));
        assert_eq!(
            recorder.take_points().iter().map(|point| point.env_steps).collect::<Vec<_>>(),
            [300, 400]
        );
    }

    #[test]
    fn a_reporter_that_does_not_come_costs_points_and_not_memory() {
        let recorder = Arc::new(Recorder::new(Totals::default()));
        recorder.record_curve(1);
        let updates = MOST_WAITING as u64 + 10;
        (1..=updates).for_each(|version| update(&recorder, version, 1, &[]));
        assert_eq!(recorder.take_points().len(), MOST_WAITING);
        update(&recorder, updates + 1, 1, &[]);
        let next = recorder.take_points();
        assert_eq!((next.len(), next[0].env_steps), (1, updates + 1));
        // It covers all updates since the last one that was made.
        let first = MOST_WAITING as u64 + 1;
        assert_eq!(next[0].metrics["entropy"], Some((first + updates + 1) as f64 / 2.0));
    }

    #[test]
    fn without_a_distance_there_is_no_curve() {
        let recorder = Recorder::new(Totals::default());
        update(&recorder, 1, 40, &[]);
        recorder.close_curve();
        assert!(recorder.take_points().is_empty());
    }
}
