//! [`MemoryEstimate`]: what a learner holds in memory at most, or nearly so. Known from the configuration and the environment before training
//! begins, told in the log, and compared with what the machine, or the container, has.
//!
//! Everything in it is bounded: queues in bytes, streams in windows, the replay in transitions. Small change is left out:
//! code, threads, the books.

use std::fmt;

use impresario_common::config::{AlgorithmConfig, RunConfig};
use impresario_common::policy::PolicySpec;
use impresario_common::space::EnvironmentSpec;
use impresario_common::unroll::UnrollLayout;

use crate::run::CONNECTION_WINDOW;

/// Copies of the policy's numbers: weights, gradients, two averages of the optimiser, two versions on their way to actors, and a
/// checkpoint being written (weights and averages).
const POLICY_COPIES: u64 = 9;
/// Those of a critic's: weights, target, gradients, two averages, and a checkpoint of all but the gradients.
const CRITIC_COPIES: u64 = 9;
const FLOAT: u64 = 4;

/// What a learner holds in memory at most, or nearly so: in bytes, by what it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryEstimate {
    /// Weights, the optimiser's averages, versions on their way, a checkpoint being written.
    pub network: u64,
    /// Unrolls that wait for the trainer.
    pub queue: u64,
    /// The batch that is trained on, and what its forward pass leaves for the backward pass.
    pub update: u64,
    /// SAC's transitions, once in the replay and once in a checkpoint being written.
    pub replay: u64,
    /// What is on its way from each connected actor, and an unroll of all its copies that is being read.
    pub actor: u64,
}

impl MemoryEstimate {
    /// That of a run in `environment`.
    ///
    /// # Errors
    /// If there is no policy for the environment.
    pub fn of_run(
        config: &RunConfig,
        environment: &EnvironmentSpec,
    ) -> Result<Self, impresario_common::policy::PolicyError> {
        let policy = PolicySpec::of_run(config, environment)?;
        let layout = UnrollLayout::of_run(config, config.rollout.unroll_length, environment, &policy);
        let (column, columns) = (layout.column_bytes() as u64, config.learner.batch_size as u64);
        let queue = match config.learner.max_policy_lag.0 {
            Some(bound) => columns.saturating_mul(bound.saturating_add(1)).saturating_mul(column),
            None => u64::MAX,
        };
        let seen = policy.observation();
        let seen_bytes = (seen.len() * seen.dtype().bytes()) as u64;
        let (rows, replay, critics) = match &config.algorithm {
            AlgorithmConfig::Sac(sac) => {
                let action = environment.action.len() * environment.action.dtype().bytes();
                let transition = 2 * seen_bytes + action as u64 + FLOAT + 1;
                let inputs = policy.input_len() + environment.action.flat_len();
                let layers = sac.critic_hidden.iter().chain([&1]);
                let numbers = layers.fold((inputs as u64, 0), |(inputs, sum), &width| {
                    (width as u64, sum + (inputs + 1) * width as u64)
                });
                let replay = (2 * transition).saturating_mul(sac.replay_capacity as u64);
                (sac.replay_batch as u64, replay, 2 * numbers.1)
            }
            _ => ((config.rollout.unroll_length as u64).saturating_add(1).saturating_mul(columns), 0, 0),
        };
        let numbers = policy.weight_count() as u64;
        Ok(Self {
            network: FLOAT * (POLICY_COPIES * numbers + CRITIC_COPIES * critics),
            queue: queue.min(config.learner.queue_bytes),
            // Values and their gradients.
            update: rows
                .saturating_mul(seen_bytes + 2 * FLOAT * policy.activations() as u64)
                .saturating_add(columns.saturating_mul(column)),
            replay,
            actor: (config.rollout.envs_per_actor as u64).saturating_mul(column)
                + u64::from(CONNECTION_WINDOW),
        })
    }

    /// All of it, with as many connected actors.
    pub fn total(&self, actors: u64) -> u64 {
        let parts = [self.network, self.queue, self.update, self.replay, self.actor.saturating_mul(actors)];
        parts.into_iter().fold(0, u64::saturating_add)
    }

