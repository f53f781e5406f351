//! SAC: soft actor-critic (Haarnoja et al. 2018, <https://arxiv.org/abs/1812.05905>).
//!
//! Off-policy: steps go into a replay buffer, from which every gradient step draws a batch `(x, a, r, x')`. Two
//! critics estimate the return plus the entropy that is yet to come; of their slow copies the smaller counts,
//! against overestimation. With the policy's action `a'` at `x'`:
//!
//! ```text
//! y       = r + gamma (min(Q1', Q2')(x', a') - alpha ln pi(a'|x'))       no bootstrap where terminated
//! critics : 0.5 mean((Q(x, a) - y)^2) each
//! policy  : mean(alpha ln pi(a|x) - min(Q1, Q2)(x, a)),  a drawn anew with reparameterisation
//! alpha   : -ln(alpha) (mean ln pi(a|x) + target entropy)
//! ```
//!
//! For discrete actions, of one choice or several, the critics estimate every combination of choices, and expectations are
//! sums over the legal ones.
//!
//! # Layout
//!
//! * [`replay`]: the buffer. * [`critic`]: the estimates. * [`continuous`], [`discrete`]: the losses' arithmetic.
//! * here: a gradient step, and how many of them a batch is worth.
//!
//! A version of the policy is all gradient steps that a batch is worth. The replay buffer is part of a checkpoint with
//! `report.checkpoint_replay`; otherwise a resumed run fills it anew to `learning_starts` before it goes on learning.

pub mod continuous;
pub mod critic;
pub mod discrete;
pub mod replay;

use candle_core::{Device, Tensor, Var};
use impresario_common::config::{OptimizerSection, RunConfig, SacConfig};
use impresario_common::kernels::with_slice;
use impresario_common::policy::{PolicyError, PolicySpec, Weights};
use impresario_common::random::{self, Purpose, Stream};
use impresario_common::space::{EnvironmentSpec, Space};
use impresario_common::unroll::Array;

use super::objective::{known_gradient, known_gradients};
use super::{
    Algorithm, Metrics, Outcome, Progress, SkipReason, TargetPolicy, TrainError, UpdateReport, polyak,
};
use crate::batch::Batch;
use crate::device;
use crate::optimizer::{Optimizer, OptimizerState, Step};
use crate::parameters::Parameters;
use crate::schedule::Scheduled;
use critic::{Critic, CriticSpec};
use discrete::Joint;
use replay::{Replay, Sample};

/// Names of the twin critics.
const TWINS: [&str; 2] = ["critic.0", "critic.1"];

/// Name of the logarithm of the entropy temperature.
const LOG_ALPHA: &str = "log_alpha";

/// Level of the learner's streams that tells SAC's apart.
const STREAM: u32 = 1;

/// Most joint actions that the critics estimate.
const MAX_JOINT_ACTIONS: usize = 4096;

/// What actions are.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// So many real numbers, squashed into (-1, 1).
    Continuous(usize),
    /// One choice or several.
    Discrete(Joint),
}

/// The method, with its critics and its replay buffer.
#[derive(Debug)]
pub struct Sac {
    config: SacConfig,
    seed: u64,
    kind: Kind,
    replay: Replay,
    critics: Learned,
    critic: CriticSpec,
    /// The critics over their variables, and over the slow copies of them.
    twins: [Critic; 2],
    slow_twins: [Critic; 2],
    slow: Weights,
    log_alpha: Learned,
    /// For continuous actions the entropy aimed at, for discrete ones its share of the greatest.
    target_entropy: f32,
    /// Gradient steps owed, fractions of one included.
    due: f64,
}

/// Parameters with an optimiser of their own.
#[derive(Debug)]
struct Learned {
    parameters: Parameters,
    optimizer: Optimizer,
    learning_rate: Scheduled,
}

impl Learned {
    fn new(weights: &Weights, section: &OptimizerSection, steps: u64) -> Result<Self, PolicyError> {
        let parameters = Parameters::new(weights)?;
        Ok(Self {
            optimizer: Optimizer::new(section, &parameters),
            learning_rate: Scheduled::new(section.learning_rate, section.schedule, steps),
            parameters,
        })
    }

