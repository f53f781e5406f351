//! [`MemoryEstimate`]: what a learner holds in memory at most, or nearly so. Known from the configuration and the environment before
//! anybody joins where the program knows the environment, and else when the first actor tells it; told in the log, and compared with
//! what the machine, or the container, has.
//!
//! Everything in it is bounded: queues in bytes, streams in windows, the replay in transitions. Small change is left out:
//! code, threads, the books.

use std::fmt;

use impresario_common::config::{AlgorithmConfig, RunConfig};
use impresario_common::policy::{PolicyError, PolicySpec};
use impresario_common::space::{ElementType, EnvironmentSpec, Space};
use impresario_common::unroll::UnrollLayout;

use crate::accounting::Accounting;
use crate::intake::Intake;
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

/// What the estimate has to know of an environment and the policy for it.
struct Sizes {
    /// Bytes of an unroll's column.
    column: u64,
    /// Bytes of what the policy sees at once.
    seen: u64,
    /// Bytes of an action.
    action: u64,
    /// Numbers in the policy.
    weights: u64,
    /// Numbers that its layers give for an observation.
    activations: u64,
    /// Numbers that a critic of SAC sees.
    critic_inputs: u64,
}

impl Sizes {
    fn of_run(config: &RunConfig, environment: &EnvironmentSpec) -> Result<Self, PolicyError> {
        let policy = PolicySpec::of_run(config, environment)?;
        let layout = UnrollLayout::of_run(config, config.rollout.unroll_length, environment, &policy);
        let (seen, action) = (policy.observation(), &environment.action);
        Ok(Self {
            column: layout.column_bytes() as u64,
            seen: (seen.len() * seen.dtype().bytes()) as u64,
            action: (action.len() * action.dtype().bytes()) as u64,
            weights: policy.weight_count() as u64,
            activations: policy.activations() as u64,
            critic_inputs: (policy.input_len() + action.flat_len()) as u64,
        })
    }

    /// Those of the smallest environment: observations of a byte, actions of a number. Encoders that look at images may have no use
    /// for it; layers count only as far as the configuration names their sizes.
    fn at_least(config: &RunConfig) -> Self {
        let byte = Space::Box { low: vec![0.0], high: vec![1.0], shape: vec![1], dtype: ElementType::U8 };
        let action = Space::Discrete { n: 1 };
        let layout = UnrollLayout {
            frame_stack: config.environment.frame_stack,
            ..UnrollLayout::of_spaces(config.rollout.unroll_length, byte, action)
        };
        let hidden = config.policy.hidden.or(&[]);
        let weights = hidden.windows(2).map(|pair| (pair[0] as u64 + 1) * pair[1] as u64).sum();
        Self {
            column: layout.column_bytes() as u64,
            seen: config.environment.frame_stack as u64,
            action: FLOAT,
            weights,
            activations: hidden.iter().map(|&width| width as u64).sum(),
            critic_inputs: 2,
        }
    }
}

impl MemoryEstimate {
    /// That of a run in `environment`.
    ///
    /// # Errors
    /// If there is no policy for the environment.
    pub fn of_run(config: &RunConfig, environment: &EnvironmentSpec) -> Result<Self, PolicyError> {
        Ok(Self::of_sizes(config, &Sizes::of_run(config, environment)?))
    }

    /// What that of a run comes to at least, whatever its environment.
    pub fn at_least(config: &RunConfig) -> Self {
        Self::of_sizes(config, &Sizes::at_least(config))
    }

    fn of_sizes(config: &RunConfig, sizes: &Sizes) -> Self {
        let &Sizes { column, seen, action, weights, activations, critic_inputs } = sizes;
        let columns = config.learner.batch_size as u64;
        let queue = match config.learner.max_policy_lag.0 {
            Some(bound) => columns.saturating_mul(bound.saturating_add(1)).saturating_mul(column),
            None => u64::MAX,
        };
        let (rows, replay, critics) = match &config.algorithm {
            AlgorithmConfig::Sac(sac) => {
                let transition = 2 * seen + action + FLOAT + 1;
                let layers = sac.critic_hidden.iter().chain([&1]);
                let numbers = layers.fold((critic_inputs, 0), |(inputs, sum), &width| {
                    (width as u64, sum + (inputs + 1) * width as u64)
                });
                let replay = (2 * transition).saturating_mul(sac.replay_capacity as u64);
                (sac.replay_batch as u64, replay, 2 * numbers.1)
            }
            _ => ((config.rollout.unroll_length as u64).saturating_add(1).saturating_mul(columns), 0, 0),
        };
        Self {
            network: FLOAT * (POLICY_COPIES * weights + CRITIC_COPIES * critics),
            queue: queue.min(config.learner.queue_bytes),
            // Values and their gradients.
            update: rows
                .saturating_mul(seen + 2 * FLOAT * activations)
                .saturating_add(columns.saturating_mul(column)),
            replay,
            actor: (config.rollout.envs_per_actor as u64).saturating_mul(column)
                + u64::from(CONNECTION_WINDOW),
        }
    }

