//! [`Summary`]: `summary.json`, what came out of a run; docs/run-directory.md documents the keys.

use std::io;
use std::path::Path;

use impresario_common::config::{AtariConvention, AtariSection, RunConfig};
use serde::{Deserialize, Serialize};

use super::append_file::write_atomically;
use super::histogram::LagSummary;
use super::line::finite;
use super::recorder::Totals;
use crate::accounting::Accounting;

/// What came out of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Environment's name with version.
    pub env: String,
    /// How an Atari game was set up; null for all other environments.
    pub atari: Option<Atari>,
    /// Algorithm's name.
    pub algorithm: String,
    /// Seed from which all randomness flowed.
    pub seed: u64,
    /// Environment steps trained on.
    pub env_steps: u64,
    /// Updates applied.
    pub updates: u64,
    /// Seconds of training, from the first actor's arrival on.
    pub wall_seconds: f64,
    /// `env_steps` over `wall_seconds`; 0 if training never began.
    pub steps_per_second: f64,
    /// Episodes that ended.
    pub episodes: u64,
    /// Mean return of the last 100 episodes; null if there were fewer.
    pub mean_return_100: Option<f64>,
    /// The mean that counts as solved: `run.until_return`, or else the environment's own; null if neither is a number.
    pub solved_return: Option<f64>,
    /// Whether that mean was reached at any time.
    pub solved: bool,
    /// Environment steps trained on when it first did.
    pub solved_at_step: Option<u64>,
    /// Seconds of training when it first did.
    pub solved_at_seconds: Option<f64>,
    /// The run's books.
    pub accounting: Accounting,
    /// Policy lag in updates over all environment steps trained on.
    pub policy_lag: LagSummary,
    /// Updates skipped because a loss or gradient was not finite.
    pub skipped_updates: u64,
    /// Why the run ended: `solved`, `steps` (all are trained on), `shutdown` (somebody asked for it) or `error`.
    pub stopped_by: String,
}

/// What was done with the frames, actions, episodes and rewards of an Atari game.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Atari {
    /// What the literature calls it.
    pub convention: AtariConvention,
    /// Frames that the policy saw at once.
    pub frame_stack: usize,
    /// Bound on the size of a reward in learning; 0 for none.
    pub reward_clip: f32,
    /// The section of the configuration.
    #[serde(flatten)]
    pub section: AtariSection,
}

impl Atari {
    fn of_run(config: &RunConfig) -> Option<Self> {
        Some(Self {
            convention: config.atari_convention()?,
            frame_stack: config.environment.frame_stack,
            reward_clip: config.algorithm.reward_clip(),
            section: config.environment.atari.clone(),
        })
    }
}

impl Summary {
    /// The summary of a run that ended with `totals`.
    pub fn new(config: &RunConfig, totals: &Totals, accounting: Accounting, stopped_by: &str) -> Self {
        Self {
            env: config.environment.id.clone(),
            atari: Atari::of_run(config),
            algorithm: config.algorithm.name().into(),
            seed: config.run.seed,
            env_steps: totals.steps,
            updates: totals.updates,
            wall_seconds: totals.seconds,
            steps_per_second: finite(totals.steps as f64 / totals.seconds).unwrap_or(0.0),
            episodes: totals.episodes,
            mean_return_100: totals.recent.mean_return_100().and_then(finite),
            solved_return: totals.solved_return,
            solved: totals.solved_at.is_some(),
            solved_at_step: totals.solved_at.map(|at| at.steps),
            solved_at_seconds: totals.solved_at.map(|at| at.seconds),
            accounting,
            policy_lag: totals.lags.summary(),
            skipped_updates: totals.skipped_updates,
            stopped_by: stopped_by.into(),
        }
    }

    /// The outcome in a line, for people.
    pub fn in_words(&self) -> String {
        let Self { env, env_steps, updates, .. } = self;
        let outcome = match (self.solved_at_step, self.solved_at_seconds, self.stopped_by.as_str()) {
            (Some(step), Some(seconds), "steps") => {
                format!("solved {env} at step {step} after {seconds:.2} s, ended after {env_steps} steps")
            }
            (Some(step), Some(seconds), _) => format!("solved {env} at step {step} after {seconds:.2} s"),
            (_, _, "shutdown") => format!("{env} stopped after {env_steps} steps"),
            (_, _, "error") => format!("{env} failed after {env_steps} steps"),
            _ if self.solved_return.is_none() => format!("trained in {env} for {env_steps} steps"),
            _ => format!("{env} not solved within {env_steps} steps"),
        };
        let mean = match self.mean_return_100 {
            Some(mean) => format!("mean return of the last 100 episodes {mean:.1}"),
            None => format!("{} episodes", self.episodes),
        };
        format!("{outcome}: {mean}, {:.0} steps/s, {updates} updates", self.steps_per_second)
    }

    /// Writes the summary to `path`: whole or not at all.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let mut json = serde_json::to_vec_pretty(self)?;
        json.push(b'\n');
        write_atomically(path, &json)
    }

    /// Reads a summary.
    ///
    /// # Errors
    /// If the file cannot be read or is no summary.
    pub fn read(path: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&std::fs::read(path)?)?)
    }
}

#[cfg(test)]
mod tests {
    use impresario_common::config::RunFlags;

    use super::super::recorder::SolvedAt;
    use super::*;