    /// A step against the gradient of `loss`.
    fn minimise(&mut self, loss: &Tensor, progress: Progress) -> Result<Step, TrainError> {
        let learning_rate = self.learning_rate.at(progress.env_steps);
        Ok(self.optimizer.step(&loss.backward()?, learning_rate)?)
    }

    /// Adds parameters and optimiser to `state`, under `name`.
    fn save(&self, name: &str, state: &mut Weights) -> Result<(), PolicyError> {
        let optimizer = self.optimizer.state()?;
        let tensors = self.parameters.copied()?.0.into_iter().chain(optimizer.moments.0);
        state.0.extend(tensors.map(|(key, tensor)| (format!("{name}/{key}"), tensor)));
        state.0.push((format!("{name}/steps"), count_to_tensor(optimizer.steps)?));
        Ok(())
    }

    /// Goes on from what [`Self::save`] gave.
    fn load(&mut self, name: &str, state: &Weights) -> Result<(), PolicyError> {
        let mut weights = Weights::default();
        for (key, var) in self.parameters.iter() {
            weights.0.push((key.to_owned(), state.get(&format!("{name}/{key}"), var.dims())?));
        }
        let prefix = format!("{name}/");
        let rest = state.0.iter().filter_map(|(key, tensor)| {
            key.strip_prefix(&prefix).map(|key| (key.to_owned(), tensor.clone()))
        });
        let steps = tensor_to_count(&state.get(&format!("{name}/steps"), &[4])?)?;
        self.optimizer.load_state(&OptimizerState { steps, moments: Weights(rest.collect()) })?;
        self.parameters.load(&weights)
    }
}

/// Sums of what each gradient step measures.
#[derive(Debug, Default)]
struct Sums {
    critic_loss: f64,
    policy_loss: f64,
    alpha_loss: f64,
    q: f64,
    entropy: f64,
    grad_norm: f64,
    critic_grad_norm: f64,
}

impl Sac {
    /// The method for a policy of `spec` in `environment`.
    ///
    /// # Errors
    /// If the actions are choices with too many combinations, or real numbers that are not squashed.
    pub fn new(
        run: &RunConfig,
        config: &SacConfig,
        environment: &EnvironmentSpec,
        spec: &PolicySpec,
    ) -> Result<Self, TrainError> {
        let refuse = |why: &str| TrainError::Policy(PolicyError::Space(format!("sac: {why}")));
        let kind = match &environment.action {
            Space::Box { .. } if run.policy.squash => Kind::Continuous(environment.action.len()),
            Space::Box { .. } => {
                return Err(refuse("continuous actions must be squashed: set policy.squash = true"));
            }
            choices => Kind::Discrete(Joint::new(choices.choices())),
        };
        let (actions, outputs) = match &kind {
            Kind::Continuous(dimensions) => (*dimensions, 1),
            Kind::Discrete(joint) if joint.count() <= MAX_JOINT_ACTIONS => (0, joint.count()),
            Kind::Discrete(_) => {
                return Err(refuse(&format!(
                    "the critics estimate every combination of choices, of which {} has more than {MAX_JOINT_ACTIONS}; \
                     use another method",
                    environment.action
                )));
            }
        };
        let critic = CriticSpec::new(spec.encoder(), &run.policy, config, actions, outputs);
        let mut weights = Weights::default();
        for (twin, name) in TWINS.iter().enumerate() {
            let mut random = random::stream(run.run.seed, Purpose::Parameters, [STREAM, twin as u32, 0]);
            weights.0.extend(critic.initialise(name, &mut random)?.0);
        }
        let section = |learning_rate| OptimizerSection { learning_rate, ..run.optimizer.clone() };
        let device = device::open(run.learner.device)?;
        let critics =
            Learned::new(&weights.on(&device)?, &section(config.critic_learning_rate), run.run.steps)?;
        let slow = critics.parameters.copied()?.on(&device)?;
        let log_alpha = Tensor::new(&[config.initial_alpha.ln()], &Device::Cpu)?;
        let log_alpha = Weights(vec![(LOG_ALPHA.into(), log_alpha)]);
        let usual = match &kind {
            Kind::Continuous(dimensions) => -(*dimensions as f32),
            Kind::Discrete(_) => 0.5,
        };
        let seen = environment.stacked(run.environment.frame_stack).map_err(PolicyError::from)?;
        Ok(Self {
            seed: run.run.seed,
            kind,
            replay: Replay::new(config.replay_capacity, &seen),
            twins: twins(&critic, &critics.parameters.shared())?,
            slow_twins: twins(&critic, &slow)?,
            slow,
            critics,
            critic,
            log_alpha: Learned::new(&log_alpha, &section(config.alpha_learning_rate), run.run.steps)?,
            target_entropy: usual * config.target_entropy_scale,
            due: 0.0,
            config: config.clone(),
        })
    }

