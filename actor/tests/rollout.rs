//! What a rollout worker writes down, against an environment whose episodes are known.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::atomic::AtomicBool;

use impresario_actor::counters::Counters;
use impresario_actor::env::registry::Registry;
use impresario_actor::env::{
    Action, Environment, EnvironmentError, ObservationMut, Transition, VectorEnvironment, VectorStep,
};
use impresario_actor::rollout::{ActionChoice, Filled, Sampler};
use impresario_common::composite::{Composite, Layout};
use impresario_common::config::PolicySection;
use impresario_common::policy::{Policy, PolicySpec};
use impresario_common::random::{Purpose, Stream, stream};
use impresario_common::space::{EnvironmentSpec, Space};
use impresario_common::unroll::{Array, Unroll, UnrollLayout};

use support::environment::{self, LIMIT};
use support::{COPIES, LENGTH};

fn streams(purpose: Purpose) -> Vec<Stream> {
    (0..COPIES).map(|copy| stream(1, purpose, [0, 0, copy as u32])).collect()
}

fn sampler(layout: &UnrollLayout, policy: &PolicySpec) -> Sampler {
    let vector = environment::registry().make_vector(environment::ID, streams(Purpose::Environment)).unwrap();
    Sampler::new(
        vector,
        policy.distribution().clone(),
        layout,
        streams(Purpose::Actions),
        ActionChoice::Sampled,
    )
    .unwrap()
}

fn parts() -> (UnrollLayout, PolicySpec, Policy) {
    let registry = environment::registry();
    let spec = registry.spec(environment::ID).unwrap();
    let policy = PolicySpec::new(spec, &support::config().policy).unwrap();
    let weights = policy.initialise(1).unwrap();
    (UnrollLayout::new(LENGTH, spec), policy.clone(), Policy::new(&policy, &weights).unwrap())
}

/// One step of one copy, told by the environment's description alone.
#[derive(Debug, Clone, PartialEq)]
struct Step {
    observation: [f32; 2],
    reward: f32,
    terminated: u8,
    truncated: u8,
    final_observation: Option<[f32; 2]>,
    ended: Option<(f32, u32)>,
}

fn expected_steps() -> impl Iterator<Item = Step> {
    (1u32..).flat_map(|episode| {
        let length = if episode % 3 == 1 { 3 } else { LIMIT };
        (1..=length).map(move |step| {
            let last = step == length;
            let cut = last && episode % 3 == 2;
            Step {
                observation: [episode as f32, (step - 1) as f32],
                reward: step as f32,
                terminated: u8::from(last && episode % 3 != 2),
                truncated: u8::from(last && length == LIMIT),
                final_observation: cut.then_some([episode as f32, LIMIT as f32]),
                ended: last.then_some(((1..=length).sum::<u32>() as f32, length)),
            }
        })
    })
}

fn floats(array: &Array) -> &[f32] {
    match array {
        Array::F32(values) => values,
        other => panic!("{} instead of f32", other.dtype()),
    }
}

/// The script, of which an episode that ends before its limit ends for learning only.
struct Lives {
    script: Box<dyn VectorEnvironment>,
    goes_on: Vec<u8>,
}

impl VectorEnvironment for Lives {
    fn spec(&self) -> &EnvironmentSpec {
        self.script.spec()
    }

    fn copies(&self) -> usize {
        self.script.copies()
    }

    fn reset(&mut self, observations: ObservationMut<'_>) -> Result<(), EnvironmentError> {
        self.script.reset(observations)
    }

    fn step(&mut self, actions: Action<'_>, out: VectorStep<'_>) -> Result<(), EnvironmentError> {
        let VectorStep { observations, rewards, terminated, truncated, final_observations } = out;
        let (ends, cuts) = (&mut *terminated, &mut *truncated);
        let out = VectorStep { observations, rewards, terminated: ends, truncated: cuts, final_observations };
        self.script.step(actions, out)?;
        self.goes_on = terminated.iter().zip(&*truncated).map(|(end, cut)| end & !cut).collect();
        Ok(())
    }

