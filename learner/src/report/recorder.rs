//! [`Recorder`]: what the trainer notes after each update, for the reporter and the stop condition to read.
//!
//! Fed by the trainer's thread, up to thousands of times a second: a note takes a short lock, adds numbers,
//! and touches neither disk nor network. Drained by the reporter once an interval.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::curve::{Curve, Point};
use super::episodes::RecentEpisodes;
use super::histogram::{LagHistogram, LagSummary};
use super::metric_means::MetricMeans;

/// What one update was about.
#[derive(Debug, Clone, Copy, Default)]
pub struct UpdateEvent<'a> {
    /// The policy's version after it: updates applied so far.
    pub version: u64,
    /// Environment steps that it trained on.
    pub steps: u64,
    /// `[B]`: policy lag of each column of the batch, in updates.
    pub lags: &'a [u64],
    /// Environment steps of each column, the weight of its lag.
    pub steps_per_column: u64,
    /// Undiscounted return and length in environment steps of the episodes that ended in the batch.
    pub episodes: &'a [(f32, u32)],
    /// The algorithm's and optimiser's diagnostics by name.
    pub metrics: &'a [(&'static str, f32)],
    /// The update was not applied, its loss or gradient not being finite: steps, lags and metrics do not count.
    pub skipped: bool,
}

/// When the mean return of the last 100 episodes first reached the threshold.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SolvedAt {
    /// Environment steps trained on by then.
    pub steps: u64,
    /// Seconds of training by then.
    pub seconds: f64,
}

/// Sums over the whole run. A checkpoint keeps them, so that a resumed run counts on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// Environment steps trained on.
    pub steps: u64,
    /// Updates applied: the policy's version.
    pub updates: u64,
    /// Updates skipped because a loss or gradient was not finite.
    pub skipped_updates: u64,
    /// Episodes that ended.
    pub episodes: u64,
    /// Seconds of training.
    pub seconds: f64,
    /// The last hundred episodes.
    pub recent: RecentEpisodes,
    /// Policy lag of every step trained on.
    pub lags: LagHistogram,
    /// When the task was solved, if it was.
    pub solved_at: Option<SolvedAt>,
    /// The mean return of the last 100 episodes that counts as solved, if any does.
    pub solved_return: Option<f64>,
}

/// What happened since the last time somebody asked.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Window {
    /// Environment steps trained on.
    pub steps: u64,
    /// Updates applied.
    pub updates: u64,
    /// Policy lag of the steps trained on.
    pub lags: LagSummary,
    /// Mean of each metric over the updates applied that gave a finite value, in the trainer's order; not a
    /// number where none did.
    pub metrics: Vec<(&'static str, f64)>,
    /// Time that the trainer had no batch to work on.
    pub waited: Duration,
    /// Time that it worked.
    pub worked: Duration,
}

/// What the trainer is at.
#[derive(Debug, Clone, Copy)]
enum Phase {
    /// It has no batch to work on.
    Waiting,
    /// It trains on a batch, or publishes or copies what came of it.
    Working,
}

/// Gathers what the trainer notes. Shared by the trainer, the reporter and whoever writes the summary.
#[derive(Debug)]
pub struct Recorder {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Without the current window's lags and without the seconds since `begun`.
    totals: Totals,
    begun: Option<Instant>,
    /// What the trainer does and since when, as far as no window has counted it.
    phase: Option<(Phase, Instant)>,
    ended: Option<Instant>,
    /// Its `lags` and `metrics` stay empty until it is drained.
    window: Window,
    lags: LagHistogram,
    metrics: MetricMeans,
    curve: Curve,
}

impl Recorder {
    /// A recorder that counts on from `totals`: the default for a new run, a checkpoint's for a resumed one.
    pub fn new(totals: Totals) -> Self {
        Self { state: Mutex::new(State { totals, ..State::default() }) }
    }

    /// Sets the mean return of the last 100 episodes that counts as solved. It is known when the first actor
    /// has told about its environment; a task already solved stays so.
    pub fn set_solved_return(&self, solved_return: Option<f64>) {
        self.lock().totals.solved_return = solved_return;
    }

    /// Starts the clock of training at `at`, unless it runs already.
    pub fn begin(&self, at: Instant) {
        self.lock().begun.get_or_insert(at);
    }

    /// Stops the clock of training at `at`, unless it is stopped already.
    pub fn end(&self, at: Instant) {
        let state = &mut *self.lock();
        state.count_phase(at);
        state.phase = None;
        state.ended.get_or_insert(at);
    }

    /// From `since` on the trainer has no batch to work on.
    pub fn waiting(&self, since: Instant) {
        self.lock().enter(Phase::Waiting, since);
    }

