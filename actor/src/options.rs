//! What an actor is started with: little, because the learner sends the run's configuration.

use std::time::Duration;

use impresario_common::security::ClientFlags;

use crate::env::gymnasium::interpreter::PythonFlag;
use crate::error::ActorError;

/// The flags of an actor.
#[derive(Debug, Clone, clap::Args)]
pub struct ActorOptions {
    /// Where the learner listens: http://HOST:PORT, or https:// with --tls-ca
    #[arg(long, value_name = "URL")]
    pub learner: String,

    /// Environment copies of this actor, instead of the run's rollout.envs_per_actor
    #[arg(long, value_name = "N", value_parser = at_least_1)]
    pub envs: Option<usize>,

    /// Worker threads among which the copies are divided, instead of the run's rollout.workers_per_actor
    #[arg(long, value_name = "N", value_parser = at_least_1)]
    pub workers: Option<usize>,

    /// Seconds without the learner after which the actor gives up; until then it keeps trying to reach it
    #[arg(long, value_name = "SECONDS", default_value = "300", value_parser = seconds)]
    pub give_up_after: Duration,

    /// How to talk to a learner that keeps strangers out.
    #[command(flatten)]
    pub security: ClientFlags,

    /// For environments of Gymnasium.
    #[command(flatten)]
    pub python: PythonFlag,
}

impl ActorOptions {
    /// The options for the learner at `learner`, all else as by default.
    pub fn new(learner: impl Into<String>) -> Self {
        Self {
            learner: learner.into(),
            envs: None,
            workers: None,
            give_up_after: Duration::from_secs(300),
            security: ClientFlags::default(),
            python: PythonFlag::default(),
        }
    }

    /// Workers and environment copies of each, given what the run's configuration says.
    pub(crate) fn division(&self, envs: usize, workers: usize) -> Result<Division, ActorError> {
        let (envs, workers) = (self.envs.unwrap_or(envs), self.workers.unwrap_or(workers));
        if envs == 0 || workers == 0 || !envs.is_multiple_of(workers) {
            return Err(ActorError::Division { envs, workers });
        }
        Ok(Division { workers, copies: envs / workers })
    }
}

/// How an actor's environment copies are divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Division {
    /// Worker threads.
    pub(crate) workers: usize,
    /// E: environment copies of each.
    pub(crate) copies: usize,
}

impl Division {
    /// The same copies among twice as many workers, none of which divides a game of `players` copies; `None` if that cannot
    /// be.
    pub(crate) fn halves(self, players: usize) -> Option<Self> {
        let even = self.copies.is_multiple_of(2 * players.max(1));
        even.then_some(Self { workers: 2 * self.workers, copies: self.copies / 2 })
    }
}

fn at_least_1(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|&n| n > 0).ok_or_else(|| "is not a number of at least 1".to_owned())
}

fn seconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .ok()
        .and_then(|s| Duration::try_from_secs_f64(s).ok())
        .ok_or_else(|| "is not a number of seconds".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_divided_evenly_or_not_at_all() {
        let mut options = ActorOptions::new("http://localhost:1");
        assert_eq!(options.division(32, 2).unwrap(), Division { workers: 2, copies: 16 });
        let halves = options.division(32, 2).unwrap().halves(2);
        assert_eq!(halves, Some(Division { workers: 4, copies: 8 }));
        options.envs = Some(6);
        let three_each = options.division(32, 2).unwrap();
        assert_eq!(three_each.halves(1), None);
        options.envs = Some(12);
        let three_games = options.division(32, 2).unwrap();
        assert_eq!((three_games.halves(2), three_games.halves(1).map(|d| d.copies)), (None, Some(3)));
        options.envs = Some(3);
        let error = options.division(32, 2).unwrap_err().to_string();
        assert!(error.contains("3 environment copies") && error.contains("--envs"), "{error}");
    }
}
