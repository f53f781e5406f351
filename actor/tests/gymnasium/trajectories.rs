//! What the actor sees is what Gymnasium does alone, number for number: an independent script plays the same actions from the
//! same seeds.

use std::io::Write;
use std::process::{Command, Stdio};

use impresario_common::config::{EnvironmentSection, Wrapper};
use impresario_common::random::{Purpose, stream};
use impresario_common::space::Space;
use impresario_common::unroll::Array;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Driver, find, odd, python, random_actions, seeds, streams};

/// What the script says of a step; the first is the reset.
#[derive(Deserialize)]
struct Told {
    observation: Vec<f64>,
    #[serde(default)]
    reward: f32,
    #[serde(default)]
    terminated: bool,
    #[serde(default)]
    truncated: bool,
    #[serde(rename = "final")]
    last: Option<Vec<f64>>,
}

/// Gymnasium's answer, by copy and step.
fn reference(question: &Value) -> Vec<Vec<Told>> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/python/reference.py");
    let mut child = Command::new(python::interpreter())
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(question.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

fn as_json(actions: &Array, copies: usize) -> Value {
    let len = actions.len() / copies;
    let of = |copy: usize| match actions {
        Array::F32(values) => json!(values[copy * len..(copy + 1) * len]),
        // The script takes a number where there is one choice.
        Array::I32(choices) if len == 1 => json!(choices[copy]),
        Array::I32(choices) => json!(choices[copy * len..(copy + 1) * len]),
        Array::U8(_) => Value::Null,
    };
    (0..copies).map(of).collect()
}

/// Numbers as the actor keeps them.
fn stored(values: &[f64], space: &Space) -> Vec<f64> {
    match space {
        Space::Box { .. } => values.iter().map(|&value| f64::from(value as f32)).collect(),
        _ => values.to_vec(),
    }
}

/// Plays `steps` steps of `copies` copies through the bridge and with the script; how many episodes terminated and were truncated.
pub(super) fn same_as_gymnasium(
    section: &EnvironmentSection,
    more: Value,
    copies: u32,
    steps: usize,
) -> (usize, usize) {
    let source = find(section).unwrap();
    let mut driver = Driver::new(&source, copies);
    let (n, mut random) = (copies as usize, stream(5, Purpose::Actions, [0; 3]));
    let actions: Vec<Array> = (0..steps).map(|_| random_actions(&source, n, &mut random)).collect();
    let mut question = json!({
        "id": section.id.strip_prefix("gym:").unwrap_or(&section.id),
        "kwargs": section.kwargs,
        "seeds": seeds(&streams(copies)),
        "actions": actions.iter().map(|a| as_json(a, n)).collect::<Vec<_>>(),
    });
    question.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let told = reference(&question);

    driver.reset().unwrap();
    let (space, mut ends) = (&source.spec().observation, (0, 0));
    for (copy, of_copy) in told.iter().enumerate() {
        assert_eq!(driver.observed(copy), stored(&of_copy[0].observation, space), "copy {copy} at reset");
    }
    for (step, actions) in actions.iter().enumerate() {
        driver.step(actions).unwrap();
        for (copy, of_copy) in told.iter().enumerate() {
            let (at, told) = (format!("copy {copy} after step {step}"), &of_copy[step + 1]);
            assert_eq!(driver.observed(copy), stored(&told.observation, space), "{at}");
            assert_eq!(driver.rewards[copy], told.reward, "{at}");
            let flags = (driver.terminated[copy] == 1, driver.truncated[copy] == 1);
            assert_eq!(flags, (told.terminated, told.truncated), "{at}");
            let last = told.last.as_ref().filter(|_| told.truncated && !told.terminated);
            assert_eq!(driver.last(copy), last.map(|last| stored(last, space)), "{at}");
            ends.0 += usize::from(told.terminated);
            ends.1 += usize::from(told.truncated);
        }
    }
    ends
}

fn plain(id: &str) -> EnvironmentSection {
    EnvironmentSection::new(id)
}

#[test]
fn classic_control_is_gymnasiums_and_episodes_end_as_there() {
    let (terminated, _) = same_as_gymnasium(&plain("gym:CartPole-v1"), json!({}), 5, 120);
    assert!(terminated > 10);
    let (_, truncated) = same_as_gymnasium(&plain("gym:Pendulum-v1"), json!({}), 2, 420);
    assert_eq!(truncated, 4);
}

#[test]
fn box2d_and_mujoco_are_gymnasiums_with_keyword_arguments() {
    let continuous =
        EnvironmentSection { kwargs: "continuous = true".parse().unwrap(), ..plain("LunarLander-v3") };
    assert!(same_as_gymnasium(&continuous, json!({}), 2, 250).0 > 0);
    same_as_gymnasium(&plain("LunarLander-v3"), json!({}), 2, 100);
    let brief = EnvironmentSection { max_episode_steps: 20, ..plain("HalfCheetah-v5") };
    let (_, truncated) = same_as_gymnasium(&brief, json!({"kwargs": {"max_episode_steps": 20}}), 2, 50);
    assert_eq!(truncated, 4);
    assert_eq!(find(&brief).unwrap().spec().max_episode_steps, Some(20));
}

#[test]
fn every_space_of_observations_is_seen_as_gymnasium_has_it() {
    let spaces = [
        "box",
        "double",
        "bytes",
        "whole",
        "scalar",
        "flags",
        "discrete",
        "shifted",
        "choices",
        "shifted choices",
        "bits",
        "bit field",
        "dict",
        "tuple",
    ];
    for space in spaces {
        let echo = odd("Echo", &format!("observation = {space:?}\ntruncates = true"));
        let (_, truncated) = same_as_gymnasium(&echo, json!({}), 2, 7);
        assert_eq!(truncated, 4, "{space}");
    }
}

#[test]
fn composite_observations_keep_their_layout() {
    let source = find(&odd("Echo", "observation = \"dict\"")).unwrap();
    let paths: Vec<_> =
        source.spec().layout.as_ref().unwrap().fields().iter().map(|f| f.path.clone()).collect();
    assert_eq!(paths, ["arm.joints", "camera.0", "camera.1", "gear", "speed"]);
}

/// The reward of an echo tells the action that arrived.
#[test]
fn every_space_of_actions_is_reached() {
    let spaces = [
        "discrete",
        "shifted",
        "choices",
        "shifted choices",
        "bits",
        "bit field",
        "choice dict",
        "box tuple",
    ];
    for space in spaces.into_iter().chain(["box", "double", "whole"]) {
        let source = find(&odd("Echo", &format!("action = {space:?}\nlength = 100"))).unwrap();
        let mut driver = Driver::new(&source, 2);
        driver.reset().unwrap();
        let mut random = stream(6, Purpose::Actions, [0; 3]);
        for step in 0..20 {
            let actions = random_actions(&source, 2, &mut random);
            driver.step(&actions).unwrap();
            for copy in 0..2 {
                let expected = echo(&source.spec().action, &as_json(&actions, 2)[copy], space);
                let reward = driver.rewards[copy];
                assert!(
                    (reward - expected).abs() <= 1e-4,
                    "{space}, copy {copy}, step {step}: {reward}, not {expected}"
                );
            }
        }
    }
}

/// What an echo answers to an action: its flat numbers weighted by their places from 1.
fn echo(space: &Space, action: &Value, name: &str) -> f32 {
    let given: Vec<f64> = match action {
        Value::Array(values) => values.iter().map(|value| value.as_f64().unwrap()).collect(),
        value => vec![value.as_f64().unwrap()],
    };
    let flat: Vec<f64> = match (space, name) {
        // Bits are numbers as they are.
        (_, "bits" | "bit field") => given,
        (Space::Box { .. }, "whole") => {
            given.iter().map(|value| value.round_ties_even().clamp(-5.0, 5.0)).collect()
        }
        (Space::Box { low, high, .. }, _) => {
            let bounds = low.iter().zip(high).map(|(l, h)| (f64::from(*l), f64::from(*h)));
            given.iter().zip(bounds).map(|(value, (low, high))| value.clamp(low, high)).collect()
        }
        // "aim", "fire" (a bit), "turn"; the others are choices from the first to the last.
        (choices, _) => {
            let codes = choices.choices().iter().zip(&given).enumerate();
            codes
                .flat_map(|(place, (&n, &value))| match (name, place) {
                    ("choice dict", 2) => vec![value],
                    _ => (0..n).map(|i| f64::from(u8::from(f64::from(i) == value))).collect(),
                })
                .collect()
        }
    };
    (1..).zip(flat).map(|(place, value): (i32, f64)| f64::from(place) * value).sum::<f64>() as f32
}

#[test]
fn no_autoreset_mode_lets_a_step_in_that_is_none_of_the_tasks() {
    let more = json!({"id": "impresario_test_envs:impresario_test/Counter-v0", "kwargs": {}});
    for name in ["VectorNEXT_STEP", "VectorSAME_STEP", "VectorDISABLED", "VectorChosen", "Counter"] {
        let (terminated, truncated) = same_as_gymnasium(&odd(name, ""), more.clone(), 4, 40);
        assert!(terminated > 5 && truncated > 5, "{name}: {terminated} and {truncated}");
    }
}

#[test]
fn wrappers_are_put_on_in_order_and_the_specification_is_gymnasiums() {
    let wrappers = vec![Wrapper::from("impresario_test_envs:Scaled"); 2];
    let scaled = EnvironmentSection { wrappers: wrappers.clone(), ..odd("Limited", "") };
    let (_, truncated) = same_as_gymnasium(&scaled, json!({"wrappers": wrappers}), 2, 10);
    assert!(truncated > 0);
    let spec = find(&scaled).unwrap().spec().clone();
    assert_eq!((spec.max_episode_steps, spec.solved_return), (Some(2), Some(12.5)));
    assert_eq!(spec.id, scaled.id);
}

#[test]
fn wrappers_are_called_with_their_arguments() {
    let rescale = Wrapper {
        kwargs: "min_action = -1.0\nmax_action = 1.0".parse().unwrap(),
        ..Wrapper::from("gymnasium.wrappers:RescaleAction")
    };
    let limit = Wrapper {
        kwargs: "max_episode_steps = 30".parse().unwrap(),
        ..Wrapper::from("gymnasium.wrappers:TimeLimit")
    };
    let wrappers = vec![rescale, limit];
    let section = EnvironmentSection { wrappers: wrappers.clone(), ..plain("gym:Pendulum-v1") };
    let (_, truncated) = same_as_gymnasium(&section, json!({"wrappers": wrappers}), 2, 70);
    assert_eq!(truncated, 4);
    let Space::Box { low, high, .. } = find(&section).unwrap().spec().action.clone() else {
        panic!("numbers")
    };
    assert_eq!((low, high), (vec![-1.0], vec![1.0]), "they were -2 and 2");
}