    fn goes_on(&self) -> &[u8] {
        &self.goes_on
    }
}

#[test]
fn an_end_for_learning_only_stands_in_the_unroll_and_not_among_the_returns() {
    let (layout, spec, policy) = parts();
    let script = environment::registry().make_vector(environment::ID, streams(Purpose::Environment)).unwrap();
    let lives = Box::new(Lives { script, goes_on: vec![] });
    let actions = streams(Purpose::Actions);
    let mut sampler =
        Sampler::new(lives, spec.distribution().clone(), &layout, actions, ActionChoice::Sampled).unwrap();
    let mut unroll = Unroll::zeros(&layout, COPIES);
    let (counters, stop) = (Counters::default(), AtomicBool::new(false));
    let (mut ends, mut returns, mut lengths) = (0, vec![], vec![]);
    for _ in 0..10 {
        sampler.fill(&policy, &mut unroll, &counters, &stop).unwrap();
        ends += unroll.terminated.iter().zip(&unroll.truncated).filter(|(end, cut)| *end > *cut).count();
        returns.extend(unroll.episode_returns.iter().step_by(COPIES).copied());
        lengths.extend(unroll.episode_lengths.iter().step_by(COPIES).copied());
    }
    assert!(ends > COPIES);
    // Of three scripted episodes the first, 1 + 2 + 3 in three steps, is a part of the second.
    let expected = [(21.0, 8), (15.0, 5)].iter().cycle().take(returns.len());
    assert!(returns.len() >= 4);
    for ((expected, total), length) in expected.zip(returns).zip(lengths) {
        assert_eq!((total, length), *expected);
    }
}

#[test]
fn unrolls_hold_the_episodes_as_they_were_across_unroll_boundaries() {
    let (layout, spec, policy) = parts();
    let mut sampler = sampler(&layout, &spec);
    let mut unroll = Unroll::zeros(&layout, COPIES);
    let (counters, stop) = (Counters::default(), AtomicBool::new(false));
    let mut steps = expected_steps().peekable();
    for number in 1..=10u64 {
        let filled = sampler.fill(&policy, &mut unroll, &counters, &stop).unwrap();
        assert_eq!(filled, Filled::Complete);
        let (mut finals, mut returns, mut lengths) = (vec![], vec![], vec![]);
        for t in 0..LENGTH {
            let step = steps.next().unwrap();
            for copy in 0..COPIES {
                let at = t * COPIES + copy;
                assert_eq!(floats(&unroll.observations)[2 * at..2 * at + 2], step.observation);
                assert_eq!(unroll.rewards[at], step.reward);
                assert_eq!((unroll.terminated[at], unroll.truncated[at]), (step.terminated, step.truncated));
                finals.extend(step.final_observation.into_iter().flatten());
                returns.extend(step.ended.map(|(total, _)| total));
                lengths.extend(step.ended.map(|(_, length)| length));
            }
        }
        let last = 2 * LENGTH * COPIES;
        assert_eq!(floats(&unroll.observations)[last..last + 2], steps.peek().unwrap().observation);
        assert_eq!(floats(&unroll.final_observations), finals);
        assert_eq!((&unroll.episode_returns, &unroll.episode_lengths), (&returns, &lengths));
        assert_eq!(counters.produced_steps(), number * (LENGTH * COPIES) as u64);
        // What the learner checks of it holds as well.
        let message = unroll.to_wire(&layout);
        assert_eq!(Unroll::from_wire(message, &layout, COPIES).unwrap(), unroll);
    }
}