    /// The entropy temperature.
    fn alpha(&self) -> Result<f32, TrainError> {
        let shared = self.log_alpha.parameters.shared();
        Ok(shared.get(LOG_ALPHA, &[1])?.to_vec1::<f32>()?[0].exp())
    }

    /// One gradient step of everything on a draw from the replay; says why if a loss or gradient is not finite.
    fn gradient_step(
        &mut self,
        target: &mut TargetPolicy,
        random: &mut Stream,
        progress: Progress,
        sums: &mut Sums,
    ) -> Result<Option<SkipReason>, TrainError> {
        let sample = self.replay.sample(self.config.replay_batch, random);
        let alpha = self.alpha()?;

        let rows = sample.rewards.len();
        let next = target.input(&sample.next_observations)?;
        let params =
            legal(target, target.distribution(&sample.next_observations)?.detach(), &sample.next_masks)?;
        let targets = self.targets(&sample, &next, &params, alpha, &self.noise(rows, random))?;
        let input = target.input(&sample.observations)?;
        let (loss, objective, mean_q) = self.critic_loss(&input, &sample.actions, &targets)?;
        if !(loss as f32).is_finite() {
            return Ok(Some(SkipReason::Loss(loss)));
        }
        match self.critics.minimise(&objective, progress)? {
            Step::Refused { grad_norm } => return Ok(Some(SkipReason::Gradient(grad_norm))),
            Step::Applied { grad_norm } => sums.critic_grad_norm += grad_norm,
        }
        sums.critic_loss += loss;
        sums.q += mean_q;

        let params = legal(target, target.distribution(&sample.observations)?, &sample.masks)?;
        let noise = self.noise(rows, random);
        let (loss, gradient, entropy) = self.policy_loss(&input, &params, alpha, &noise)?;
        if !(loss as f32).is_finite() {
            return Ok(Some(SkipReason::Loss(loss)));
        }
        match target.minimise(&known_gradient(loss, &params, gradient)?, progress)? {
            Step::Refused { grad_norm } => return Ok(Some(SkipReason::Gradient(grad_norm))),
            Step::Applied { grad_norm } => sums.grad_norm += grad_norm,
        }
        sums.policy_loss += loss;
        sums.entropy += entropy;

        if self.config.alpha_learning_rate > 0.0 {
            // Less entropy than aimed at raises the temperature.
            let gradient = (entropy - self.entropy_aimed_at(rows, &sample.masks)) as f32;
            let var = self.log_alpha.parameters.shared().get(LOG_ALPHA, &[1])?;
            let loss = f64::from(alpha.ln()) * f64::from(gradient);
            let objective = known_gradient(loss, &var, vec![gradient])?;
            if let Step::Refused { grad_norm } = self.log_alpha.minimise(&objective, progress)? {
                return Ok(Some(SkipReason::Gradient(grad_norm)));
            }
            sums.alpha_loss += loss;
        }
        polyak::follow(&self.slow, &self.critics.parameters, self.config.tau)?;
        Ok(None)
    }

    /// Entropy aimed at, the mean over `rows` rows with `masks` of legal actions, if there are any.
    fn entropy_aimed_at(&self, rows: usize, masks: &[u8]) -> f64 {
        let scale = f64::from(self.target_entropy);
        match &self.kind {
            Kind::Continuous(_) => scale,
            Kind::Discrete(joint) if masks.is_empty() => {
                scale * f64::from(joint.greatest_entropy(&vec![1; joint.logits()]))
            }
            Kind::Discrete(joint) => {
                let masks = masks.chunks_exact(joint.logits());
                scale * masks.map(|mask| f64::from(joint.greatest_entropy(mask))).sum::<f64>() / rows as f64
            }
        }
    }

