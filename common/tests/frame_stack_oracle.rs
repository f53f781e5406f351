//! Stacks of frames against Gymnasium's `FrameStackObservation`, on recorded episodes cut into unrolls.
//!
//! The fixture is written by `tests/oracles/gymnasium_frame_stack.py`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use impresario_common::space::{ElementType, EnvironmentSpec, Space};
use impresario_common::stacking::Frames;
use impresario_common::unroll::Array;
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixture {
    versions: BTreeMap<String, String>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    environment: String,
    bytes: bool,
    stack: usize,
    shape: Vec<usize>,
    episodes: Vec<Episode>,
}

/// The first observation and one for each step; the last is the final one of the episode.
#[derive(Deserialize)]
struct Episode {
    frames: Vec<Vec<f32>>,
    stacks: Vec<Vec<f32>>,
    terminated: bool,
    truncated: bool,
}

/// What an actor would write down of a step, and what Gymnasium's stacks were.
#[derive(Default)]
struct Steps {
    /// What was acted on.
    frames: Vec<Vec<f32>>,
    stacks: Vec<Vec<f32>>,
    terminated: Vec<u8>,
    truncated: Vec<u8>,
    /// Of each step that cut an episode, the final frame and stack.
    finals: BTreeMap<usize, (Vec<f32>, Vec<f32>)>,
}

impl Case {
    fn steps(&self) -> Steps {
        let mut steps = Steps::default();
        for episode in &self.episodes {
            let last = episode.frames.len() - 1;
            for at in 0..last {
                let ends = at + 1 == last;
                steps.frames.push(episode.frames[at].clone());
                steps.stacks.push(episode.stacks[at].clone());
                steps.terminated.push(u8::from(ends && episode.terminated));
                steps.truncated.push(u8::from(ends && episode.truncated));
                if ends && episode.truncated && !episode.terminated {
                    let end = (episode.frames[last].clone(), episode.stacks[last].clone());
                    steps.finals.insert(steps.frames.len() - 1, end);
                }
            }
        }
        steps
    }

    fn array(&self, values: &[f32]) -> Array {
        match self.bytes {
            true => Array::U8(values.iter().map(|v| *v as u8).collect()),
            false => Array::F32(values.to_vec()),
        }
    }

    fn empty(&self) -> Array {
        self.array(&[])
    }
}

#[test]
fn stacks_are_gymnasiums_wherever_unrolls_cut_the_episodes() {
    let text = include_str!("fixtures/gymnasium_frame_stack.json");
    let fixture: Fixture = serde_json::from_str(text).unwrap();
    assert!(fixture.versions.contains_key("gymnasium"));
    let mut cut = 0;
    for case in &fixture.cases {
        let steps = case.steps();
        let frame_len = steps.frames[0].len();
        for length in 1..10 {
            // As at the beginning of a run: the first frame stands in for all before it.
            let mut history = case.array(&steps.frames[0].repeat(case.stack - 1));
            for first in (0..steps.frames.len() - length).step_by(length) {
                let rows = first..first + length;
                let observations = case.array(&steps.frames[first..=first + length].concat());
                let frames = Frames {
                    stack: case.stack,
                    columns: 1,
                    frame_len,
                    history: &history,
                    observations: &observations,
                    terminated: &steps.terminated[rows.clone()],
                    truncated: &steps.truncated[rows.clone()],
                };
                let mut stacks = case.empty();
                frames.push_rows(0..length + 1, &mut stacks);
                let expected = case.array(&steps.stacks[first..=first + length].concat());
                assert_eq!(stacks, expected, "{} stack {} at {first}", case.environment, case.stack);
                for (step, (last, stack)) in steps.finals.range(rows) {
                    let (mut seen, last) = (case.empty(), case.array(last));
                    frames.push_final(step - first, 0, &last, 0, &mut seen);
                    assert_eq!(seen, case.array(stack), "{} final of step {step}", case.environment);
                    cut += 1;
                }
                let mut next = case.empty();
                frames.push_history(length, &mut next);
                history = next;
            }
        }
    }
    assert!(cut > 100, "only {cut} final observations were compared");
}

#[test]
fn the_policys_observation_space_has_gymnasiums_shape() {
    let fixture: Fixture = serde_json::from_str(include_str!("fixtures/gymnasium_frame_stack.json")).unwrap();
    for case in &fixture.cases {
        let shape = case.shape[1..].to_vec();
        let len = shape.iter().product();
        let dtype = if case.bytes { ElementType::U8 } else { ElementType::F32 };
        let observation = Space::Box { low: vec![0.0; len], high: vec![255.0; len], shape, dtype };
        let environment = EnvironmentSpec::new(&case.environment, observation, Space::Discrete { n: 2 });
        assert_eq!(environment.stacked(case.stack).unwrap().observation.shape(), case.shape);
    }
}