#[test]
fn actions_follow_the_policy_and_log_probabilities_are_theirs() {
    let (layout, spec, policy) = parts();
    let mut sampler = sampler(&layout, &spec);
    let mut unroll = Unroll::zeros(&layout, COPIES);
    sampler.fill(&policy, &mut unroll, &Counters::default(), &AtomicBool::new(false)).unwrap();
    let Array::I32(actions) = &unroll.actions else { panic!("discrete actions are integers") };
    for at in 0..LENGTH * COPIES {
        let observation = floats(&unroll.observations)[2 * at..2 * at + 2].to_vec();
        let observation =
            candle_core::Tensor::from_vec(observation, (1, 2), &candle_core::Device::Cpu).unwrap();
        let logits = policy.distribution(&observation).unwrap().to_vec2::<f32>().unwrap();
        let total: f32 = logits[0].iter().map(|l| l.exp()).sum();
        let expected = (logits[0][actions[at] as usize].exp() / total).ln();
        assert!((unroll.behaviour_log_probs[at] - expected).abs() < 1e-5);
    }
}

#[test]
fn a_stopped_sampler_says_how_far_it_came() {
    let (layout, spec, policy) = parts();
    let mut sampler = sampler(&layout, &spec);
    let mut unroll = Unroll::zeros(&layout, COPIES);
    let counters = Counters::default();
    let filled = sampler.fill(&policy, &mut unroll, &counters, &AtomicBool::new(true)).unwrap();
    assert_eq!((filled, sampler.steps_into_unroll(), counters.produced_steps()), (Filled::Stopped, 0, 0));
}

/// Seven places in a row, numbered or by two digits: action 1 leads on, action 0 back, the end terminates.
#[derive(Debug)]
struct Path {
    observation: Space,
    place: i32,
}

impl Path {
    fn show(&self, observation: ObservationMut<'_>) {
        let room = observation.into_i32();
        match room.len() {
            1 => room[0] = self.place,
            _ => room.copy_from_slice(&[self.place / 3, self.place % 3]),
        }
    }
}

impl Environment for Path {
    fn spec(&self) -> EnvironmentSpec {
        EnvironmentSpec::new("Path-v0", self.observation.clone(), Space::Discrete { n: 2 })
            .with_max_episode_steps(9)
    }

    fn reset(&mut self, _: &mut Stream, observation: ObservationMut<'_>) {
        self.place = 3;
        self.show(observation);
    }

    fn step(&mut self, action: Action<'_>, _: &mut Stream, observation: ObservationMut<'_>) -> Transition {
        self.place = (self.place + 2 * action.discrete()[0] - 1).max(0);
        self.show(observation);
        Transition { reward: 1.0, terminated: self.place == 6, truncated: false }
    }
}

#[test]
fn observations_of_choices_are_acted_on_and_survive_the_wire() {
    for observation in [Space::Discrete { n: 7 }, Space::MultiDiscrete { nvec: vec![3, 3] }] {
        let mut registry = Registry::empty();
        let space = observation.clone();
        registry.register(move || Path { observation: space.clone(), place: 0 });
        let spec = registry.spec("Path-v0").unwrap();
        let policy_spec = PolicySpec::new(spec, &support::config().policy).unwrap();
        let policy = Policy::new(&policy_spec, &policy_spec.initialise(1).unwrap()).unwrap();
        let layout = UnrollLayout::new(50, spec);
        let vector = registry.make_vector("Path-v0", streams(Purpose::Environment)).unwrap();
        let distribution = policy_spec.distribution().clone();
        let actions = streams(Purpose::Actions);
        let mut sampler =
            Sampler::new(vector, distribution, &layout, actions, ActionChoice::Sampled).unwrap();
        let mut unroll = Unroll::zeros(&layout, COPIES);
        let mut places = [3; COPIES];
        let mut finals = 0;
        for _ in 0..4 {
            sampler.fill(&policy, &mut unroll, &Counters::default(), &AtomicBool::new(false)).unwrap();
            let Array::I32(seen) = &unroll.observations else { panic!("choices are integers") };
            let Array::I32(actions) = &unroll.actions else { panic!("choices are integers") };
            let place = |at: usize| match observation.len() {
                1 => seen[at],
                _ => 3 * seen[2 * at] + seen[2 * at + 1],
            };
            for t in 0..50 {
                for (copy, expected) in places.iter_mut().enumerate() {
                    let at = t * COPIES + copy;
                    assert_eq!(place(at), *expected);
                    *expected = (*expected + 2 * actions[at] - 1).max(0);
                    if unroll.terminated[at] | unroll.truncated[at] == 1 {
                        *expected = 3;
                    }
                }
            }
            finals += unroll.final_observations.len();
            let message = unroll.to_wire(&layout);
            assert_eq!(Unroll::from_wire(message, &layout, COPIES).unwrap(), unroll);
        }
        assert!(finals > 0, "no episode was cut");
    }
}

