//! `impresario plot`: the learning curves of runs as a picture.
//!
//! * [`runs`] reads run directories.
//! * [`groups`] puts the runs together that differ in nothing but their seed, and names them.
//! * [`curves`] makes one median and range of the runs of a group: pure functions on points.
//! * [`draw`] draws a panel for each environment.
//! * [`picture`] is the file: SVG or PNG.

mod curves;
mod draw;
mod groups;
mod picture;
mod runs;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use impresario_actor::env::registry::Registry;
use impresario_common::process::Usage;

use curves::Curve;
use draw::{Axes, Panel, Series};
use picture::Format;
use runs::Run;

/// The metric that is drawn unless another one is asked for.
const MEAN_RETURN: &str = "mean_return_100";

/// Points at which a group's median and range are taken.
const RESOLUTION: usize = 400;

/// Flags of `impresario plot`.
#[derive(Debug, clap::Args)]
pub(crate) struct PlotCommand {
    /// Run directories, as `train` or `learner` wrote them. Runs that differ in nothing but their seed are drawn together:
    /// the median as a line, the range as a band. Each environment gets a panel of its own
    #[arg(value_name = "RUN_DIR", required = true)]
    run_dirs: Vec<PathBuf>,

    /// Picture to write; its extension says which kind
    #[arg(short, long, value_name = "FILE.svg|FILE.png", default_value = "curves.svg")]
    output: PathBuf,

    /// What the horizontal axis shows
    #[arg(long, value_enum, default_value_t = XAxis::Steps)]
    x: XAxis,

    /// What the vertical axis shows: any number of curve.jsonl, metrics.jsonl or evaluations.jsonl, say entropy,
    /// policy_lag, steps_per_second or exploitability
    #[arg(long, value_name = "METRIC", default_value = MEAN_RETURN)]
    y: String,
}

/// What the horizontal axis shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum XAxis {
    /// Environment steps trained on
    Steps,
    /// Seconds of training
    Seconds,
}

impl PlotCommand {
    /// Reads the runs and writes the picture.
    pub(crate) fn run(self, registry: &Registry) -> anyhow::Result<ExitCode> {
        let format = Format::of(&self.output).map_err(Usage)?;
        let runs: Vec<Run> = self.run_dirs.iter().map(|dir| Run::read(dir)).collect::<anyhow::Result<_>>()?;
        let drawable = self.with_values(&runs)?;
        let panels = self.panels(&drawable, registry);
        let axes = Axes { x: self.x.label(), y: self.y_label() };
        let lines: usize = panels.iter().map(|panel| panel.series.len()).sum();
        picture::write(&self.output, format, &panels, &axes)?;
        println!(
            "{}: {} of {} in {}",
            self.output.display(),
            self.y,
            runs_of(drawable.len()),
            lines_of(lines)
        );
        Ok(ExitCode::SUCCESS)
    }

    /// The runs that can be drawn, each with its points.
    fn with_values<'a>(&self, runs: &'a [Run]) -> anyhow::Result<Vec<(&'a Run, Curve)>> {
        if !runs.iter().any(|run| run.knows(&self.y)) {
            let known: BTreeSet<&str> = runs.iter().flat_map(Run::metrics).collect();
            let known = known.into_iter().collect::<Vec<_>>().join(", ");
            return Err(Usage(format!("no metric is called {:?}; these runs have: {known}", self.y)).into());
        }
        let mut drawable = vec![];
        for run in runs {
            let points = run.points(self.x, &self.y);
            if points.is_empty() {
                eprintln!("note: {} has no value of {} yet: left out", run.dir.display(), self.y);
            } else {
                drawable.push((run, Curve { points, stays: run.stopped_when_solved }));
            }
        }
        if drawable.is_empty() && self.y == MEAN_RETURN {
            bail!(
                "no run has ended 100 episodes yet; `--y mean_return` takes the mean over as many as there are"
            );
        }
        if drawable.is_empty() {
            bail!("no run has a value of {} yet", self.y);
        }
        Ok(drawable)
    }

    /// A panel for each environment, in the order in which the runs name them.
    fn panels(&self, runs: &[(&Run, Curve)], registry: &Registry) -> Vec<Panel> {
        let mut panels: Vec<Panel> = vec![];
        for group in groups::group(&runs.iter().map(|(run, _)| *run).collect::<Vec<_>>()) {
            let members: Vec<Curve> = group.members.iter().map(|&i| runs[i].1.clone()).collect();
            let series = match members.as_slice() {
                [single] => Series::line(group.label, single.points.clone()),
                several => Series::band(
                    format!("{} ({} runs)", group.label, several.len()),
                    curves::aggregate(several, RESOLUTION),
                ),
            };
            let position = panels.iter().position(|panel| panel.title == group.environment);
            let panel = match position {
                Some(i) => &mut panels[i],
                None => {
                    let solved = registry.spec(&group.environment).ok().and_then(|spec| spec.solved_return);
                    let level = solved.filter(|_| self.y.starts_with("mean_return"));
                    panels.push_mut(Panel { title: group.environment, level, series: vec![] })
                }
            };
            panel.series.push(series);
        }
        panels
    }

    fn y_label(&self) -> String {
        match self.y.as_str() {
            MEAN_RETURN => "mean return of the last 100 episodes".into(),
            name => name.replace('_', " "),
        }
    }
}

impl XAxis {
    fn label(self) -> String {
        match self {
            Self::Steps => "environment steps".into(),
            Self::Seconds => "seconds of training".into(),
        }
    }
}

fn runs_of(count: usize) -> String {
    if count == 1 { "1 run".into() } else { format!("{count} runs") }
}

fn lines_of(count: usize) -> String {
    if count == 1 { "1 line".into() } else { format!("{count} lines") }
}