    /// From `since` on the trainer works on a batch. The first one starts the clock of training at the latest.
    pub fn working(&self, since: Instant) {
        let state = &mut *self.lock();
        state.enter(Phase::Working, since);
        state.begun.get_or_insert(since);
    }

    /// Notes an update.
    pub fn update(&self, event: &UpdateEvent) {
        let now = Instant::now();
        let state = &mut *self.lock();
        for &episode in event.episodes {
            state.totals.recent.push(episode);
        }
        state.totals.episodes += event.episodes.len() as u64;
        if event.skipped {
            state.totals.skipped_updates += 1;
        } else {
            state.apply(event);
        }
        state.note_solved(now);
        if state.curve.is_due(state.totals.steps) {
            state.add_point(now);
        }
    }

    /// Mean return of the last 100 episodes, once there are as many.
    pub fn mean_return_100(&self) -> Option<f64> {
        self.lock().totals.recent.mean_return_100()
    }

    /// When the threshold was first reached.
    pub fn solved_at(&self) -> Option<SolvedAt> {
        self.lock().totals.solved_at
    }

    /// Sums over the whole run so far.
    pub fn totals(&self) -> Totals {
        let state = self.lock();
        let mut totals = state.totals.clone();
        totals.lags.merge(&state.lags);
        totals.seconds = state.seconds(Instant::now());
        totals
    }

    /// What happened since the last call.
    pub fn take_window(&self) -> Window {
        let state = &mut *self.lock();
        state.count_phase(Instant::now());
        let mut window = std::mem::take(&mut state.window);
        let lags = std::mem::take(&mut state.lags);
        window.lags = lags.summary();
        state.totals.lags.merge(&lags);
        window.metrics.extend(state.metrics.take());
        window
    }

    /// Makes a [`Point`] of the curve every `every` environment steps from now on.
    pub fn record_curve(&self, every: u64) {
        let state = &mut *self.lock();
        state.curve = Curve::new(every, state.totals.steps);
    }

    /// Ends the curve with a point of the last update, unless it has one.
    pub fn close_curve(&self) {
        let state = &mut *self.lock();
        if state.curve.is_behind(state.totals.steps) {
            state.add_point(Instant::now());
        }
    }

    /// Points of the curve that nobody has taken yet, oldest first.
    pub fn take_points(&self) -> VecDeque<Point> {
        self.lock().curve.take()
    }

    /// A panic elsewhere leaves sums that are at worst one update short: no reason to stop reporting.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Counts what the trainer has been at until `at`, and notes what it is at from then on.
    fn enter(&mut self, phase: Phase, at: Instant) {
        self.count_phase(at);
        self.phase = Some((phase, at));
    }

    /// Counts what the trainer has been at until `at`: a window need not wait for the end of it.
    fn count_phase(&mut self, at: Instant) {
        if let Some((phase, since)) = &mut self.phase {
            let time = match phase {
                Phase::Waiting => &mut self.window.waited,
                Phase::Working => &mut self.window.worked,
            };
            *time += at.saturating_duration_since(*since);
            *since = at.max(*since);
        }
    }

    fn apply(&mut self, event: &UpdateEvent) {
        self.totals.steps += event.steps;
        self.totals.updates = event.version;
        self.window.steps += event.steps;
        self.window.updates += 1;
        self.lags.record(event.lags, event.steps_per_column);
        self.metrics.add(event.metrics);
        self.curve.note(event);
    }

    fn add_point(&mut self, now: Instant) {
        let unix_time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let seconds = self.seconds(now);
        self.curve.add(&self.totals, seconds, unix_time);
    }

    fn note_solved(&mut self, now: Instant) {
        let reached = match (self.totals.recent.mean_return_100(), self.totals.solved_return) {
            (Some(mean), Some(solved_return)) => mean >= solved_return,
            _ => false,
        };
        if reached && self.totals.solved_at.is_none() {
            self.totals.solved_at = Some(SolvedAt { steps: self.totals.steps, seconds: self.seconds(now) });
        }
    }