#[test]
fn parameters_that_were_acted_with_are_kept_on_request() {
    let (layout, spec, policy) = parts();
    let mut sampler = sampler(&layout, &spec);
    let mut unroll = Unroll::zeros(&layout, COPIES);
    let mut fill = |sampler: &mut Sampler| {
        sampler.fill(&policy, &mut unroll, &Counters::default(), &AtomicBool::new(false)).unwrap();
        floats(&unroll.observations)[..2 * LENGTH * COPIES].to_vec()
    };
    fill(&mut sampler);
    assert!(sampler.parameters().is_empty());
    sampler.keep_parameters();
    for _ in 0..2 {
        let observations = fill(&mut sampler);
        let rows =
            candle_core::Tensor::from_vec(observations, (LENGTH * COPIES, 2), &candle_core::Device::Cpu);
        let expected = policy.distribution(&rows.unwrap()).unwrap().flatten_all().unwrap();
        let expected = expected.to_vec1::<f32>().unwrap();
        assert_eq!(sampler.parameters().len(), expected.len());
        for (kept, expected) in sampler.parameters().iter().zip(expected) {
            assert!((kept - expected).abs() < 1e-5);
        }
    }
}

#[test]
fn the_policy_acts_on_stacks_of_one_episode_and_the_unroll_keeps_single_frames() {
    for stack in [2, 3, LENGTH + 2] {
        let mut config = support::config();
        config.environment.frame_stack = stack;
        let registry = environment::registry();
        let environment = registry.spec(environment::ID).unwrap();
        let spec = PolicySpec::of_run(&config, environment).unwrap();
        assert_eq!(spec.input_len(), 2 * stack);
        let policy = Policy::new(&spec, &spec.initialise(1).unwrap()).unwrap();
        let layout = UnrollLayout::of_run(&config, LENGTH, environment, &spec);
        let mut sampler = sampler(&layout, &spec);
        sampler.keep_parameters();
        let mut unroll = Unroll::zeros(&layout, COPIES);
        let mut steps = expected_steps();
        let mut seen = vec![[0.0; 2]; stack];
        for _ in 0..10 {
            sampler.fill(&policy, &mut unroll, &Counters::default(), &AtomicBool::new(false)).unwrap();
            let mut acted_on = vec![];
            for t in 0..LENGTH {
                let step = steps.next().unwrap();
                if step.observation[1] == 0.0 {
                    seen.fill(step.observation);
                }
                seen.remove(0);
                seen.push(step.observation);
                // Episodes are the same in all copies.
                (0..COPIES).for_each(|_| acted_on.extend(seen.iter().flatten().copied()));
                let at = 2 * t * COPIES;
                assert_eq!(floats(&unroll.observations)[at..at + 2], step.observation);
            }
            let shape = (LENGTH * COPIES, stack, 2);
            let acted_on = candle_core::Tensor::from_vec(acted_on, shape, &candle_core::Device::Cpu).unwrap();
            let expected = policy.distribution(&acted_on).unwrap().flatten_all().unwrap();
            for (kept, expected) in sampler.parameters().iter().zip(expected.to_vec1::<f32>().unwrap()) {
                assert!((kept - expected).abs() < 1e-5, "stack {stack}: {kept} is not {expected}");
            }
            let message = unroll.to_wire(&layout);
            assert_eq!(Unroll::from_wire(message, &layout, COPIES).unwrap(), unroll);
        }
    }
}

