//! The trainer learns, without a network in between: small environments are stepped right here.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use candle_core::{Device, Tensor};
use impresario_common::config::{AlgorithmConfig, ImpalaConfig, RunConfig};
use impresario_common::policy::distribution::{ActionDistribution, ActionMut};
use impresario_common::policy::{Policy, PolicySpec};
use impresario_common::random::{self, Purpose, Stream};
use impresario_common::space::{EnvironmentSpec, Space};
use impresario_common::unroll::Array;
use impresario_learner::batch::Batch;
use impresario_learner::trainer::Trainer;
use rand::RngExt;

/// Steps of a column, and columns.
const T: usize = 16;
const B: usize = 16;

/// One copy of an environment with a numbered observation.
trait Copy {
    const OBSERVATIONS: u32;
    const ACTIONS: u32;
    fn reset(random: &mut Stream) -> Self;
    fn observe(&self) -> i32;
    /// Flags of the legal actions; none where all are.
    fn legal(&self) -> Vec<u8> {
        vec![]
    }
    /// Reward, terminated, truncated.
    fn step(&mut self, action: i32) -> (f32, bool, bool);
}

/// Each of five contexts pays for one action of three.
struct Bandit(i32);

impl Copy for Bandit {
    const OBSERVATIONS: u32 = 5;
    const ACTIONS: u32 = 3;
    fn reset(random: &mut Stream) -> Self {
        Self(random.random_range(0..5))
    }
    fn observe(&self) -> i32 {
        self.0
    }
    fn step(&mut self, action: i32) -> (f32, bool, bool) {
        (f32::from(u8::from(action == self.0 % 3)), true, false)
    }
}

/// Eight cells in a row: every step costs 0.1, the last cell ends the episode. After 30 steps it is cut.
struct Corridor {
    cell: i32,
    steps: u32,
}

impl Copy for Corridor {
    const OBSERVATIONS: u32 = 8;
    const ACTIONS: u32 = 2;
    fn reset(_: &mut Stream) -> Self {
        Self { cell: 0, steps: 0 }
    }
    fn observe(&self) -> i32 {
        self.cell
    }
    fn step(&mut self, action: i32) -> (f32, bool, bool) {
        self.cell = (self.cell + 2 * action - 1).max(0);
        self.steps += 1;
        (-0.1, self.cell == 7, self.steps == 30)
    }
}

/// A bandit of five contexts in which two of four actions are legal. One of these pays 1; illegal ones would pay more.
struct Gates(i32);

impl Copy for Gates {
    const OBSERVATIONS: u32 = 5;
    const ACTIONS: u32 = 4;
    fn reset(random: &mut Stream) -> Self {
        Self(random.random_range(0..5))
    }
    fn observe(&self) -> i32 {
        self.0
    }
    fn legal(&self) -> Vec<u8> {
        (0..4).map(|action| u8::from((action + self.0) % 4 < 2)).collect()
    }
    fn step(&mut self, action: i32) -> (f32, bool, bool) {
        let gate = (action + self.0) % 4;
        assert!(gate < 2, "action {action} is illegal in context {}", self.0);
        (f32::from(u8::from(gate == 1)), true, false)
    }
}

/// Trains for `updates` updates; returns the mean return of the episodes that ended in the last ten.
fn mean_return<E: Copy>(config: &RunConfig, updates: u64) -> f32 {
    let environment = EnvironmentSpec::new(
        "Here-v0",
        Space::Discrete { n: E::OBSERVATIONS },
        Space::Discrete { n: E::ACTIONS },
    );
    let spec = PolicySpec::new(&environment, &config.policy).unwrap();
    let mut trainer = Trainer::new(config, &environment).unwrap();
    let mut worlds = random::stream(config.run.seed, Purpose::Environment, [0; 3]);
    let mut streams: Vec<Stream> =
        (0..B as u32).map(|b| random::stream(config.run.seed, Purpose::Actions, [0, 0, b])).collect();
    let mut copies: Vec<(E, f32)> = (0..B).map(|_| (E::reset(&mut worlds), 0.0)).collect();
    let mut returns = vec![];
    for update in 0..updates {
        if update + 10 == updates {
            returns.clear();
        }
        let policy = Policy::new(&spec, &trainer.snapshot().unwrap().weights).unwrap();
        let batch =
            unroll(&policy, spec.distribution(), &mut copies, &mut streams, &mut worlds, &mut returns);
        trainer.train(&batch, update * batch.steps() as u64).unwrap();
    }
    returns.iter().sum::<f32>() / returns.len() as f32
}

