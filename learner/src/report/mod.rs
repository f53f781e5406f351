//! What the learner tells about a run: throughput, policy lag, the bottleneck, results; and where it writes it.
//!
//! Data comes from the trainer, which notes every update in the [`Recorder`], and from a [`SystemView`] of
//! intake, roster and service. Once an interval the [`Reporter`] makes a [`Line`] of both and writes it to the
//! log, `metrics.jsonl`, TensorBoard and the progress bar; at the end of the run a [`Summary`] remains. Between
//! lines the recorder makes [`Point`]s at fixed distances of environment steps, for `curve.jsonl` and TensorBoard.
//!
//! # Layout
//!
//! * [`recorder`]: what the trainer notes; totals and the current interval's window.
//! * [`curve`]: the state of learning every so many environment steps.
//! * [`episodes`]: returns of the last hundred episodes.
//! * [`histogram`]: exact policy lags.
//! * [`mod@line`]: one interval in numbers.
//! * [`verdict`]: what holds the run back, judged from those numbers.
//! * [`reporter`]: makes lines and feeds the sinks.
//! * `exposition`: the run in Prometheus's format.
//! * [`json_lines`], [`tensorboard`], [`progress`], `log_line`: the sinks.
//! * [`summary`]: what came out of the run.
//! * [`run_dir`]: where all of it lives.
//! * `append_file`, `host`, `metric_means`: files that survive trouble; what the machine tells about itself; means of
//!   the trainer's diagnostics.

mod append_file;
pub mod curve;
pub mod episodes;
mod exposition;
pub mod histogram;
mod host;
pub mod json_lines;
pub mod line;
mod log_line;
mod metric_means;
pub mod progress;
pub mod recorder;
pub mod reporter;
pub mod run_dir;
pub mod summary;
pub mod tensorboard;
pub mod verdict;

pub(crate) use append_file::write_atomically;
pub use curve::Point;
pub use exposition::{CONTENT_TYPE as EXPOSITION_CONTENT_TYPE, expose};
pub use line::{Line, SystemView};
pub use progress::Progress;
pub use recorder::{Recorder, SolvedAt, Totals, UpdateEvent};
pub use reporter::{LatestLine, ReportError, Reporter};
pub use run_dir::{RunDir, RunDirError};
pub use summary::Summary;
