//! [`Reporter`]: once an interval, turns what the trainer noted and what the learner shows into a [`Line`] and
//! gives it to every sink, after the points of the curve that were made meanwhile; at the end, writes the summary.
//! Files are written on a thread of its own.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, SyncSender};
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use impresario_common::config::RunConfig;

use super::host::CpuTicks;
use super::json_lines::JsonLines;
use super::line::{Interval, Line, SystemView};
use super::log_line;
use super::progress::Progress;
use super::recorder::Recorder;
use super::run_dir::RunDir;
use super::summary::Summary;
use super::tensorboard::TensorBoard;
use crate::accounting::Accounting;

/// A report that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A file cannot be opened or written.
    #[error("cannot write {}: {source}", path.display())]
    File {
        /// The file, or the directory it belongs in.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The thread cannot be started.
    #[error("cannot start the reporter's thread: {0}")]
    Thread(std::io::Error),
}

/// Reports a run to the log, `metrics.jsonl`, `curve.jsonl`, TensorBoard, the progress bar and, at the end, `summary.json`.
#[derive(Debug)]
pub struct Reporter {
    config: RunConfig,
    summary: PathBuf,
    recorder: Arc<Recorder>,
    /// Holds one view at most: where the disk is slower than the interval, intervals get longer.
    views: SyncSender<SystemView>,
    thread: JoinHandle<Sinks>,
    latest: LatestLine,
}

/// The last interval's line, once there is one.
pub type LatestLine = Arc<ArcSwapOption<Line>>;

impl Reporter {
    /// Starts to report what `recorder` gathers into `run_dir`, as `config` asks for, and shows `progress`.
    ///
    /// # Errors
    /// If a file cannot be opened for writing.
    pub fn new(
        config: &RunConfig,
        run_dir: &RunDir,
        recorder: Arc<Recorder>,
        progress: Option<Progress>,
    ) -> Result<Self, ReportError> {
        let mut sinks = Sinks::open(config, run_dir, recorder.clone(), progress)?;
        let latest = sinks.latest.clone();
        let (views, received) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("report".into())
            .spawn(move || {
                for view in received {
                    sinks.report(view);
                }
                sinks
            })
            .map_err(ReportError::Thread)?;
        Ok(Self { config: config.clone(), summary: run_dir.summary(), recorder, views, thread, latest })
    }

    /// Where the last interval's line is found.
    pub fn latest(&self) -> LatestLine {
        self.latest.clone()
    }

    /// Ends an interval at `view`; its line is written in the background. To be called every
    /// `report.interval_seconds`; never waits.
    pub fn tick(&self, view: SystemView) {
        // A full channel means that the last view is still to be reported: its interval ends later, then.
        let _ = self.views.try_send(view);
    }

    /// Ends the last interval and writes the summary. `accounting` is the books after the run,
    /// `stopped_by` why it ended. Waits for the disk.
    ///
    /// # Errors
    /// If the summary cannot be written.
    pub fn finish(
        self,
        view: SystemView,
        accounting: Accounting,
        stopped_by: &str,
    ) -> Result<Summary, ReportError> {
        drop(self.views);
        match self.thread.join() {
            Ok(mut sinks) => sinks.finish(SystemView { accounting: accounting.clone(), ..view }),
            Err(_) => tracing::error!("the reporter panicked: metrics are incomplete"),
        }
        let summary = Summary::new(&self.config, &self.recorder.totals(), accounting, stopped_by);
        summary.write(&self.summary).map_err(|source| ReportError::File { path: self.summary, source })?;
        Ok(summary)
    }
}

/// Where lines go, and what the next one starts from.
#[derive(Debug)]
struct Sinks {
    recorder: Arc<Recorder>,
    actors_needed: u64,
    max_policy_lag: Option<u64>,
    metrics: JsonLines,
    curve: JsonLines,
    tensorboard: Option<TensorBoard>,
    progress: Option<Progress>,
    latest: LatestLine,
    /// When the last line was made, from what, and the machine's ticks then.
    last: (Instant, SystemView, Option<CpuTicks>),
}

impl Sinks {
    fn open(
        config: &RunConfig,
        run_dir: &RunDir,
        recorder: Arc<Recorder>,
        progress: Option<Progress>,
    ) -> Result<Self, ReportError> {
        let file = |path: &Path| {
            let path = path.to_owned();
            |source| ReportError::File { path, source }
        };
        let metrics = JsonLines::open(&run_dir.metrics()).map_err(file(&run_dir.metrics()))?;
        let curve = JsonLines::open(&run_dir.curve()).map_err(file(&run_dir.curve()))?;
        recorder.record_curve(config.curve_steps());
        let tensorboard = match config.report.tensorboard {
            true => Some(TensorBoard::create(run_dir.path()).map_err(file(run_dir.path()))?),
            false => None,
        };
        if let Some(progress) = &progress {
            progress.begin(config.run.steps);
        }
        Ok(Self {
            recorder,
            actors_needed: config.learner.wait_for_actors as u64,
            max_policy_lag: config.learner.max_policy_lag.0,
            metrics,
            curve,
            tensorboard,
            progress,
            latest: LatestLine::default(),
            last: (Instant::now(), SystemView::default(), CpuTicks::now()),
        })
    }