    fn totals() -> Totals {
        let mut totals =
            Totals { steps: 1000, updates: 10, episodes: 120, seconds: 4.0, ..Totals::default() };
        totals.lags.record(&[0, 1], 500);
        totals.solved_at = Some(SolvedAt { steps: 900, seconds: 3.5 });
        totals.solved_return = Some(475.0);
        (0..100).for_each(|_| totals.recent.push((480.0, 480)));
        totals
    }

    fn summary(totals: &Totals) -> Summary {
        let mut accounting = Accounting { produced: 1100, trained: 1000, ..Accounting::default() };
        accounting.dropped.insert("run_ended".into(), 100);
        Summary::new(&RunConfig::default(), totals, accounting, "solved")
    }

    #[test]
    fn the_file_has_exactly_the_documented_keys() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("summary.json");
        let summary = summary(&totals());
        summary.write(&path).unwrap();
        assert_eq!(Summary::read(&path).unwrap(), summary);

        let text = std::fs::read_to_string(&path).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let expected = serde_json::json!({
            "env": "CartPole-v1", "atari": null, "algorithm": "impala", "seed": 1, "env_steps": 1000, "updates": 10,
            "wall_seconds": 4.0, "steps_per_second": 250.0, "episodes": 120, "mean_return_100": 480.0, "solved_return": 475.0,
            "solved": true, "solved_at_step": 900, "solved_at_seconds": 3.5,
            "accounting": {"produced": 1100, "trained": 1000, "dropped": {"run_ended": 100}, "in_flight": 0},
            "policy_lag": {"mean": 0.5, "p50": 0, "p99": 1, "max": 1},
            "skipped_updates": 0, "stopped_by": "solved",
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn the_convention_that_an_atari_game_was_played_by_is_told() {
        let set = |assignments: &[&str]| {
            let set = assignments.iter().map(|assignment| assignment.to_string()).collect();
            let flags = RunFlags { env: Some("ALE/Pong-v5".into()), set, ..RunFlags::default() };
            let config = RunConfig::from_flags(&flags).unwrap();
            let summary = Summary::new(&config, &totals(), Accounting::default(), "steps");
            let value = serde_json::to_value(&summary).unwrap();
            assert_eq!(serde_json::from_value::<Summary>(value.clone()).unwrap(), summary);
            value["atari"].clone()
        };
        let expected = serde_json::json!({
            "convention": "mnih2015", "frame_stack": 4, "reward_clip": 1.0,
            "preprocess": true, "frame_skip": 4, "screen_size": 84, "grayscale": true, "sticky_actions": 0.0,
            "noop_max": 30, "life_loss": true, "full_action_set": false, "threads": 1,
        });
        assert_eq!(set(&[]), expected);
        let atari = |assignment: &str| format!("environment.atari.{assignment}");
        let machado =
            ["sticky_actions=0.25", "noop_max=0", "life_loss=false", "full_action_set=true"].map(atari);
        let machado: Vec<&str> = machado.iter().map(String::as_str).collect();
        assert_eq!(set(&machado)["convention"], "machado2018");
        for other in ["environment.frame_stack=1", "algorithm.reward_clip=0", "environment.kwargs.mode=1"] {
            assert_eq!(set(&[other])["convention"], "custom", "{other}");
            assert_eq!(set(&[&machado[..], &[other]].concat())["convention"], "custom", "{other}");
        }
        assert_eq!(set(&machado[1..])["convention"], "custom");
        assert_eq!(set(&["environment.atari.preprocess=false"])["convention"], "raw");
    }

    #[test]
    fn a_run_that_never_trained_has_nulls_for_numbers_that_it_lacks() {
        let value = serde_json::to_value(summary(&Totals::default())).unwrap();
        for key in ["mean_return_100", "solved_return", "solved_at_step", "solved_at_seconds"] {
            assert_eq!(value[key], serde_json::Value::Null, "{key}");
        }
        assert_eq!(value["policy_lag"]["p99"], serde_json::Value::Null);
        assert_eq!((&value["solved"], &value["steps_per_second"]), (&false.into(), &0.0.into()));
        assert!(serde_json::from_value::<Summary>(value).is_ok());
    }

    #[test]
    fn the_outcome_in_words_names_what_matters() {
        let tail = "mean return of the last 100 episodes 480.0, 250 steps/s, 10 updates";
        let mut totals = totals();
        let says = |totals: &Totals, reason: &str| {
            Summary::new(&RunConfig::default(), totals, Accounting::default(), reason).in_words()
        };
        assert_eq!(says(&totals, "solved"), format!("solved CartPole-v1 at step 900 after 3.50 s: {tail}"));
        let went_on = format!("solved CartPole-v1 at step 900 after 3.50 s, ended after 1000 steps: {tail}");
        assert_eq!(says(&totals, "steps"), went_on);
        totals.solved_at = None;
        assert_eq!(says(&totals, "steps"), format!("CartPole-v1 not solved within 1000 steps: {tail}"));
        totals.solved_return = None;
        assert_eq!(says(&totals, "steps"), format!("trained in CartPole-v1 for 1000 steps: {tail}"));
        let stopped = "CartPole-v1 stopped after 0 steps: 0 episodes, 0 steps/s, 0 updates";
        assert_eq!(says(&Totals::default(), "shutdown"), stopped);
    }
}
