//! The methods: one file each, on shared parts.
//!
//! A method turns a batch of experience into an update of the target policy. The trainer hands it the
//! [`TargetPolicy`] and the batch, and gets an [`UpdateReport`] back.
//!
//! # Layout
//!
//! * [`impala`]: importance-weighted actor-learner with V-trace.
//! * [`actor_critic`]: advantage actor-critic, in lockstep (A2C) and asynchronous (A3C).
//! * [`ppo`]: proximal policy optimisation, in lockstep; [`appo`]: its asynchronous sister.
//! * [`reinforce`]: Monte Carlo policy gradient on complete episodes.
//! * [`sac`]: soft actor-critic, off-policy from a replay buffer.
//! * [`trpo`]: natural gradient steps within a trust region.
//! * [`target`]: the policy being learned, with its parameters and optimiser; forward pass and step.
//! * [`advantages`]: advantages and value targets from a batch and its values.
//! * [`surrogate`]: PPO's clipped objective, over passes of [`minibatches`].
//! * [`objective`]: losses whose gradients with respect to the policy's outputs are known in closed form.
//! * [`rewards`]: rewards and discounts as the returns want them: scaled, clipped, cut at the ends of episodes.
//! * [`polyak`]: slow copies of weights.
//! * [`diagnostics`]: what importance weights say about the distance of two policies.
//!
//! # Metrics
//!
//! | name | meaning |
//! | --- | --- |
//! | `loss` | what was minimised |
//! | `policy_loss`, `value_loss` | its parts before weighting; of normalised values where the policy learns such |
//! | `entropy_loss` | its part from the entropy bonus, weighted |
//! | `entropy_cost` | weight of the entropy in force |
//! | `entropy` | mean entropy of the policy in nats |
//! | `grad_norm` | global norm of the gradients before clipping |
//! | `learning_rate` | step size in force |
//! | `explained_variance` | of the value targets by the value estimates: 1 is perfect, 0 useless |
//! | `mean_value` | mean value estimate |
//! | `value_target_mean`, `value_target_deviation` | what values are normalised by (PopArt) |
//! | `mean_rho` | mean importance weight, near 1 on-policy |
//! | `clip_fraction` | share of importance weights beyond their bound |
//! | `approx_kl` | estimate of KL(behaviour, target) in nats |
//! | `epochs_run` | passes over the batch, of several; not whole where an update ended early |
//! | `kl_stopped` | 1 where an update ended early because the policy had moved far enough, else 0 |
//! | `unfinished_fraction` | share of steps left out because their episode goes on beyond the unroll |
//! | `kl` | mean divergence of the new policy from the old one in nats (TRPO) |
//! | `line_search_steps`, `step_size`, `cg_residual` | tries of the line search, the step taken, what the linear system misses (TRPO) |
//! | `critic_loss`, `critic_grad_norm` | half the mean squared error of both critics (SAC), and its gradient's norm |
//! | `mean_q` | mean estimate of the actions drawn from the replay (SAC) |
//! | `alpha`, `alpha_loss` | entropy temperature (SAC), and its loss |
//! | `replay`, `gradient_steps` | transitions held, and gradient steps of the update (SAC) |
//!
//! A metric that is undefined for a batch, or not finite, is left out.

pub mod actor_critic;
pub mod advantages;
pub mod appo;
pub mod diagnostics;
pub mod impala;
pub mod minibatches;
pub mod objective;
pub mod polyak;
pub mod ppo;
pub mod reinforce;
pub mod rewards;
pub mod sac;
pub mod surrogate;
pub mod target;
pub mod trpo;

use candle_core::Tensor;
use impresario_common::config::{AlgorithmConfig, RunConfig};
use impresario_common::policy::distribution::DistributionError;
use impresario_common::policy::{PolicyError, PolicySpec, Weights};
use impresario_common::space::EnvironmentSpec;
use impresario_common::unroll::Array;

use crate::batch::Batch;
use crate::optimizer::Step;

pub use target::TargetPolicy;

/// A policy-gradient method.
pub trait Algorithm: Send {
    /// The name that `--algorithm` takes.
    fn name(&self) -> &'static str;

    /// Improves `target` on `batch`, or leaves it exactly as it was and says why.
    ///
    /// # Errors
    /// If the batch does not fit the policy.
    fn update(
        &mut self,
        target: &mut TargetPolicy,
        batch: &Batch,
        progress: Progress,
    ) -> Result<UpdateReport, TrainError>;

    /// What the method itself must remember over a restart (networks of its own, adapted coefficients).
    ///
    /// # Errors
    /// If memory runs out.
    fn state(&self) -> Result<Weights, TrainError> {
        Ok(Weights::default())
    }

    /// Goes on from what [`Self::state`] gave.
    ///
    /// # Errors
    /// If the state does not fit.
    fn load_state(&mut self, state: &Weights) -> Result<(), TrainError> {
        match state.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(PolicyError::Weights(format!("{} keeps no {name}", self.name())).into()),
        }
    }

    /// Experience that the method keeps for later updates, by name.
    fn experience(&self) -> Vec<(String, Array)> {
        vec![]
    }

    /// Goes on with what [`Self::experience`] gave.
    ///
    /// # Errors
    /// If it does not fit.
    fn load_experience(&mut self, experience: Vec<(String, Array)>) -> Result<(), TrainError> {
        match experience.first() {
            None => Ok(()),
            Some((name, _)) => Err(TrainError::Checkpoint(format!("{} keeps no {name}", self.name()))),
        }
    }
}

