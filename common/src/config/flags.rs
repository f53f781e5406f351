//! The command-line flags that define a run, the same on `train` and `learner`.

use std::path::PathBuf;

use super::algorithm::AlgorithmConfig;
use super::sections::UntilReturn;

/// Flags that define a run. Each one is a shorthand for a key of the configuration.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Run")]
pub struct RunFlags {
    /// Environment to train in, as `impresario envs` lists them [environment.id; default: CartPole-v1]
    #[arg(long, value_name = "ID")]
    pub env: Option<String>,

    /// Method that improves the policy [algorithm.name; default: impala]
    #[arg(long, value_name = "NAME", value_parser = clap::builder::PossibleValuesParser::new(AlgorithmConfig::NAMES))]
    pub algorithm: Option<String>,

    /// Environment copies of each actor [rollout.envs_per_actor]
    #[arg(long, value_name = "N")]
    pub envs_per_actor: Option<usize>,

    /// Seed from which all randomness flows [run.seed; default: 1]
    #[arg(long, value_name = "S")]
    pub seed: Option<u64>,

    /// Environment steps to train on before the run ends [run.steps]
    #[arg(long, value_name = "N")]
    pub steps: Option<u64>,

    /// Mean return of the last 100 episodes that ends the run early: a number, "solved" (the environment's own
    /// threshold) or "never" [run.until_return; default: solved]
    #[arg(long, value_name = "R", allow_hyphen_values = true)]
    pub until_return: Option<UntilReturn>,

    /// Directory for configuration, metrics, checkpoints and summary
    /// [default: runs/ENVIRONMENT-ALGORITHM-seedSEED-TIME]
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,

    /// Continue the run in --run-dir from its newest valid checkpoint, with the configuration it has there; flags
    /// and --set win over it
    #[arg(long, requires = "run_dir", conflicts_with = "config")]
    pub resume: bool,

    /// Write down in which order unrolls come, with their hashes: "order"; with their content as well: "content", for
    /// `impresario replay` [report.record_arrivals; default: off]
    #[arg(long, value_name = "WHAT", num_args = 0..=1, require_equals = true, default_missing_value = "order",
          value_parser = ["off", "order", "content"])]
    pub record_arrivals: Option<String>,

    /// Configuration file in TOML; flags and --set win over it
    #[arg(long, value_name = "FILE.toml")]
    pub config: Option<PathBuf>,

    /// Sets any key of the configuration, say --set optimizer.learning_rate=0.0005; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}
