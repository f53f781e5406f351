//! Every method learns: short seeded runs of the real environments, actor's sampler and trainer in one thread, without a
//! network in between. Each batch is acted with the newest weights, so that a run is the same on every machine of one
//! kind.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::VecDeque;
use std::sync::atomic::AtomicBool;

use impresario_actor::counters::Counters;
use impresario_actor::env::registry::Registry;
use impresario_actor::env::{Action, Environment, ObservationMut, Transition};
use impresario_actor::rollout::{ActionChoice, Sampler};
use impresario_common::config::RunConfig;
use impresario_common::policy::{Policy, PolicySpec};
use impresario_common::random::{Purpose, Stream, stream};
use impresario_common::space::{EnvironmentSpec, Space};
use impresario_common::unroll::{Unroll, UnrollLayout};
use impresario_learner::batch::Batch;
use impresario_learner::trainer::Trainer;
use rand::RngExt;

/// Episodes whose returns are averaged.
const EPISODES: usize = 50;

/// A point on a line, pushed towards 0: the observation is where it stands and an action moves it by at most 0.5. Each of 8
/// steps costs the distance; who does nothing pays 4 on average, who goes there straight about 0.5.
#[derive(Debug, Default)]
struct Point(f32);

impl Environment for Point {
    fn spec(&self) -> EnvironmentSpec {
        let action = Space::boxed(&[-1.0], &[1.0]);
        EnvironmentSpec::new("Point-v0", Space::boxed(&[-5.0], &[5.0]), action).with_max_episode_steps(8)
    }

    fn reset(&mut self, random: &mut Stream, observation: ObservationMut<'_>) {
        self.0 = random.random::<f32>() * 2.0 - 1.0;
        observation.into_f32()[0] = self.0;
    }

    fn step(&mut self, action: Action<'_>, _: &mut Stream, observation: ObservationMut<'_>) -> Transition {
        self.0 += 0.5 * action.continuous()[0].clamp(-1.0, 1.0);
        observation.into_f32()[0] = self.0;
        Transition { reward: -f64::from(self.0.abs()), terminated: false, truncated: false }
    }
}

/// The cue of the first step, -1 or 1, is to be repeated at the fourth, at which nothing is seen of it.
#[derive(Debug, Default)]
struct Recall {
    cue: f32,
    step: u32,
}

impl Recall {
    fn show(&self, observation: ObservationMut<'_>) {
        let cue = if self.step == 0 { self.cue } else { 0.0 };
        observation.into_f32().copy_from_slice(&[cue, f32::from(u8::from(self.step == 3))]);
    }
}

impl Environment for Recall {
    fn spec(&self) -> EnvironmentSpec {
        EnvironmentSpec::new("Recall-v0", Space::boxed(&[-1.0; 2], &[1.0; 2]), Space::Discrete { n: 2 })
    }

    fn reset(&mut self, random: &mut Stream, observation: ObservationMut<'_>) {
        *self = Self { cue: if random.random() { 1.0 } else { -1.0 }, step: 0 };
        self.show(observation);
    }

    fn step(&mut self, action: Action<'_>, _: &mut Stream, observation: ObservationMut<'_>) -> Transition {
        let terminated = self.step == 3;
        let right = terminated && (action.discrete()[0] == 1) == (self.cue > 0.0);
        self.step += 1;
        self.show(observation);
        Transition { reward: f64::from(u8::from(right)), terminated, truncated: false }
    }
}