fn unroll<E: Copy>(
    policy: &Policy,
    distribution: &ActionDistribution,
    copies: &mut [(E, f32)],
    streams: &mut [Stream],
    worlds: &mut Stream,
    returns: &mut Vec<f32>,
) -> Batch {
    let (mut observations, mut finals, mut actions) = (vec![], vec![], vec![0; T * B]);
    let mut batch = Batch {
        length: T,
        columns: B,
        observations: Array::I32(vec![]),
        frame_stack: 1,
        history: Array::I32(vec![]),
        actions: Array::I32(vec![]),
        rewards: vec![],
        terminated: vec![],
        truncated: vec![],
        behaviour_log_probs: vec![0.0; T * B],
        final_steps: vec![],
        action_masks: vec![],
        core_states: vec![],
        policy_versions: vec![0; B],
    };
    for t in 0..T {
        let row: Vec<i32> = copies.iter().map(|(copy, _)| copy.observe()).collect();
        observations.extend(&row);
        let params = policy.distribution(&Tensor::from_vec(row, B, &Device::Cpu).unwrap()).unwrap();
        let mut params = params.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let legal: Vec<u8> = copies.iter().flat_map(|(copy, _)| copy.legal()).collect();
        if !legal.is_empty() {
            distribution.mask(&mut params, &legal).unwrap();
            batch.action_masks.extend(legal);
        }
        let range = t * B..(t + 1) * B;
        let sampled = ActionMut::Discrete(&mut actions[range.clone()]);
        distribution.sample_batch(&params, streams, sampled, &mut batch.behaviour_log_probs[range.clone()]);
        for ((copy, so_far), step) in copies.iter_mut().zip(range) {
            let (reward, terminated, truncated) = copy.step(actions[step]);
            *so_far += reward;
            batch.rewards.push(reward);
            batch.terminated.push(terminated.into());
            batch.truncated.push(truncated.into());
            if truncated && !terminated {
                batch.final_steps.push(step);
                finals.push(copy.observe());
            }
            if truncated || terminated {
                returns.push(std::mem::take(so_far));
                *copy = E::reset(worlds);
            }
        }
    }
    observations.extend(copies.iter().map(|(copy, _)| copy.observe()));
    observations.extend(finals);
    batch.observations = Array::I32(observations);
    batch.actions = Array::I32(actions);
    batch
}

fn config() -> RunConfig {
    let mut config = RunConfig::default();
    config.policy.hidden = vec![32].into();
    // Tiny problems of their own, whatever the defaults are tuned for.
    config.optimizer.learning_rate = 5e-3;
    config.optimizer.epsilon = 1e-5;
    config.algorithm = AlgorithmConfig::Impala(ImpalaConfig { reward_scale: 1.0, ..ImpalaConfig::default() });
    config
}

#[test]
fn impala_solves_a_contextual_bandit() {
    let mean = mean_return::<Bandit>(&config(), 150);
    assert!(mean > 0.95, "the mean reward is {mean}, of 1");
}

#[test]
fn impala_walks_down_a_corridor() {
    let mean = mean_return::<Corridor>(&config(), 200);
    assert!(mean > -0.8, "the mean return is {mean}, of -0.7");
}

#[test]
fn impala_learns_among_the_legal_actions_alone() {
    let mean = mean_return::<Gates>(&config(), 150);
    assert!(mean > 0.95, "the mean reward is {mean}, of 1");
}

#[test]
fn with_rewards_in_the_thousands_impala_walks_down_a_corridor_if_values_are_normalised() {
    let mut config = config();
    let rewards = ImpalaConfig { reward_scale: 1000.0, ..ImpalaConfig::default() };
    config.algorithm = AlgorithmConfig::Impala(rewards);
    config.policy.normalize_values = true;
    let mean = mean_return::<Corridor>(&config, 200);
    assert!(mean > -0.8, "the mean return is {mean}, of -0.7");
}
