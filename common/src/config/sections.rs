//! The sections and keys of a run's configuration. Each field's comment is its reference documentation.

use serde::{Deserialize, Serialize};

use super::algorithm::AlgorithmConfig;
use super::environment::EnvironmentSection;
use super::policy::PolicySection;
use crate::wire::MAX_MESSAGE_BYTES;

/// Everything that defines a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// When a run ends and what it leaves behind.
    pub run: RunSection,
    /// What the agent acts in.
    pub environment: EnvironmentSection,
    /// How experience is gathered.
    pub rollout: RolloutSection,
    /// The network.
    pub policy: PolicySection,
    /// How the policy is improved.
    pub algorithm: AlgorithmConfig,
    /// How parameters follow gradients.
    pub optimizer: OptimizerSection,
    /// How the learner takes in experience.
    pub learner: LearnerSection,
    /// How much of the learner anyone may take up.
    pub limits: LimitsSection,
    /// What the learner writes and when.
    pub report: ReportSection,
}

impl RunConfig {
    /// Environment steps between two points of `curve.jsonl`: as configured, or a two-hundredth of the run.
    pub fn curve_steps(&self) -> u64 {
        match self.report.curve_steps {
            0 => (self.run.steps / 200).max(1),
            steps => steps,
        }
    }
}

/// When a run ends and what it leaves behind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunSection {
    /// Seed from which all randomness of the run flows.
    pub seed: u64,
    /// Environment steps to train on before the run ends.
    pub steps: u64,
    /// Mean return of the last 100 episodes that ends the run early: a number, `"solved"` for the
    /// environment's own threshold, or `"never"`.
    pub until_return: UntilReturn,
}

impl Default for RunSection {
    fn default() -> Self {
        Self { seed: 1, steps: 500_000, until_return: UntilReturn::Solved }
    }
}

/// The return at which a run ends early.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum UntilReturn {
    /// This mean return over the last 100 episodes.
    Return(f64),
    /// A word in place of a number.
    Word(UntilReturnWord),
}

/// The words that `until_return` knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UntilReturnWord {
    /// The environment's own threshold, if it has one.
    Solved,
    /// No early end.
    Never,
}

impl UntilReturn {
    /// [`UntilReturnWord::Solved`].
    #[allow(non_upper_case_globals)]
    pub const Solved: Self = Self::Word(UntilReturnWord::Solved);
    /// [`UntilReturnWord::Never`].
    #[allow(non_upper_case_globals)]
    pub const Never: Self = Self::Word(UntilReturnWord::Never);

    /// Whether a run may fall short of it.
    pub fn is_a_goal(self) -> bool {
        self != Self::Never
    }

    /// The threshold in force for an environment with the given one of its own.
    pub fn threshold(self, solved_return: Option<f64>) -> Option<f64> {
        match self {
            Self::Return(value) => Some(value),
            Self::Word(UntilReturnWord::Solved) => solved_return,
            Self::Word(UntilReturnWord::Never) => None,
        }
    }
}

impl std::str::FromStr for UntilReturn {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "solved" => Ok(Self::Solved),
            "never" => Ok(Self::Never),
            _ => text
                .parse()
                .map(Self::Return)
                .map_err(|_| format!("{text:?} is neither a number nor \"solved\" nor \"never\"")),
        }
    }
}

/// How experience is gathered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutSection {
    /// T: environment steps of each copy in an unroll. Longer ones carry credit further and cost fewer
    /// messages; shorter ones are acted with fresher weights.
    pub unroll_length: usize,
    /// Environment copies of one actor, unless it was started with `--envs`. More copies make inference
    /// cheaper per step and batches less correlated, and need more experience before the first update.
    pub envs_per_actor: usize,
    /// Worker threads of one actor, unless it was started with `--workers`; its copies are divided among them.
    pub workers_per_actor: usize,
    /// Bytes of finished unrolls that an actor holds for the learner before its environments wait.
    pub uplink_bytes: u64,
    /// Whether each worker's copies are divided into two groups, so that the policy acts for one while the other steps: `"on"`,
    /// `"off"`, or `"auto"`, which is on where environments step in another process and take longer than inference; the actor's
    /// log says what it chose and why. Each group is a worker of its own with half the copies.
    pub double_buffering: DoubleBuffering,
    /// How the observations of unrolls are compressed on their way to the learner: `"none"`, `"lz4"`, which costs next to
    /// nothing, or `"zstd"`, which takes half as many bytes or fewer for more time. Pictures of games become a fiftieth or less;
    /// observations of a few real numbers hardly shrink.
    pub compression: Compression,
}

