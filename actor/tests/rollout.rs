//! What a rollout worker writes down, against an environment whose episodes are known.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::atomic::AtomicBool;

use impresario_actor::counters::Counters;
use impresario_actor::rollout::{ActionChoice, Filled, Sampler};
use impresario_common::policy::{Policy, PolicySpec};
use impresario_common::random::{Purpose, Stream, stream};
use impresario_common::space::ElementType;
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

#[test]
fn observations_of_integers_are_refused_with_advice() {
    let (mut layout, spec, _) = parts();
    layout.observation = impresario_common::space::Space::Discrete { n: 3 };
    assert_eq!(layout.observation.dtype(), ElementType::I32);
    let vector = environment::registry().make_vector(environment::ID, streams(Purpose::Environment)).unwrap();
    let refused = Sampler::new(
        vector,
        spec.distribution().clone(),
        &layout,
        streams(Purpose::Actions),
        ActionChoice::Sampled,
    );
    assert!(refused.unwrap_err().to_string().contains("encode them as a box"));
}
