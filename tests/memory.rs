//! A policy with memory on both sides of the wire: what actors do step by step, the learner must find again in
//! whole unrolls, and an unroll must go on where the one before ended.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::atomic::AtomicBool;

use candle_core::{Device, Tensor};
use impresario_actor::counters::Counters;
use impresario_actor::env::registry::Registry;
use impresario_actor::env::{Action, Environment, ObservationMut, Transition};
use impresario_actor::rollout::{ActionChoice, Sampler};
use impresario_common::config::{CoreKind, RunConfig};
use impresario_common::kernels::Sequence;
use impresario_common::policy::{Policy, PolicySpec, Weights};
use impresario_common::random::{self, Purpose, Stream, stream};
use impresario_common::space::{EnvironmentSpec, Space};
use impresario_common::unroll::{Array, Unroll, UnrollLayout};
use impresario_learner::algorithm::TargetPolicy;
use impresario_learner::batch::Batch;

const ID: &str = "Noise-v0";
const COPIES: usize = 3;
const OBSERVATION: usize = 2;

/// Random observations; every other episode terminates at its third step, the others run into the time limit of five.
#[derive(Debug, Default)]
struct Noise {
    episodes: u32,
    step: u32,
}

impl Environment for Noise {
    fn spec(&self) -> EnvironmentSpec {
        EnvironmentSpec::new(
            ID,
            Space::boxed(&[f32::NEG_INFINITY; OBSERVATION], &[f32::INFINITY; OBSERVATION]),
            Space::Discrete { n: 3 },
        )
        .with_max_episode_steps(5)
    }

    fn reset(&mut self, random: &mut Stream, observation: ObservationMut<'_>) {
        self.episodes += 1;
        self.step = 0;
        observation.into_f32().fill_with(|| random::normal(random) as f32);
    }

    fn step(&mut self, _: Action<'_>, random: &mut Stream, observation: ObservationMut<'_>) -> Transition {
        self.step += 1;
        observation.into_f32().fill_with(|| random::normal(random) as f32);
        let terminated = self.episodes % 2 == 1 && self.step == 3;
        Transition { reward: 1.0, terminated, truncated: false }
    }
}

struct Setting {
    config: RunConfig,
    environment: EnvironmentSpec,
    spec: PolicySpec,
    weights: Weights,
    registry: Registry,
}

impl Setting {
    fn new(core: CoreKind) -> Self {
        Self::stacked(core, 1)
    }

    /// With a policy that sees `frames` observations at once.
    fn stacked(core: CoreKind, frames: usize) -> Self {
        let mut config = RunConfig::default();
        config.environment.frame_stack = frames;
        config.policy.core = core;
        config.policy.core_size = 6;
        config.policy.hidden = vec![8].into();
        config.policy.policy_gain = 2.0;
        let mut registry = Registry::empty();
        registry.register(Noise::default);
        let environment = registry.spec(ID).unwrap().clone();
        let spec = PolicySpec::of_run(&config, &environment).unwrap();
        let weights = spec.initialise(4).unwrap();
        Self { config, environment, spec, weights, registry }
    }

    fn layout(&self, length: usize) -> UnrollLayout {
        UnrollLayout::of_run(&self.config, length, &self.environment, &self.spec)
    }

    /// `count` unrolls of `length` steps, as they come out of the wire.
    fn unrolls(&self, length: usize, count: usize) -> Vec<Unroll> {
        let streams = |purpose| (0..COPIES as u32).map(|copy| stream(1, purpose, [0, 0, copy])).collect();
        let vector = self.registry.make_vector(ID, streams(Purpose::Environment)).unwrap();
        let distribution = self.spec.distribution().clone();
        let (layout, choice) = (self.layout(length), ActionChoice::Sampled);
        let mut sampler =
            Sampler::new(vector, distribution, &layout, streams(Purpose::Actions), choice).unwrap();
        let policy = Policy::new(&self.spec, &self.weights).unwrap();
        let mut unroll = Unroll::zeros(&layout, COPIES);
        let mut fill = || {
            sampler.fill(&policy, &mut unroll, &Counters::default(), &AtomicBool::new(false)).unwrap();
            Unroll::from_wire(unroll.to_wire(&layout), &layout, COPIES).unwrap()
        };
        (0..count).map(|_| fill()).collect()
    }

    fn target(&self) -> TargetPolicy {
        TargetPolicy::new(&self.config, &self.spec, &self.weights).unwrap()
    }
}

fn floats(array: &Array) -> &[f32] {
    match array {
        Array::F32(values) => values,
        other => panic!("{} instead of f32", other.dtype()),
    }
}