    /// Standard normal numbers for the actions of `rows` rows; discrete actions are not drawn.
    fn noise(&self, rows: usize, random: &mut Stream) -> Vec<f32> {
        let count = match &self.kind {
            Kind::Continuous(dimensions) => rows * dimensions,
            Kind::Discrete(_) => 0,
        };
        (0..count).map(|_| random::normal(random) as f32).collect()
    }

    /// `[N]`: what the critics should have said of the transitions drawn, given what they led to: the
    /// network's input `[N, I]`, the policy's parameters `[N, P]`, and noise for the actions there.
    fn targets(
        &self,
        sample: &Sample,
        input: &Tensor,
        params: &Tensor,
        alpha: f32,
        noise: &[f32],
    ) -> Result<Vec<f32>, TrainError> {
        let rows = sample.rewards.len();
        let values = match self.kind {
            Kind::Continuous(dimensions) => {
                let drawn = with_slice(params, |params: &[f32]| continuous::draw(dimensions, params, noise))?;
                let actions = Tensor::from_slice(&drawn.actions, (rows, dimensions), input.device())?;
                let q = smaller(&self.slow_twins, input, Some(&actions))?;
                q.iter().zip(&drawn.log_probs).map(|(q, log_prob)| q - alpha * log_prob).collect::<Vec<_>>()
            }
            Kind::Discrete(ref joint) => {
                let q = smaller(&self.slow_twins, input, None)?;
                with_slice(params, |logits: &[f32]| joint.soft(logits, &q, alpha).values)?
            }
        };
        let (gamma, scale) = (self.config.gamma, self.config.reward_scale);
        let steps = sample.rewards.iter().zip(&sample.terminated).zip(values);
        let bootstrap = |(terminated, value)| if terminated == 0 { gamma * value } else { 0.0 };
        Ok(steps.map(|((reward, &end), value)| scale * reward + bootstrap((end, value))).collect())
    }

    /// Half the mean squared error of both critics together, as a number and in the graph; and the mean estimate.
    fn critic_loss(
        &self,
        input: &Tensor,
        actions: &Array,
        targets: &[f32],
    ) -> Result<(f64, Tensor, f64), TrainError> {
        let rows = targets.len();
        let (actions, width, taken) = match (&self.kind, actions) {
            (Kind::Continuous(dimensions), Array::F32(actions)) => {
                let squashed = actions.iter().map(|u| u.tanh()).collect::<Vec<_>>();
                let squashed = Tensor::from_vec(squashed, (rows, *dimensions), input.device())?;
                (Some(squashed), 1, vec![0; rows])
            }
            (Kind::Discrete(joint), Array::I32(actions)) => {
                let taken = actions.chunks_exact(actions.len() / rows).map(|choices| joint.number(choices));
                (None, joint.count(), taken.collect())
            }
            _ => return Err(PolicyError::Space("actions of another type than the policy's".into()).into()),
        };
        let mut loss = 0.0;
        let mut mean_q = 0.0;
        let mut of = |critic: &Critic| -> Result<(Tensor, Vec<f32>), TrainError> {
            let q = critic.forward(input, actions.as_ref())?;
            let mut gradient = vec![0.0; rows * width];
            with_slice(&q, |q: &[f32]| {
                for (row, (target, taken)) in targets.iter().zip(&taken).enumerate() {
                    let at = row * width + taken;
                    let error = q[at] - target;
                    loss += 0.5 * f64::from(error).powi(2);
                    mean_q += f64::from(q[at]);
                    gradient[at] = error / rows as f32;
                }
            })?;
            Ok((q, gradient))
        };
        let (first, second) = (of(&self.twins[0])?, of(&self.twins[1])?);
        loss /= rows as f64;
        let objective = known_gradients(loss, (&first.0, first.1), (&second.0, second.1))?;
        Ok((loss, objective, mean_q / (2 * rows) as f64))
    }