    /// All of it, with as many connected actors.
    pub fn total(&self, actors: u64) -> u64 {
        let parts = [self.network, self.queue, self.update, self.replay, self.actor.saturating_mul(actors)];
        parts.into_iter().fold(0, u64::saturating_add)
    }

    /// Says it in the log.
    pub fn tell(&self) {
        tracing::info!("memory, at most about: {self}");
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

/// Refuses a run that cannot go well on this machine, before anybody joins: one that may take more memory than there is, or whose
/// actors, each worker of which has at least `columns` copies, could never be granted an unroll or make up a batch. Where `environment`
/// is not known yet, what holds in every environment is judged, and the rest when the first actor tells it.
///
/// # Errors
/// With a message that says what to change.
pub fn judge(
    config: &RunConfig,
    environment: Option<&EnvironmentSpec>,
    columns: usize,
) -> Result<(), String> {
    let estimate = match environment {
        Some(environment) => {
            let policy = PolicySpec::of_run(config, environment);
            let policy = policy.map_err(|e| format!("{}: {e}", environment.id))?;
            let length = config.rollout.unroll_length;
            let layout = UnrollLayout::of_run(config, length, environment, &policy);
            Intake::new(config, 0, Accounting::default()).check_shape(&layout, columns)?;
            MemoryEstimate::of_run(config, environment).map_err(|e| format!("{}: {e}", environment.id))?
        }
        None => MemoryEstimate::at_least(config),
    };
    if environment.is_some() {
        estimate.tell();
    }
    match available().and_then(|available| estimate.misfit(available)) {
        Some(misfit) => Err(misfit),
        None => Ok(()),
    }
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
    fn no_environment_takes_less_than_the_least() {
        let pixels = Space::Box {
            low: vec![0.0; 84 * 84],
            high: vec![255.0; 84 * 84],
            shape: vec![84, 84],
            dtype: ElementType::U8,
        };
        let byte = Space::Box { low: vec![0.0], high: vec![1.0], shape: vec![1], dtype: ElementType::U8 };
        let continuous = Space::boxed(&[-1.0], &[1.0]);
        let environments = [
            cartpole(),
            EnvironmentSpec::new("Pixels-v0", pixels, Space::Discrete { n: 3 }),
            EnvironmentSpec::new("Least-v0", byte, Space::Discrete { n: 1 }),
            EnvironmentSpec::new("Number-v0", Space::Discrete { n: 1 }, continuous),
        ];
        let configurations = [
            "",
            "policy.hidden = [300, 200]",
            "learner.max_policy_lag = \"unlimited\"",
            "environment.frame_stack = 4\nrollout.unroll_length = 1\npolicy.core = \"lstm\"",
            "algorithm.name = \"sac\"",
        ];
        for text in configurations {
            let config = RunConfig::from_toml(text).unwrap();
            let least = MemoryEstimate::at_least(&config);
            for environment in &environments {
                let Ok(estimate) = MemoryEstimate::of_run(&config, environment) else { continue };
                let parts = |e: &MemoryEstimate| [e.network, e.queue, e.update, e.replay, e.actor];
                let pairs = parts(&least).into_iter().zip(parts(&estimate));
                assert!(
                    pairs.clone().all(|(least, part)| least <= part),
                    "{text} {}: {pairs:?}",
                    environment.id
                );
            }
        }
    }

    #[test]
    fn a_run_that_cannot_go_well_is_refused_with_what_to_change() {
        let refused = |text: &str, environment: Option<&EnvironmentSpec>, columns| {
            judge(&RunConfig::from_toml(text).unwrap(), environment, columns).err().unwrap_or_default()
        };
        let cartpole = cartpole();
        assert_eq!(refused("", Some(&cartpole), 4), "");
        assert_eq!(refused("", None, 1), "");
        let endless = "algorithm.name = \"sac\"\nalgorithm.replay_capacity = 1000000000000";
        for environment in [Some(&cartpole), None] {
            let said = refused(endless, environment, 1);
            assert!(said.contains("lower algorithm.replay_capacity"), "{said}");
        }
        let said = refused("learner.queue_bytes = 10000", Some(&cartpole), 1);
        assert!(said.contains("a batch of 32 columns and an unroll of 1 need"), "{said}");
        let said = refused("learner.max_policy_lag = 0\nlearner.batch_size = 4", Some(&cartpole), 8);
        assert!(said.contains("exceeds the 4 columns that may be under way"), "{said}");
        let said = refused("rollout.unroll_length = 1000000", Some(&cartpole), 64);
        assert!(said.contains("more than the 268435456 of a message"), "{said}");
        let said = refused("policy.encoder = \"nature\"", Some(&cartpole), 1);
        assert!(said.contains("CartPole-v1"), "{said}");
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