#[test]
fn each_copy_lives_the_same_life_in_a_group_of_half_the_copies() {
    const LENGTH: usize = 200;
    let registry = Registry::native();
    let environment = registry.spec("CartPole-v1").unwrap();
    let layout = UnrollLayout::new(LENGTH, environment);
    let spec = PolicySpec::new(environment, &PolicySection::default()).unwrap();
    let policy = Policy::new(&spec, &spec.initialise(1).unwrap()).unwrap();
    let unroll = |copies: std::ops::Range<u32>| {
        let streams = |purpose| copies.clone().map(|copy| stream(1, purpose, [0, 0, copy])).collect();
        let vector = registry.make_vector("CartPole-v1", streams(Purpose::Environment)).unwrap();
        let (distribution, actions) = (spec.distribution().clone(), streams(Purpose::Actions));
        let mut sampler =
            Sampler::new(vector, distribution, &layout, actions, ActionChoice::Sampled).unwrap();
        let mut unroll = Unroll::zeros(&layout, copies.len());
        for _ in 0..2 {
            sampler.fill(&policy, &mut unroll, &Counters::default(), &AtomicBool::new(false)).unwrap();
        }
        unroll
    };
    let (all, halves) = (unroll(0..6), [unroll(0..3), unroll(3..6)]);
    let actions = |unroll: &Unroll, step: usize| match &unroll.actions {
        Array::I32(actions) => actions[step],
        other => panic!("{}", other.dtype()),
    };
    for t in 0..LENGTH {
        for copy in 0..6 {
            let (half, at, in_all) = (&halves[copy / 3], t * 3 + copy % 3, t * 6 + copy);
            let observation =
                |unroll: &Unroll, at: usize| floats(&unroll.observations)[4 * at..4 * at + 4].to_vec();
            assert_eq!(observation(half, at), observation(&all, in_all), "step {t} of copy {copy}");
            assert_eq!(actions(half, at), actions(&all, in_all));
            let log_probs = (half.behaviour_log_probs[at], all.behaviour_log_probs[in_all]);
            assert!((log_probs.0 - log_probs.1).abs() < 1e-6);
        }
    }
    assert!(all.terminated.contains(&1), "no episode ended");
}

/// Shows the action that it was given last.
struct Echo;

impl Environment for Echo {
    fn spec(&self) -> EnvironmentSpec {
        EnvironmentSpec::new(
            "Echo-v0",
            Space::boxed(&[f32::NEG_INFINITY; 2], &[f32::INFINITY; 2]),
            Space::boxed(&[2.0, -1.0], &[6.0, 0.0]),
        )
    }

    fn reset(&mut self, _: &mut Stream, observation: ObservationMut<'_>) {
        observation.into_f32().fill(0.0);
    }

    fn step(&mut self, action: Action<'_>, _: &mut Stream, observation: ObservationMut<'_>) -> Transition {
        observation.into_f32().copy_from_slice(action.continuous());
        Transition { reward: 0.0, terminated: false, truncated: false }
    }
}