    /// The policy's loss, its gradient with respect to `params`, and the policy's mean entropy.
    fn policy_loss(
        &self,
        input: &Tensor,
        params: &Tensor,
        alpha: f32,
        noise: &[f32],
    ) -> Result<(f64, Vec<f32>, f64), TrainError> {
        let rows = params.dim(0)?;
        let constant = self.critics.parameters.shared().0.into_iter();
        let constant = Weights(constant.map(|(name, tensor)| (name, tensor.detach())).collect());
        let critics = twins(&self.critic, &constant)?;
        let mean = |values: &[f32]| values.iter().map(|v| f64::from(*v)).sum::<f64>() / rows as f64;
        match self.kind {
            Kind::Continuous(dimensions) => {
                let drawn = with_slice(params, |params: &[f32]| continuous::draw(dimensions, params, noise))?;
                let actions = Tensor::from_slice(&drawn.actions, (rows, dimensions), input.device())?;
                let actions = Var::from_tensor(&actions)?;
                let (q, objective) = sum_of_smaller(&critics, input, actions.as_tensor())?;
                let gradients = objective.backward()?;
                let d_q = gradients.get(&actions).ok_or_else(|| {
                    PolicyError::Weights("the critics' estimates do not depend on the actions".into())
                })?;
                let (loss, gradient) = with_slice(&d_q.contiguous()?, |d_q: &[f32]| {
                    continuous::policy_objective(&drawn, &q, d_q, alpha)
                })?;
                Ok((loss, gradient, -mean(&drawn.log_probs)))
            }
            Kind::Discrete(ref joint) => {
                let q = smaller(&critics, input, None)?;
                let soft = with_slice(params, |logits: &[f32]| joint.soft(logits, &q, alpha))?;
                Ok((-mean(&soft.values), soft.d_logits, mean(&soft.entropies)))
            }
        }
    }
}

/// Distribution parameters `[N, P]` in which the actions that `masks` forbid are impossible; no masks forbid nothing.
fn legal(target: &TargetPolicy, params: Tensor, masks: &[u8]) -> Result<Tensor, TrainError> {
    if masks.is_empty() {
        return Ok(params);
    }
    Ok(target.action_distribution().masked(&params, masks)?)
}

/// The twin critics over `weights`.
fn twins(spec: &CriticSpec, weights: &Weights) -> Result<[Critic; 2], PolicyError> {
    let [first, second] = TWINS.map(|name| Critic::new(spec, name, weights));
    Ok([first?, second?])
}

/// The smaller of the critics' estimates, flat.
fn smaller(critics: &[Critic; 2], input: &Tensor, actions: Option<&Tensor>) -> Result<Vec<f32>, TrainError> {
    let (first, second) = (critics[0].forward(input, actions)?, critics[1].forward(input, actions)?);
    Ok(with_slice(&first, |first: &[f32]| {
        with_slice(&second, |second: &[f32]| first.iter().zip(second).map(|(a, b)| a.min(*b)).collect())
    })??)
}

/// The smaller of the critics' estimates, `[N]`, and their sum in the graph of `actions`.
fn sum_of_smaller(
    critics: &[Critic; 2],
    input: &Tensor,
    actions: &Tensor,
) -> Result<(Vec<f32>, Tensor), TrainError> {
    let (first, second) =
        (critics[0].forward(input, Some(actions))?, critics[1].forward(input, Some(actions))?);
    let (q, chosen) = with_slice(&first, |first: &[f32]| {
        with_slice(&second, |second: &[f32]| {
            let pairs = || first.iter().zip(second);
            let q: Vec<f32> = pairs().map(|(a, b)| a.min(*b)).collect();
            (q, pairs().map(|(a, b)| f32::from(u8::from(a <= b))).collect::<Vec<_>>())
        })
    })??;
    let others = chosen.iter().map(|chosen| 1.0 - chosen).collect();
    let sum = q.iter().map(|q| f64::from(*q)).sum();
    let objective = known_gradients(sum, (&first, chosen), (&second, others))?;
    Ok((q, objective))
}