impl Default for RolloutSection {
    fn default() -> Self {
        Self {
            unroll_length: 20,
            envs_per_actor: 32,
            workers_per_actor: 1,
            uplink_bytes: 16 << 20,
            double_buffering: DoubleBuffering::Auto,
            compression: Compression::None,
        }
    }
}

/// Whether copies are divided into two groups that take turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DoubleBuffering {
    /// Where it gains.
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// How arrays are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all.
    None,
    /// As a block of LZ4.
    Lz4,
    /// As a frame of Zstandard.
    Zstd,
}

impl std::fmt::Display for Compression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        })
    }
}

/// How parameters follow gradients.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerSection {
    /// The rule.
    pub kind: OptimizerKind,
    /// Step size at the start of the run.
    pub learning_rate: f64,
    /// How the step size changes over the run.
    pub schedule: Schedule,
    /// Added to the denominator. With Adam's customary 1e-8 to 1e-5 a solved task's small gradients are blown up to
    /// full steps, which undoes the solution in the long run.
    pub epsilon: f64,
    /// RMSProp: decay of the average of squared gradients.
    pub decay: f64,
    /// RMSProp: momentum; 0 for none.
    pub momentum: f64,
    /// Adam: decay of the average of gradients.
    pub beta1: f64,
    /// Adam: decay of the average of squared gradients.
    pub beta2: f64,
    /// Gradients are scaled down to this global norm; 0 leaves them alone.
    pub max_grad_norm: f64,
}

impl Default for OptimizerSection {
    fn default() -> Self {
        Self {
            kind: OptimizerKind::Adam,
            learning_rate: 3e-3,
            schedule: Schedule::Constant,
            epsilon: 5e-3,
            decay: 0.99,
            momentum: 0.0,
            beta1: 0.9,
            beta2: 0.999,
            max_grad_norm: 0.5,
        }
    }
}

/// Rules by which parameters follow gradients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// RMSProp as PyTorch computes it: `p -= lr * g / (sqrt(avg) + epsilon)`.
    RmsProp,
    /// Adam (Kingma and Ba 2015) with bias correction.
    Adam,
}

/// How a quantity changes over a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// It does not.
    Constant,
    /// It goes linearly to 0 at the run's last step, or to the final value that there is a key for.
    Linear,
}

/// How the learner takes in experience.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LearnerSection {
    /// B: columns of a batch, each an unroll of one environment copy; an update trains on T x B steps.
    pub batch_size: usize,
    /// K: no batch contains experience more than K updates old, or `"unlimited"`. 0 is lockstep. Small values
    /// keep learning close to on-policy; larger ones let actors run ahead of the learner.
    pub max_policy_lag: PolicyLagBound,
    /// Bytes of experience that wait for the trainer before actors are held back.
    pub queue_bytes: u64,
    /// Actors that must have joined before the first unroll is granted; makes lockstep runs repeatable.
    pub wait_for_actors: usize,
    /// Threads for the learner's arithmetic; 0 is one per core.
    pub threads: usize,
    /// Where the learner's network is: `"cpu"`, or `"cuda"`, the first CUDA device, for a program built with `--features
    /// cuda`. Losses, the optimiser and actors stay on the CPU. Worth it for networks on images; small ones are faster on the CPU.
    pub device: LearnerDevice,
    /// Seconds without a message after which an actor counts as hung and its grants are given to others.
    pub grant_timeout_seconds: f64,
    /// Seconds that a disconnected actor may take to come back before what it held counts as lost.
    pub reconnect_seconds: f64,
    /// Seconds that a shutdown may take: actors say goodbye, streams end, files are written.
    pub grace_seconds: f64,
    /// Updates skipped in a row for a loss or gradient that is not finite, after which the run stops.
    pub max_skipped_updates: u32,
}