/// The method that `config` asks for, for a policy of `spec` in `environment`.
///
/// # Errors
/// If the method cannot learn in such an environment, or memory runs out.
pub fn build(
    config: &RunConfig,
    environment: &EnvironmentSpec,
    spec: &PolicySpec,
) -> Result<Box<dyn Algorithm>, TrainError> {
    let name = config.algorithm.name();
    Ok(match &config.algorithm {
        AlgorithmConfig::Impala(knobs) => Box::new(impala::Impala::new(knobs, config)),
        AlgorithmConfig::A2c(knobs) | AlgorithmConfig::A3c(knobs) => {
            Box::new(actor_critic::ActorCritic::new(name, knobs, config))
        }
        AlgorithmConfig::Ppo(knobs) => Box::new(ppo::Ppo::new(knobs, config)),
        AlgorithmConfig::Appo(knobs) => Box::new(appo::Appo::new(knobs, config)),
        AlgorithmConfig::Reinforce(knobs) => {
            reinforce::Reinforce::warn_of_short_unrolls(config, environment);
            Box::new(reinforce::Reinforce::new(knobs, config))
        }
        AlgorithmConfig::Trpo(knobs) => Box::new(trpo::Trpo::new(config, knobs)?),
        AlgorithmConfig::Sac(knobs) => Box::new(sac::Sac::new(config, knobs, environment, spec)?),
    })
}

/// An update that is one step of the optimiser: against what `loss` gives, as a number and in the graph of the
/// parameters; it gives nothing where there is nothing to learn. If the step is skipped, every weight is as before.
fn one_step(
    target: &mut TargetPolicy,
    progress: Progress,
    loss: impl FnOnce(&TargetPolicy, &mut Metrics) -> Result<Option<(f64, Tensor)>, TrainError>,
) -> Result<UpdateReport, TrainError> {
    let values = target.save_values()?;
    let mut metrics = Metrics::default();
    let Some((loss, objective)) = loss(target, &mut metrics)? else {
        return Ok(UpdateReport { outcome: Outcome::Applied, metrics });
    };
    let report = descend(target, loss, &objective, progress, metrics)?;
    if let Outcome::Skipped { .. } = report.outcome {
        target.forget_values(&values)?;
    }
    Ok(report)
}

/// Takes a step of the optimiser against `objective`, whose value is `loss`, unless that is not finite.
fn descend(
    target: &mut TargetPolicy,
    loss: f64,
    objective: &Tensor,
    progress: Progress,
    mut metrics: Metrics,
) -> Result<UpdateReport, TrainError> {
    if !(loss as f32).is_finite() {
        return Ok(UpdateReport { outcome: Outcome::Skipped { reason: SkipReason::Loss(loss) }, metrics });
    }
    let step = target.minimise(objective, progress)?;
    let (Step::Applied { grad_norm } | Step::Refused { grad_norm }) = step;
    metrics.push("grad_norm", grad_norm);
    metrics.push("learning_rate", target.learning_rate(progress));
    Ok(UpdateReport { outcome: step.into(), metrics })
}

/// How far the run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Environment steps trained on before this update.
    pub env_steps: u64,
    /// The target policy's version before this update.
    pub version: u64,
}

/// What an update did.
#[derive(Debug, Clone, PartialEq)]
pub struct UpdateReport {
    /// Whether the weights changed.
    pub outcome: Outcome,
    /// Names and values; see the module's table.
    pub metrics: Metrics,
}

/// Whether an update changed the weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Outcome {
    /// There is a new version of the policy.
    Applied,
    /// The batch is kept for later updates; every weight is as before.
    Kept,
    /// Every weight is as before.
    Skipped {
        /// Why.
        reason: SkipReason,
    },
}

impl From<Step> for Outcome {
    fn from(step: Step) -> Self {
        match step {
            Step::Applied { .. } => Self::Applied,
            Step::Refused { grad_norm } => Self::Skipped { reason: SkipReason::Gradient(grad_norm) },
        }
    }
}

/// Why an update was skipped.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SkipReason {
    /// The loss, which is not finite.
    Loss(f64),
    /// The gradient's global norm, which is not finite or too large to square.
    Gradient(f64),
}

impl std::fmt::Display for SkipReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Loss(loss) => write!(f, "the loss is {loss}"),
            Self::Gradient(norm) => write!(f, "the norm of the gradient is {norm}"),
        }
    }
}

/// Named measurements of one update, all of them finite.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metrics(Vec<(&'static str, f32)>);

impl Metrics {
    /// Adds a measurement, unless it is not finite.
    pub fn push(&mut self, name: &'static str, value: f64) {
        if (value as f32).is_finite() {
            self.0.push((name, value as f32));
        }
    }

    /// The measurement called `name`.
    pub fn get(&self, name: &str) -> Option<f32> {
        self.0.iter().find_map(|(n, value)| (*n == name).then_some(*value))
    }

    /// Names and values.
    pub fn as_slice(&self) -> &[(&'static str, f32)] {
        &self.0
    }

    /// Names and values.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&'static str, f32)> {
        self.0.iter().copied()
    }
}

/// Training that cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// Too many updates in a row were skipped.
    #[error(
        "{skipped} updates in a row were skipped, the last one because {reason}: the policy has diverged or its \
         experience is corrupt. Resume from the last checkpoint with a smaller optimizer.learning_rate or \
         optimizer.max_grad_norm, or scale rewards down; the skipped batches are in the run directory"
    )]
    NotFinite {
        /// How many.
        skipped: u32,
        /// Why the last one was.
        reason: SkipReason,
    },
    /// Experience or weights do not fit the policy.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// Actions do not fit the policy.
    #[error(transparent)]
    Distribution(#[from] DistributionError),
    /// A checkpoint of another run.
    #[error("the checkpoint is of another run: {0}")]
    Checkpoint(String),
}

impl From<candle_core::Error> for TrainError {
    fn from(error: candle_core::Error) -> Self {
        Self::Policy(PolicyError::Tensor(error))
    }
}