#[test]
fn the_environment_gets_squashed_actions_and_the_unroll_keeps_them_as_they_were_before() {
    let mut registry = Registry::empty();
    registry.register(|| Echo);
    let environment = registry.spec("Echo-v0").unwrap();
    let layout = UnrollLayout::new(LENGTH, environment);
    for (squash, choice) in
        [(true, ActionChoice::Sampled), (true, ActionChoice::Greedy), (false, ActionChoice::Sampled)]
    {
        let section = PolicySection { squash, initial_log_std: 1.0, ..PolicySection::default() };
        let spec = PolicySpec::new(environment, &section).unwrap();
        let policy = Policy::new(&spec, &spec.initialise(1).unwrap()).unwrap();
        let vector = registry.make_vector("Echo-v0", streams(Purpose::Environment)).unwrap();
        let streams = streams(Purpose::Actions);
        let mut sampler =
            Sampler::new(vector, spec.distribution().clone(), &layout, streams, choice).unwrap();
        let mut unroll = Unroll::zeros(&layout, COPIES);
        sampler.fill(&policy, &mut unroll, &Counters::default(), &AtomicBool::new(false)).unwrap();
        let (acted, seen) = (floats(&unroll.actions), &floats(&unroll.observations)[2 * COPIES..]);
        for (at, (acted, seen)) in acted.iter().zip(seen).enumerate() {
            let (low, high) = [(2.0, 6.0), (-1.0, 0.0)][at % 2];
            let squashed = low + (acted.tanh() + 1.0) / 2.0 * (high - low);
            let expected = if squash { squashed } else { *acted };
            assert!((seen - expected).abs() < 1e-5, "{seen} for {acted}");
        }
        if choice == ActionChoice::Greedy {
            // The policy starts with means near 0: the middle of the box.
            assert!((seen[0] - 4.0).abs() < 0.2 && (seen[1] + 0.5).abs() < 0.05, "{seen:?}");
        }
    }
}

/// Counts its steps, which it shows as a number and as a choice of three.
struct Meter {
    layout: Layout,
    steps: i32,
}

impl Meter {
    fn new() -> Self {
        let layout = Self::parts().flatten().1;
        Self { layout, steps: 0 }
    }

    fn parts() -> Composite {
        Composite::dict([
            ("dial", Composite::Tuple(vec![Space::Discrete { n: 3 }.into()])),
            ("count", Space::boxed(&[0.0], &[f32::INFINITY]).into()),
        ])
    }

    fn show(&self, observation: ObservationMut<'_>) {
        let mut writer = self.layout.writer(observation.into_f32());
        writer.numbers("count", &[self.steps as f32]).choices("dial.0", &[self.steps % 3]);
    }
}

impl Environment for Meter {
    fn spec(&self) -> EnvironmentSpec {
        EnvironmentSpec::new("Meter-v0", Self::parts(), Space::Discrete { n: 2 })
    }

    fn reset(&mut self, _: &mut Stream, observation: ObservationMut<'_>) {
        self.steps = 0;
        self.show(observation);
    }

    fn step(&mut self, _: Action<'_>, _: &mut Stream, observation: ObservationMut<'_>) -> Transition {
        self.steps += 1;
        self.show(observation);
        Transition { reward: 0.0, terminated: false, truncated: false }
    }
}

#[test]
fn an_environment_shows_observations_of_several_parts() {
    let mut registry = Registry::empty();
    registry.register(Meter::new);
    let environment = registry.spec("Meter-v0").unwrap();
    assert_eq!(environment.layout.as_ref(), Some(&Meter::new().layout));
    let layout = UnrollLayout::new(LENGTH, environment);
    let spec = PolicySpec::new(environment, &PolicySection::default()).unwrap();
    let policy = Policy::new(&spec, &spec.initialise(1).unwrap()).unwrap();
    let vector = registry.make_vector("Meter-v0", streams(Purpose::Environment)).unwrap();
    let distribution = spec.distribution().clone();
    let actions = streams(Purpose::Actions);
    let mut sampler = Sampler::new(vector, distribution, &layout, actions, ActionChoice::Sampled).unwrap();
    let mut unroll = Unroll::zeros(&layout, COPIES);
    sampler.fill(&policy, &mut unroll, &Counters::default(), &AtomicBool::new(false)).unwrap();
    for (row, observation) in floats(&unroll.observations).chunks_exact(4).enumerate() {
        let step = row / COPIES;
        let mut expected = [step as f32, 0.0, 0.0, 0.0];
        expected[1 + step % 3] = 1.0;
        assert_eq!(observation, expected);
    }
}