/// The mean return of the last [`EPISODES`] episodes when it first reaches `goal`, or else after `run.steps` steps. `toml` is
/// the run's configuration.
fn mean_return(toml: &str, goal: f32) -> f32 {
    let config = RunConfig::from_toml(toml).unwrap();
    let (seed, columns, id) = (config.run.seed, config.learner.batch_size, &config.environment.id);
    let mut registry = Registry::native();
    registry.register(Point::default);
    registry.register(Recall::default);
    registry.register(Gates::default);
    let environment = registry.spec(id).unwrap();
    let spec = PolicySpec::of_run(&config, environment).unwrap();
    let mut trainer = Trainer::new(&config, environment).unwrap();
    let layout = UnrollLayout::of_run(&config, config.rollout.unroll_length, environment, &spec);
    let streams = |purpose| (0..columns as u32).map(|copy| stream(seed, purpose, [0, 0, copy])).collect();
    let vector = registry.make_vector(id, streams(Purpose::Environment)).unwrap();
    let (distribution, choice) = (spec.distribution().clone(), ActionChoice::Sampled);
    let mut sampler = Sampler::new(vector, distribution, &layout, streams(Purpose::Actions), choice).unwrap();
    let mut unroll = Unroll::zeros(&layout, columns);
    let (mut returns, mut env_steps) = (VecDeque::new(), 0);
    loop {
        let policy = Policy::new(&spec, &trainer.snapshot().unwrap().weights).unwrap();
        sampler.fill(&policy, &mut unroll, &Counters::default(), &AtomicBool::new(false)).unwrap();
        returns.extend(&unroll.episode_returns);
        returns.drain(..returns.len().saturating_sub(EPISODES));
        let mean = returns.iter().sum::<f32>() / returns.len() as f32;
        let reached = returns.len() == EPISODES && mean >= goal;
        if reached || env_steps >= config.run.steps {
            println!("{} in {id}: {mean} after {env_steps} steps", config.algorithm.name());
            return mean;
        }
        let batch = Batch::whole(&layout, unroll.clone());
        trainer.train(&batch, env_steps).unwrap();
        env_steps += batch.steps() as u64;
    }
}

#[track_caller]
fn reaches(goal: f32, toml: &str) {
    let mean = mean_return(toml, goal);
    assert!(mean >= goal, "the mean return is {mean}, less than {goal}");
}

/// CartPole-v1 with the method's own defaults, but for the number of steps. A policy that has learnt nothing stands for 20.
fn stands(method: &str, steps: u64) {
    let task =
        format!("run.steps = {steps}\nenvironment.id = \"CartPole-v1\"\nalgorithm.name = \"{method}\"");
    reaches(150.0, &task);
}

#[test]
fn reinforce_learns_to_balance() {
    stands("reinforce", 150_000);
}

#[test]
fn a2c_learns_to_balance() {
    stands("a2c", 150_000);
}

#[test]
fn a3c_learns_to_balance() {
    stands("a3c", 150_000);
}

#[test]
fn impala_learns_to_balance() {
    stands("impala", 150_000);
}

#[test]
fn ppo_learns_to_balance() {
    stands("ppo", 60_000);
}

#[test]
fn appo_learns_to_balance() {
    stands("appo", 150_000);
}

#[test]
fn trpo_learns_to_balance() {
    stands("trpo", 150_000);
}

/// Point-v0 with a Gaussian policy: a method that needs few steps when its updates are many and small.
fn pushes(method: &str, steps: u64, more: &str) {
    reaches(
        -0.9,
        &format!(
            "run.steps = {steps}\nenvironment.id = \"Point-v0\"\nrollout.unroll_length = 16\n\
             policy.hidden = [32, 32]\n{more}\n\
             [learner]\nbatch_size = 16\n\
             [algorithm]\nname = \"{method}\"\nreward_scale = 1.0\n"
        ),
    );
}

#[test]
fn ppo_learns_where_to_push() {
    pushes("ppo", 60_000, "");
}

#[test]
fn trpo_learns_where_to_push() {
    pushes("trpo", 100_000, "");
}

#[test]
fn a2c_learns_where_to_push() {
    pushes("a2c", 200_000, "");
}

#[test]
fn impala_learns_where_to_push() {
    pushes("impala", 200_000, "");
}

#[test]
fn appo_learns_where_to_push() {
    pushes("appo", 200_000, "");
}

#[test]
fn ppo_learns_where_to_push_with_a_deviation_for_each_state() {
    pushes("ppo", 100_000, "policy.log_std = \"state\"");
}

#[test]
fn ppo_learns_where_to_push_with_noise_that_is_a_function_of_the_state() {
    pushes("ppo", 100_000, "policy.exploration = \"gsde\"\npolicy.initial_log_std = -1.0");
}

#[test]
fn ppo_learns_where_to_push_with_observations_and_values_normalised() {
    pushes("ppo", 60_000, "policy.normalize_observations = true\npolicy.normalize_values = true");
}

/// SAC with networks as small as its tasks.
fn small_sac(id: &str, steps: u64, more: &str) -> String {
    format!(
        "run.steps = {steps}\nenvironment.id = \"{id}\"\npolicy.hidden = [32, 32]\n\
         algorithm.name = \"sac\"\nalgorithm.critic_hidden = [32, 32]\nalgorithm.replay_batch = 64\n\
         algorithm.learning_starts = 200\nalgorithm.initial_alpha = 0.2\n\
         algorithm.critic_learning_rate = 3e-3\nalgorithm.alpha_learning_rate = 3e-3\n\
         optimizer.learning_rate = 3e-3\n{more}"
    )
}

