//! How fast one thread steps environments, alone and with the policy: environment steps a second.
//!
//! `cargo bench -p impresario-actor --bench rollout`; compare medians within one sitting: the slowest samples are the
//! machine's other work.

#![allow(clippy::unwrap_used)]

use std::sync::atomic::AtomicBool;

use divan::Bencher;
use divan::counter::ItemsCount;
use impresario_actor::counters::Counters;
use impresario_actor::env::registry::Registry;
use impresario_actor::env::{Action, FinalObservations, ObservationMut, VectorStep};
use impresario_actor::rollout::{ActionChoice, Sampler};
use impresario_common::config::PolicySection;
use impresario_common::policy::{Policy, PolicySpec};
use impresario_common::random::{Purpose, Stream, stream};
use impresario_common::unroll::{Unroll, UnrollLayout};
use rand::RngExt;

/// As in the default run.
const UNROLL_LENGTH: usize = 20;

const COPIES: [usize; 3] = [8, 32, 128];

fn main() {
    impresario_common::process::limit_threads(1);
    divan::main();
}

fn streams(purpose: Purpose, copies: usize) -> Vec<Stream> {
    (0..copies).map(|copy| stream(1, purpose, [0, 0, copy as u32])).collect()
}

/// Takes final observations and forgets them.
#[derive(Debug)]
struct Discard(Vec<f32>);

impl FinalObservations for Discard {
    fn slot(&mut self, _copy: usize) -> ObservationMut<'_> {
        ObservationMut::F32(&mut self.0)
    }
}

/// CartPole alone, with actions that are there already.
#[divan::bench(args = COPIES)]
fn environment_steps(bencher: Bencher<'_, '_>, copies: usize) {
    let registry = Registry::native();
    let mut vector = registry.make_vector("CartPole-v1", streams(Purpose::Environment, copies)).unwrap();
    let mut observations = vec![0.0; 4 * copies];
    let (mut rewards, mut terminated, mut truncated) = (vec![0.0; copies], vec![0; copies], vec![0; copies]);
    let mut finals = Discard(vec![0.0; 4]);
    vector.reset(ObservationMut::F32(&mut observations)).unwrap();
    let actions: Vec<i32> = (0..copies as i32).map(|copy| copy % 2).collect();
    bencher.counter(ItemsCount::new(copies)).bench_local(|| {
        let out = VectorStep {
            observations: ObservationMut::F32(&mut observations),
            rewards: &mut rewards,
            terminated: &mut terminated,
            truncated: &mut truncated,
            final_observations: &mut finals,
        };
        vector.step(Action::Discrete(&actions), out).unwrap();
    });
}

const MINATAR: [&str; 5] = [
    "MinAtar/Asterix-v0",
    "MinAtar/Breakout-v0",
    "MinAtar/Freeway-v0",
    "MinAtar/Seaquest-v0",
    "MinAtar/SpaceInvaders-v0",
];

/// One copy of a game of MinAtar, with random actions that were drawn before.
#[divan::bench(args = MINATAR)]
fn minatar_steps(bencher: Bencher<'_, '_>, game: &str) {
    const STEPS: usize = 1000;
    let registry = Registry::native();
    let mut vector = registry.make_vector(game, streams(Purpose::Environment, 1)).unwrap();
    let mut observations = vec![0; vector.spec().observation.len()];
    let (mut rewards, mut terminated, mut truncated) = ([0.0], [0], [0]);
    // No episode is truncated.
    let mut finals = Discard(vec![]);
    vector.reset(ObservationMut::U8(&mut observations)).unwrap();
    let mut random = stream(1, Purpose::Actions, [0; 3]);
    let actions: Vec<i32> = (0..STEPS).map(|_| random.random_range(0..6)).collect();
    bencher.counter(ItemsCount::new(STEPS)).bench_local(|| {
        for action in &actions {
            let out = VectorStep {
                observations: ObservationMut::U8(&mut observations),
                rewards: &mut rewards,
                terminated: &mut terminated,
                truncated: &mut truncated,
                final_observations: &mut finals,
            };
            vector.step(Action::Discrete(std::slice::from_ref(action)), out).unwrap();
        }
    });
}

fn unrolls(bencher: Bencher<'_, '_>, environment: &str, copies: usize, encode: bool) {
    let registry = Registry::native();
    let spec = registry.spec(environment).unwrap();
    let policy_spec = PolicySpec::new(spec, &PolicySection::default()).unwrap();
    let policy = Policy::new(&policy_spec, &policy_spec.initialise(1).unwrap()).unwrap();
    let layout = UnrollLayout::new(UNROLL_LENGTH, spec);
    let vector = registry.make_vector(environment, streams(Purpose::Environment, copies)).unwrap();
    let actions = streams(Purpose::Actions, copies);
    let mut sampler =
        Sampler::new(vector, policy_spec.distribution().clone(), &layout, actions, ActionChoice::Sampled)
            .unwrap();
    let mut unroll = Unroll::zeros(&layout, copies);
    let (counters, stop) = (Counters::default(), AtomicBool::new(false));
    bencher.counter(ItemsCount::new(UNROLL_LENGTH * copies)).bench_local(|| {
        sampler.fill(&policy, &mut unroll, &counters, &stop).unwrap();
        encode.then(|| unroll.to_wire(&layout))
    });
}

/// CartPole with the default network (64-64, tanh).
#[divan::bench(args = COPIES)]
fn cartpole_unroll(bencher: Bencher<'_, '_>, copies: usize) {
    unrolls(bencher, "CartPole-v1", copies, false);
}

/// The same, with the message for the learner.
#[divan::bench(args = COPIES)]
fn cartpole_unroll_and_message(bencher: Bencher<'_, '_>, copies: usize) {
    unrolls(bencher, "CartPole-v1", copies, true);
}

/// A continuous policy.
#[divan::bench(args = COPIES)]
fn pendulum_unroll(bencher: Bencher<'_, '_>, copies: usize) {
    unrolls(bencher, "Pendulum-v1", copies, false);
}