impl Algorithm for Sac {
    fn name(&self) -> &'static str {
        "sac"
    }

    fn update(
        &mut self,
        target: &mut TargetPolicy,
        batch: &Batch,
        progress: Progress,
    ) -> Result<UpdateReport, TrainError> {
        let mut metrics = Metrics::default();
        self.replay.extend(batch);
        metrics.push("replay", self.replay.len() as f64);
        if self.replay.len() < self.config.learning_starts {
            return Ok(UpdateReport { outcome: Outcome::Kept, metrics });
        }
        self.due += batch.steps() as f64 * self.config.updates_per_step;
        let steps = self.due.floor();
        if steps < 1.0 {
            return Ok(UpdateReport { outcome: Outcome::Kept, metrics });
        }
        self.due -= steps;
        let before = (target.save()?, self.state()?);
        let path = [STREAM, progress.version as u32, (progress.version >> 32) as u32];
        let mut random = random::stream(self.seed, Purpose::Learner, path);
        let mut sums = Sums::default();
        for _ in 0..steps as u64 {
            if let Some(reason) = self.gradient_step(target, &mut random, progress, &mut sums)? {
                target.go_back(&before.0)?;
                self.load_state(&before.1)?;
                return Ok(UpdateReport { outcome: Outcome::Skipped { reason }, metrics });
            }
        }
        metrics.push("loss", (sums.critic_loss + sums.policy_loss) / steps);
        metrics.push("critic_loss", sums.critic_loss / steps);
        metrics.push("policy_loss", sums.policy_loss / steps);
        metrics.push("alpha_loss", sums.alpha_loss / steps);
        metrics.push("alpha", self.alpha()?.into());
        metrics.push("mean_q", sums.q / steps);
        metrics.push("entropy", sums.entropy / steps);
        metrics.push("grad_norm", sums.grad_norm / steps);
        metrics.push("critic_grad_norm", sums.critic_grad_norm / steps);
        metrics.push("gradient_steps", steps);
        metrics.push("learning_rate", target.learning_rate(progress));
        Ok(UpdateReport { outcome: Outcome::Applied, metrics })
    }

    fn state(&self) -> Result<Weights, TrainError> {
        let mut state = Weights::default();
        self.critics.save("critics", &mut state)?;
        self.log_alpha.save("alpha", &mut state)?;
        let slow = self.slow.copied()?.0.into_iter();
        state.0.extend(slow.map(|(name, tensor)| (format!("slow/{name}"), tensor)));
        state.0.push(("due".into(), count_to_tensor(self.due.to_bits())?));
        Ok(state)
    }

    fn load_state(&mut self, state: &Weights) -> Result<(), TrainError> {
        let due = f64::from_bits(tensor_to_count(&state.get("due", &[4])?)?);
        let mut slow = Vec::with_capacity(self.slow.0.len());
        for (name, tensor) in &self.slow.0 {
            slow.push((name.clone(), state.get(&format!("slow/{name}"), tensor.dims())?));
        }
        self.critics.load("critics", state)?;
        self.log_alpha.load("alpha", state)?;
        polyak::follow(&self.slow, &Parameters::new(&Weights(slow))?, 1.0)?;
        self.due = due;
        Ok(())
    }

    fn experience(&self) -> Vec<(String, Array)> {
        self.replay.save()
    }

    fn load_experience(&mut self, experience: Vec<(String, Array)>) -> Result<(), TrainError> {
        self.replay.load(experience).map_err(TrainError::Checkpoint)
    }
}

/// A count as four numbers of 16 bits, which `f32` holds exactly.
fn count_to_tensor(count: u64) -> Result<Tensor, PolicyError> {
    let parts = [0, 16, 32, 48].map(|shift| (count >> shift & 0xffff) as f32);
    Ok(Tensor::new(&parts, &Device::Cpu)?)
}

fn tensor_to_count(tensor: &Tensor) -> Result<u64, PolicyError> {
    let parts = tensor.to_vec1::<f32>()?;
    Ok(parts.iter().rev().fold(0, |count, part| count << 16 | *part as u64))
}

#[cfg(test)]
mod tests;