    /// Ends the interval at `view`: writes its line to every sink.
    fn report(&mut self, view: SystemView) {
        self.write_points();
        let (now, ticks) = (Instant::now(), CpuTicks::now());
        let (then, before, earlier) = &self.last;
        let line = Line::compose(&Interval {
            elapsed: now.duration_since(*then),
            window: &self.recorder.take_window(),
            totals: &self.recorder.totals(),
            before,
            after: &view,
            actors_needed: self.actors_needed,
            max_policy_lag: self.max_policy_lag,
            cores_busy: ticks.zip(*earlier).and_then(|(now, then)| now.busy_since(then)),
            unix_time: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64(),
        });
        self.last = (now, view, ticks);
        self.metrics.write(&line);
        if let Some(tensorboard) = &mut self.tensorboard {
            tensorboard.write(&line);
        }
        if let Some(progress) = &self.progress {
            progress.show(&line);
        }
        log_line::log(&line);
        self.latest.store(Some(Arc::new(line)));
    }

    /// Writes the points made since the last call.
    fn write_points(&mut self) {
        for point in self.recorder.take_points() {
            self.curve.write(&point);
            if let Some(tensorboard) = &mut self.tensorboard {
                tensorboard.write_point(&point);
            }
        }
    }

    fn finish(&mut self, view: SystemView) {
        self.recorder.close_curve();
        self.report(view);
        if let Some(progress) = &self.progress {
            progress.finish();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::curve::Point;
    use super::super::recorder::{Totals, UpdateEvent};
    use super::super::verdict::Bottleneck;
    use super::*;

    /// Whole lines only: the last one may be in the middle of being written.
    fn lines(run_dir: &RunDir) -> Vec<Line> {
        let text = std::fs::read_to_string(run_dir.metrics()).unwrap();
        text.split_inclusive('\n')
            .filter(|line| line.ends_with('\n'))
            .map(|json| serde_json::from_str(json).unwrap())
            .collect()
    }

    #[test]
    fn a_run_is_reported_once_an_interval_and_summed_up_at_its_end() {
        let base = tempfile::tempdir().unwrap();
        let config = RunConfig::default();
        let run_dir = RunDir::create(Some(base.path()), &config).unwrap();
        let recorder = Arc::new(Recorder::new(Totals::default()));
        let reporter = Reporter::new(&config, &run_dir, recorder.clone(), Some(Progress::new())).unwrap();
        let view = SystemView { actors_connected: 1, actors_joined: 1, ..SystemView::default() };
        reporter.tick(view.clone());
        while lines(&run_dir).is_empty() {
            std::thread::yield_now();
        }
        recorder.update(&UpdateEvent { version: 1, steps: 640, ..UpdateEvent::default() });
        let books = Accounting { produced: 640, trained: 640, ..Accounting::default() };
        let summary = reporter.finish(view, books.clone(), "steps").unwrap();

        assert_eq!((summary.env_steps, summary.updates, &summary.accounting), (640, 1, &books));
        let written = Summary::read(&run_dir.summary()).unwrap();
        assert_eq!((written.env_steps, written.stopped_by.as_str()), (640, "steps"));
        let curve = std::fs::read_to_string(run_dir.curve()).unwrap();
        let points: Vec<Point> = curve.lines().map(|json| serde_json::from_str(json).unwrap()).collect();
        assert_eq!(points.iter().map(|point| point.env_steps).collect::<Vec<_>>(), [640]);
        let lines = lines(&run_dir);
        assert_eq!(lines.iter().map(|line| line.env_steps).collect::<Vec<_>>(), [0, 640]);
        assert_eq!(lines[0].verdict.bottleneck, Bottleneck::Starting);
        assert_eq!(lines[1].accounting, books);
        let files = std::fs::read_dir(base.path()).unwrap().map(|file| file.unwrap().file_name());
        let is_board = |name: std::ffi::OsString| name.to_string_lossy().starts_with("events.out.tfevents.");
        assert_eq!(files.filter(|name| is_board(name.clone())).count(), 1);
    }

    #[test]
    fn a_run_directory_that_vanished_is_named() {
        let base = tempfile::tempdir().unwrap();
        let run_dir = RunDir::create(Some(&base.path().join("run")), &RunConfig::default()).unwrap();
        std::fs::remove_dir_all(run_dir.path()).unwrap();
        let recorder = Arc::new(Recorder::new(Totals::default()));
        let error = Reporter::new(&RunConfig::default(), &run_dir, recorder, None).unwrap_err().to_string();
        assert!(error.starts_with("cannot write ") && error.contains("metrics.jsonl"), "{error}");
    }
}
