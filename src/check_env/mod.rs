//! `impresario check-env`: whether an environment keeps the promises that training relies on, and how fast it is.
//!
//! The checks go through the vector of copies, as rollout workers do, so that native environments and Gymnasium's are held to the
//! same.
//!
//! # Layout
//!
//! - here: the command, its report and its verdict;
//! - [`examination`]: what is done with the copies;
//! - `stage`: a vector of copies with what it wrote last, in which a panic is an error like any other;
//! - `contents`: whether numbers are what their space says;
//! - [`report`]: what was found;
//! - `speed`: steps a second.

mod contents;
mod examination;
mod report;
mod speed;
mod stage;

use std::fmt::Display;
use std::path::PathBuf;
use std::process::ExitCode;

use impresario_actor::env::VectorEnvironment;
use impresario_actor::env::gymnasium::interpreter::PythonFlag;
use impresario_actor::env::registry::Registry;
use impresario_actor::env::source::Environments;
use impresario_common::config::{RunConfig, RunFlags};
use impresario_common::process;
use impresario_common::random::Stream;
use impresario_common::space::EnvironmentSpec;

use examination::Examination;

/// Flags of `impresario check-env`.
#[derive(Debug, clap::Args)]
pub(crate) struct CheckEnvCommand {
    /// Environment to check [default: that of --config]
    #[arg(value_name = "ID", required_unless_present = "config")]
    id: Option<String>,

    /// Configuration of a run in TOML, of which the section `environment` counts; --set wins over it
    #[arg(long, value_name = "FILE.toml")]
    config: Option<PathBuf>,

    /// Sets any key of the configuration, say --set environment.kwargs.continuous=true; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,

    /// Steps taken in each of a few copies
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(2..))]
    steps: u32,

    /// Seed of the copies and of their actions
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,

    /// Seconds for which speed is measured
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = seconds)]
    seconds: f64,

    #[command(flatten)]
    python: PythonFlag,
}

fn usage(error: impl Display) -> process::Usage {
    process::Usage(error.to_string())
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("{text:?} is no number"))?;
    if seconds.is_finite() && seconds >= 0.0 { Ok(seconds) } else { Err("write a number from 0 on".into()) }
}

/// The environment under examination.
pub(crate) struct Subject<'a> {
    /// What it says of itself.
    spec: &'a EnvironmentSpec,
    /// Copies that make one game.
    players: usize,
    /// Makes copies, one for each stream.
    make: &'a dyn Fn(Vec<Stream>) -> Result<Box<dyn VectorEnvironment>, String>,
}

impl CheckEnvCommand {
    /// Checks, prints what was found, and fails if a promise is broken.
    pub(crate) fn run(self, registry: &Registry) -> anyhow::Result<ExitCode> {
        let flags = RunFlags { env: self.id, config: self.config, set: self.set, ..RunFlags::default() };
        let config = RunConfig::from_flags(&flags)?;
        let environments = Environments::new(registry.clone(), &self.python);
        let source = environments.find(&config.environment).map_err(usage)?;
        let (spec, players) = (source.spec(), source.players());
        let make = |streams: Vec<Stream>| source.make_vector(streams).map_err(|e| e.to_string());
        let subject = Subject { spec, players, make: &make };
        println!("{}: {} -> {}", spec.id, spec.observation, spec.action);
        if config.environment.frame_stack > 1 {
            let seen = spec.stacked(config.environment.frame_stack).map_err(usage)?;
            println!(
                "the policy sees {} of these at once: {}",
                config.environment.frame_stack, seen.observation
            );
        }
        let report = stage::quietly(|| {
            let mut examination = Examination::new(&subject, self.seed);
            examination.spaces();
            if examination.may_go_on() {
                examination.play(self.steps);
            }
            if examination.may_go_on() {
                examination.speed(self.seconds);
            }
            examination.into_report()
        });
        print!("{report}");
        Ok(if report.failures() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