#[test]
fn sac_learns_where_to_push() {
    reaches(-0.8, &small_sac("Point-v0", 6_000, ""));
}

#[test]
fn sac_learns_where_to_push_with_noise_that_is_a_function_of_the_state() {
    reaches(
        -0.8,
        &small_sac("Point-v0", 6_000, "policy.exploration = \"gsde\"\npolicy.initial_log_std = -1.0"),
    );
}

#[test]
fn discrete_sac_learns_to_balance() {
    reaches(100.0, &small_sac("CartPole-v1", 12_000, "algorithm.target_entropy_scale = 0.5"));
}

/// Masked choices with SAC: five states, in each of which two of four alternatives of the first choice are legal. The later one
/// of these pays 0.5, and so does the second choice that equals the state's parity.
#[derive(Debug, Default)]
struct Gates(i32);

impl Environment for Gates {
    fn spec(&self) -> EnvironmentSpec {
        let choices = Space::MultiDiscrete { nvec: vec![4, 2] };
        EnvironmentSpec::new("Gates-v0", Space::Discrete { n: 5 }, choices)
            .with_max_episode_steps(4)
            .with_masked_actions()
    }

    fn reset(&mut self, random: &mut Stream, observation: ObservationMut<'_>) {
        self.0 = random.random_range(0..5);
        observation.into_i32()[0] = self.0;
    }

    fn step(
        &mut self,
        action: Action<'_>,
        random: &mut Stream,
        observation: ObservationMut<'_>,
    ) -> Transition {
        let choices = action.discrete();
        let gate = (choices[0] + self.0) % 4;
        assert!(gate < 2, "gate {gate} is illegal in state {}", self.0);
        let reward = 0.5 * f64::from(gate) + 0.5 * f64::from(u8::from(choices[1] == self.0 % 2));
        self.reset(random, observation);
        Transition { reward, terminated: false, truncated: false }
    }

    fn legal_actions(&self, mask: &mut [u8]) {
        mask.fill(1);
        (0..4).for_each(|choice| mask[choice as usize] = u8::from((choice + self.0) % 4 < 2));
    }
}

#[test]
fn discrete_sac_learns_several_choices_of_which_some_are_illegal() {
    // Four steps, each of which pays at most 1 and 0.5 by chance.
    reaches(3.6, &small_sac("Gates-v0", 8_000, "algorithm.target_entropy_scale = 0.2"));
}

#[test]
fn ppo_learns_several_choices_of_which_some_are_illegal() {
    let task = "run.steps = 40_000\nenvironment.id = \"Gates-v0\"\nrollout.unroll_length = 16\nlearner.batch_size = 16\n\
                algorithm.name = \"ppo\"\nalgorithm.reward_scale = 1.0";
    reaches(3.6, task);
}

/// Recall-v0 with a memory. Chance is 0.5, which no policy without memory exceeds.
fn remembers(core: &str, method: &str, more: &str) {
    reaches(
        0.9,
        &format!(
            "run.steps = 100_000\nenvironment.id = \"Recall-v0\"\nrollout.unroll_length = 16\n\
             policy.core = \"{core}\"\npolicy.core_size = 16\npolicy.hidden = [16]\n\
             [learner]\nbatch_size = 32\n\
             [optimizer]\nlearning_rate = 5e-3\nepsilon = 1e-5\n\
             [algorithm]\nname = \"{method}\"\nreward_scale = 1.0\n{more}"
        ),
    );
}

#[test]
fn ppo_learns_to_remember() {
    remembers("lstm", "ppo", "epochs = 4\nminibatches = 4");
}

#[test]
fn appo_learns_to_remember() {
    remembers("lstm", "appo", "");
}

#[test]
fn trpo_learns_to_remember() {
    remembers("lstm", "trpo", "");
}

#[test]
fn impala_learns_to_remember() {
    remembers("lstm", "impala", "");
}

#[test]
fn impala_learns_to_remember_with_a_gru() {
    remembers("gru", "impala", "");
}

#[test]
fn without_memory_there_is_nothing_to_remember() {
    let task = "run.steps = 20_000\nenvironment.id = \"Recall-v0\"\nrollout.unroll_length = 16\n\
                learner.batch_size = 32\nalgorithm.name = \"ppo\"";
    let mean = mean_return(task, 1.1);
    assert!(mean < 0.75, "the mean return is {mean}");
}