    /// Seconds of training at `now`, those of the lives before a resumption included.
    fn seconds(&self, now: Instant) -> f64 {
        let here = self
            .begun
            .map_or(Duration::ZERO, |begun| self.ended.unwrap_or(now).saturating_duration_since(begun));
        self.totals.seconds + here.as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn recorder() -> Recorder {
        Recorder::new(Totals::default())
    }

    #[test]
    fn a_window_holds_what_happened_since_the_last_one() {
        let recorder = recorder();
        for version in 1..=4 {
            recorder.update(&UpdateEvent {
                version,
                steps: 40,
                lags: &[version - 1, 0],
                steps_per_column: 20,
                metrics: &[("policy_loss", version as f32), ("entropy", 0.5)],
                ..UpdateEvent::default()
            });
            if version == 1 {
                assert_eq!(recorder.take_window().metrics, [("policy_loss", 1.0), ("entropy", 0.5)]);
            }
        }
        let window = recorder.take_window();
        assert_eq!((window.steps, window.updates), (120, 3));
        assert_eq!(window.metrics, [("policy_loss", 3.0), ("entropy", 0.5)]);
        assert_eq!(window.lags, LagSummary { mean: Some(1.0), p50: Some(0), p99: Some(3), max: Some(3) });

        let empty = recorder.take_window();
        assert_eq!((empty.steps, empty.updates, empty.lags), (0, 0, LagSummary::default()));
        assert!(empty.metrics.iter().all(|(_, mean)| mean.is_nan()));

        let totals = recorder.totals();
        assert_eq!((totals.steps, totals.updates), (160, 4));
        assert_eq!(totals.lags.summary().mean, Some(0.75));
    }

    #[test]
    fn waits_and_work_are_counted_while_they_last_and_once() {
        let recorder = recorder();
        let now = Instant::now();
        let ago = |time: Duration| now.checked_sub(time).unwrap();
        recorder.waiting(ago(900 * MS));
        recorder.working(ago(500 * MS));
        let first = recorder.take_window();
        assert_eq!(first.waited, 400 * MS);
        assert!(first.worked >= 500 * MS, "an update under way is work: {:?}", first.worked);
        recorder.update(&UpdateEvent::default());
        recorder.waiting(Instant::now());
        let (rest, since) = (recorder.take_window(), ago(900 * MS));
        assert!(first.waited + first.worked + rest.waited + rest.worked <= since.elapsed());
        recorder.end(Instant::now());
        recorder.take_window();
        assert_eq!(recorder.take_window().waited, Duration::ZERO);
    }

    #[test]
    fn totals_include_the_lags_of_the_window_not_yet_taken() {
        let recorder = recorder();
        let event = UpdateEvent { lags: &[2], steps_per_column: 5, ..UpdateEvent::default() };
        recorder.update(&event);
        recorder.take_window();
        recorder.update(&UpdateEvent { lags: &[4], ..event });
        assert_eq!(recorder.totals().lags.summary().mean, Some(3.0));
    }

    #[test]
    fn a_skipped_update_trains_nothing_but_its_episodes_ended() {
        let recorder = recorder();
        recorder.update(&UpdateEvent {
            version: 7,
            steps: 40,
            lags: &[1],
            steps_per_column: 40,
            episodes: &[(3.0, 3)],
            metrics: &[("policy_loss", f32::NAN)],
            skipped: true,
        });
        let totals = recorder.totals();
        assert_eq!((totals.steps, totals.updates, totals.skipped_updates, totals.episodes), (0, 0, 1, 1));
        assert_eq!(totals.lags, LagHistogram::default());
        assert!(recorder.take_window().metrics.is_empty());
    }

    #[test]
    fn a_metric_that_is_not_finite_does_not_spoil_the_mean() {
        let recorder = recorder();
        for value in [1.0, f32::NAN, 3.0] {
            recorder
                .update(&UpdateEvent { metrics: &[("explained_variance", value)], ..UpdateEvent::default() });
        }
        assert_eq!(recorder.take_window().metrics, [("explained_variance", 2.0)]);
    }

    #[test]
    fn solved_is_latched_at_the_first_update_that_reaches_the_threshold() {
        let recorder = recorder();
        recorder.set_solved_return(Some(10.0));
        let (good, bad) = ([(20.0, 1); 50], [(0.0, 1); 100]);
        let play = |version, episodes| {
            let event = UpdateEvent { version, steps: 100, episodes, ..UpdateEvent::default() };
            recorder.update(&event);
        };
        play(1, &good);
        assert_eq!((recorder.mean_return_100(), recorder.solved_at()), (None, None));
        play(2, &bad[..50]);
        assert_eq!(recorder.mean_return_100(), Some(10.0));
        let solved_at = recorder.solved_at().unwrap();
        assert_eq!(solved_at.steps, 200);
        play(3, &bad);
        assert_eq!(recorder.mean_return_100(), Some(0.0));
        assert_eq!(recorder.solved_at(), Some(solved_at));
    }

    #[test]
    fn the_clock_counts_from_begin_to_end_and_on_after_a_resumption() {
        let recorder = Recorder::new(Totals { seconds: 100.0, steps: 7, ..Totals::default() });
        assert_eq!(recorder.totals().seconds, 100.0);
        let start = Instant::now();
        recorder.begin(start);
        recorder.begin(start + 900 * MS);
        recorder.end(start + 1500 * MS);
        recorder.end(start + 2500 * MS);
        assert_eq!(recorder.totals().seconds, 101.5);
        let json = serde_json::to_string(&recorder.totals()).unwrap();
        assert_eq!(serde_json::from_str::<Totals>(&json).unwrap(), recorder.totals());
    }
}