    /// Why a machine with `available` bytes cannot hold it, and what to change; `None` if it can.
    pub fn misfit(&self, available: u64) -> Option<String> {
        let total = self.total(1);
        if total <= available {
            return None;
        }
        let parts = [
            (self.replay, "algorithm.replay_capacity"),
            (self.queue, "learner.queue_bytes"),
            (self.update, "learner.batch_size or rollout.unroll_length"),
            (self.network, "policy.hidden"),
        ];
        let (_, key) = parts.into_iter().max().unwrap_or_default();
        Some(format!(
            "this configuration may take {} of memory, and the learner's machine has {}: lower {key} ({self})",
            mebibytes(total),
            mebibytes(available)
        ))
    }
}

impl fmt::Display for MemoryEstimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { network, queue, update, replay, actor } = self;
        let [network, queue, update, actor] = [network, queue, update, actor].map(|&bytes| mebibytes(bytes));
        write!(f, "network {network}, queue {queue}, update {update}, ")?;
        if *replay > 0 {
            write!(f, "replay {}, ", mebibytes(*replay))?;
        }
        write!(f, "each actor {actor}")
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// Bytes of memory that this process may have: the machine's, or its container's if that has fewer. `None` where that cannot be
/// found out.
pub fn available() -> Option<u64> {
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| total_of(&text));
    let container = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let container = container.iter().find_map(|path| std::fs::read_to_string(path).ok()?.trim().parse().ok());
    machine.into_iter().chain(container).min()
}

/// The total in bytes that /proc/meminfo tells.
fn total_of(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes << 10)
}

#[cfg(test)]
mod tests {
    use impresario_common::space::Space;

    use super::*;

    fn cartpole() -> EnvironmentSpec {
        EnvironmentSpec::new("CartPole-v1", Space::boxed(&[-1.0; 4], &[1.0; 4]), Space::Discrete { n: 2 })
    }

    #[test]
    fn every_part_is_what_the_configuration_says() {
        let mut config = RunConfig::default();
        let of = |config: &RunConfig| MemoryEstimate::of_run(config, &cartpole()).unwrap();
        let estimate = of(&config);
        // 4-64-64-(2 + 1); 21 observations, 20 actions, rewards, log-probabilities and flags a column.
        let (numbers, column) = (4 * 64 + 64 + 64 * 64 + 64 + 3 * 65, 21 * 16 + 20 * 14);
        assert_eq!(estimate.network, 4 * 9 * numbers);
        assert_eq!(estimate.queue, 5 * 32 * column, "a lag bound of 4 and batches of 32 columns");
        assert_eq!(estimate.update, 32 * column + 21 * 32 * (16 + 8 * (4 + 64 + 64 + 2 + 1)));
        assert_eq!((estimate.replay, estimate.total(1) - estimate.total(0)), (0, (8 << 20) + 32 * column));
        config.learner.max_policy_lag.0 = None;
        assert_eq!(of(&config).queue, config.learner.queue_bytes);
        let sac = RunConfig::from_toml("algorithm.name = \"sac\"\nalgorithm.replay_capacity = 1000").unwrap();
        assert_eq!(of(&sac).replay, 2 * 1000 * (16 + 16 + 4 + 4 + 1));
    }

    #[test]
    fn what_does_not_fit_is_named_with_the_key_to_turn() {
        let sac = RunConfig::from_toml("algorithm.name = \"sac\"\nalgorithm.replay_capacity = 1000000000");
        let estimate = MemoryEstimate::of_run(&sac.unwrap(), &cartpole()).unwrap();
        assert_eq!(estimate.misfit(u64::MAX), None);
        let misfit = estimate.misfit(1 << 30).unwrap();
        assert!(misfit.contains("machine has 1024.0 MiB: lower algorithm.replay_capacity"), "{misfit}");
    }

    #[test]
    fn the_machines_memory_is_read_in_bytes() {
        assert_eq!(total_of("MemTotal:       24 kB\nMemFree:        7 kB\n"), Some(24 << 10));
        assert_eq!(total_of("nothing of the kind"), None);
        assert!(available().is_none_or(|bytes| bytes > 64 << 20));
    }
}