impl Default for LearnerSection {
    fn default() -> Self {
        Self {
            batch_size: 32,
            max_policy_lag: PolicyLagBound(Some(4)),
            queue_bytes: 256 << 20,
            wait_for_actors: 1,
            threads: 1,
            device: LearnerDevice::Cpu,
            grant_timeout_seconds: 8.0,
            reconnect_seconds: 30.0,
            grace_seconds: 10.0,
            max_skipped_updates: 10,
        }
    }
}

impl LearnerSection {
    /// Threads for the learner's arithmetic: as configured, or one per core.
    pub fn threads_in_force(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        }
    }
}

/// How much of the learner anyone may take up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsSection {
    /// Largest message that is accepted, in bytes; an unroll is one message. A stream whose message is larger is ended before
    /// room is made for it.
    pub message_bytes: usize,
    /// Connections to the learner at a time; an actor has two, so that there must be twice as many as `learner.wait_for_actors`. Further ones
    /// are turned away, and come again later.
    pub connections: usize,
    /// Actors that may join, or join again, a second; as many more may do so at once after a quiet second. Further ones are told
    /// to come again later.
    pub joins_per_second: u32,
    /// Unrolls of one actor that may wait for the trainer. An actor with as many is not read from until some are trained, unless
    /// the trainer waits for want of them.
    pub unrolls_in_flight: usize,
}

impl Default for LimitsSection {
    fn default() -> Self {
        Self {
            message_bytes: MAX_MESSAGE_BYTES,
            connections: 2048,
            joins_per_second: 200,
            unrolls_in_flight: 1024,
        }
    }
}

/// Where the learner's network is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LearnerDevice {
    /// The processor.
    Cpu,
    /// The first CUDA device.
    Cuda,
}

/// A bound on policy lag in updates; `None` is no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyLagBound(pub Option<u64>);

impl Serialize for PolicyLagBound {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(bound) => serializer.serialize_u64(bound),
            None => serializer.serialize_str("unlimited"),
        }
    }
}

impl<'de> Deserialize<'de> for PolicyLagBound {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a number of updates (0 or more) or \"unlimited\"")]
        enum Form {
            Number(u64),
            Word(Word),
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "lowercase")]
        enum Word {
            Unlimited,
        }
        Ok(Self(match Form::deserialize(deserializer)? {
            Form::Number(bound) => Some(bound),
            Form::Word(Word::Unlimited) => None,
        }))
    }
}

/// What the learner writes and when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportSection {
    /// Seconds between two lines of the log and of `metrics.jsonl`.
    pub interval_seconds: f64,
    /// Environment steps between two points of `curve.jsonl`; 0 is a two-hundredth of `run.steps`.
    pub curve_steps: u64,
    /// Seconds between two checkpoints; one is always written at the end.
    pub checkpoint_seconds: f64,
    /// Environment steps between two further checkpoints, which are kept for good, the first one before any training; 0 writes
    /// none. Of use to evaluate a run all along (`impresario eval --all`). Training waits where the disk cannot keep up.
    pub checkpoint_steps: u64,
    /// Checkpoints kept for being the newest. Those that no key keeps are removed.
    pub checkpoints_kept: usize,
    /// Checkpoints kept for having the best mean return of the last 100 episodes.
    pub checkpoints_best: usize,
    /// SAC: whether checkpoints hold the replay buffer. Without it they are small, and a resumed run fills the buffer anew to
    /// `algorithm.learning_starts` before it goes on learning.
    pub checkpoint_replay: bool,
    /// What `arrivals/` keeps of the unrolls that are trained on: `"off"`, nothing; `"order"`, in which order they came, their
    /// hashes and which batches they made; `"content"`, the unrolls as well, with which `impresario replay` makes the same
    /// weights again. That takes about as many bytes as the traffic.
    pub record_arrivals: RecordArrivals,
    /// Whether TensorBoard event files are written.
    pub tensorboard: bool,
}

/// What is kept of the unrolls that come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordArrivals {
    /// Nothing.
    Off,
    /// Their order and hashes.
    Order,
    /// The unrolls as well.
    Content,
}

impl Default for ReportSection {
    fn default() -> Self {
        Self {
            interval_seconds: 2.0,
            curve_steps: 0,
            checkpoint_seconds: 60.0,
            checkpoint_steps: 0,
            checkpoints_kept: 3,
            checkpoints_best: 1,
            checkpoint_replay: true,
            record_arrivals: RecordArrivals::Off,
            tensorboard: true,
        }
    }
}