#[test]
fn short_unrolls_are_one_long_unroll_cut_in_pieces() {
    for core in [CoreKind::Lstm, CoreKind::Gru] {
        let setting = Setting::new(core);
        let (short, long) = (setting.unrolls(4, 6), setting.unrolls(24, 1));
        let joined = |part: fn(&Unroll) -> Vec<f32>| short.iter().flat_map(part).collect::<Vec<_>>();
        let log_probs = |unroll: &Unroll| unroll.behaviour_log_probs.clone();
        assert_eq!(joined(log_probs), log_probs(&long[0]));
        let rewards = |unroll: &Unroll| unroll.rewards.clone();
        assert_eq!(joined(rewards), rewards(&long[0]));
        assert!(short[0].core_states.iter().all(|x| *x == 0.0), "nothing came before");
        assert!(short[1..].iter().any(|unroll| unroll.core_states.iter().any(|x| *x != 0.0)));
        for pair in short.windows(2) {
            let last_row = 3 * COPIES..4 * COPIES;
            let ended = pair[0].terminated[last_row.clone()].iter().zip(&pair[0].truncated[last_row]);
            let states = pair[1].core_states.chunks_exact(setting.spec.core_state_len());
            for ((end, cut), state) in ended.zip(states) {
                assert_eq!(end | cut == 1, state.iter().all(|x| *x == 0.0), "forgotten with the episode");
            }
        }
    }
}

#[test]
fn the_learner_finds_the_actors_probabilities_again() {
    let cores = [CoreKind::None, CoreKind::Lstm, CoreKind::Gru].map(|core| (core, 1));
    for (core, frames) in
        cores.into_iter().chain([(CoreKind::None, 3), (CoreKind::Lstm, 4), (CoreKind::None, 9)])
    {
        let setting = Setting::stacked(core, frames);
        let target = setting.target();
        let unrolls = setting.unrolls(7, 4);
        let layout = setting.layout(7);
        // Each for itself, and columns of several side by side.
        let mut batches: Vec<Batch> =
            unrolls.iter().cloned().map(|unroll| Batch::whole(&layout, unroll)).collect();
        batches.push(Batch::assemble(&layout, &[(&unrolls[1], 1..3), (&unrolls[3], 0..2)]));
        for batch in batches {
            let output = target.forward(&batch).unwrap();
            let rows = target.log_prob_entropy(&output, &batch).unwrap().to_vec2::<f32>().unwrap();
            assert_eq!(rows.len(), batch.steps() + batch.columns + batch.final_steps.len());
            for (step, (row, behaviour)) in rows.iter().zip(&batch.behaviour_log_probs).enumerate() {
                assert!((row[0] - behaviour).abs() < 1e-5, "{core:?}, step {step}: {} {behaviour}", row[0]);
            }
        }
    }
}

#[test]
fn values_behind_the_last_step_and_of_final_observations_know_the_episode() {
    for core in [CoreKind::Lstm, CoreKind::Gru] {
        let setting = Setting::new(core);
        let (target, policy) = (setting.target(), Policy::new(&setting.spec, &setting.weights).unwrap());
        let unrolls = setting.unrolls(12, 2);
        // The first unroll begins with episodes, so that each can be followed by itself.
        let batch = Batch::whole(&setting.layout(12), unrolls[0].clone());
        let values = target.forward(&batch).unwrap().values.to_vec1::<f32>().unwrap();
        let observations = floats(&batch.observations);
        let observation = |row: usize| &observations[row * OBSERVATION..(row + 1) * OBSERVATION];
        // The value of the last of `rows`, one episode from its start.
        let value_after = |rows: &[usize]| {
            let flat: Vec<f32> = rows.iter().flat_map(|row| observation(*row)).copied().collect();
            let tensor = Tensor::from_vec(flat, (rows.len(), OBSERVATION), &Device::Cpu).unwrap();
            let sequence = || Sequence {
                columns: 1,
                resets: vec![0; rows.len()],
                initial: vec![0.0; setting.spec.core_state_len()],
                branches: vec![],
            };
            let values = policy.forward_sequence(&tensor, sequence).unwrap().values;
            values.to_vec1::<f32>().unwrap()[rows.len() - 1]
        };
        let mut finals = 0;
        for column in 0..COPIES {
            let mut episode = vec![];
            for t in 0..=batch.length {
                let row = t * COPIES + column;
                episode.push(row);
                let error = (values[row] - value_after(&episode)).abs();
                assert!(error < 1e-5, "{core:?}: the value of step {t} of column {column}");
                if t == batch.length || batch.terminated[row] | batch.truncated[row] == 0 {
                    continue;
                }
                if let Some(k) = batch.final_steps.iter().position(|step| *step == row) {
                    finals += 1;
                    let last = batch.steps() + COPIES + k;
                    episode.push(last);
                    let error = (values[last] - value_after(&episode)).abs();
                    assert!(error < 1e-5, "{core:?}: the value of final observation {k}");
                    assert!((values[last] - value_after(&[last])).abs() > 1e-4, "it does remember");
                }
                episode.clear();
            }
        }
        assert!(finals >= COPIES && finals == batch.final_steps.len());
    }
}