#[test]
fn illegal_actions_are_never_taken_and_the_masks_of_each_step_travel() {
    let registry = Registry::native();
    let environment = registry.spec("TicTacToe-v0").unwrap();
    let layout = UnrollLayout::new(60, environment);
    assert_eq!(layout.mask_len, 9);
    let section = PolicySection { policy_gain: 3.0, ..PolicySection::default() };
    let spec = PolicySpec::new(environment, &section).unwrap();
    let policy = Policy::new(&spec, &spec.initialise(1).unwrap()).unwrap();
    for choice in [ActionChoice::Sampled, ActionChoice::Greedy] {
        let vector = registry.make_vector("TicTacToe-v0", streams(Purpose::Environment)).unwrap();
        let actions = streams(Purpose::Actions);
        let mut sampler =
            Sampler::new(vector, spec.distribution().clone(), &layout, actions, choice).unwrap();
        let mut unroll = Unroll::zeros(&layout, COPIES);
        let mut masked = 0;
        for _ in 0..2 {
            sampler.fill(&policy, &mut unroll, &Counters::default(), &AtomicBool::new(false)).unwrap();
            let (Array::I32(boards), Array::I32(actions)) = (&unroll.observations, &unroll.actions) else {
                panic!("choices are integers")
            };
            for (at, action) in actions.iter().enumerate() {
                let board = &boards[9 * at..9 * at + 9];
                let free: Vec<u8> = board.iter().map(|cell| u8::from(*cell == 0)).collect();
                assert_eq!(unroll.action_masks[9 * at..9 * at + 9], free);
                assert_eq!(board[*action as usize], 0, "cell {action} of {board:?} was taken");
                masked += free.iter().filter(|flag| **flag == 0).count();
            }
            let message = unroll.to_wire(&layout);
            assert_eq!(Unroll::from_wire(message, &layout, COPIES).unwrap(), unroll);
        }
        assert!(masked > 0);
    }
}

/// A place where nothing is allowed, or flags are no flags.
struct Forbidden {
    flag: u8,
}

impl Environment for Forbidden {
    fn spec(&self) -> EnvironmentSpec {
        EnvironmentSpec::new(
            "Forbidden-v0",
            Space::boxed(&[0.0], &[1.0]),
            Space::MultiDiscrete { nvec: vec![2, 2] },
        )
        .with_masked_actions()
    }

    fn reset(&mut self, _: &mut Stream, observation: ObservationMut<'_>) {
        observation.into_f32().fill(0.0);
    }

    fn step(&mut self, _: Action<'_>, _: &mut Stream, observation: ObservationMut<'_>) -> Transition {
        observation.into_f32().fill(0.0);
        Transition { reward: 0.0, terminated: false, truncated: false }
    }

    fn legal_actions(&self, mask: &mut [u8]) {
        mask.copy_from_slice(&[1, 1, 0, self.flag]);
    }
}

#[test]
fn masks_that_leave_nothing_or_are_no_flags_end_sampling_with_whose_fault_it_is() {
    for (flag, expected) in [
        (0, "environment Forbidden-v0: copy 0 calls no alternative of choice 1 legal"),
        (2, "environment Forbidden-v0: a mask of legal actions holds a flag that is neither 0 nor 1"),
    ] {
        let mut registry = Registry::empty();
        registry.register(move || Forbidden { flag });
        let environment = registry.spec("Forbidden-v0").unwrap();
        let layout = UnrollLayout::new(LENGTH, environment);
        let spec = PolicySpec::new(environment, &PolicySection::default()).unwrap();
        let policy = Policy::new(&spec, &spec.initialise(1).unwrap()).unwrap();
        let vector = registry.make_vector("Forbidden-v0", streams(Purpose::Environment)).unwrap();
        let distribution = spec.distribution().clone();
        let actions = streams(Purpose::Actions);
        let mut sampler =
            Sampler::new(vector, distribution, &layout, actions, ActionChoice::Sampled).unwrap();
        let mut unroll = Unroll::zeros(&layout, COPIES);
        let failed = sampler.fill(&policy, &mut unroll, &Counters::default(), &AtomicBool::new(false));
        let error = failed.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
