//! Composite spaces and their elements against Gymnasium's `flatten_space` and `flatten`.
//!
//! The fixture is written by `tests/oracles/gymnasium_flatten.py`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use impresario_common::composite::{Composite, Layout};
use impresario_common::space::{ElementType, Space};
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixture {
    versions: BTreeMap<String, String>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    space: Description,
    low: Vec<String>,
    high: Vec<String>,
    /// Path and numbers of each part of each element.
    elements: Vec<Vec<(String, Vec<f64>)>>,
    flat: Vec<Vec<f64>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Description {
    Dict { dict: BTreeMap<String, Description> },
    Tuple { tuple: Vec<Description> },
    Choices { choices: Vec<u32>, discrete: bool },
    Box { low: Vec<String>, high: Vec<String>, shape: Vec<usize>, bytes: bool },
}

fn bounds(texts: &[String]) -> Vec<f32> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn composite(description: &Description) -> Composite {
    match description {
        Description::Dict { dict } => {
            Composite::dict(dict.iter().map(|(name, part)| (name.clone(), composite(part))))
        }
        Description::Tuple { tuple } => Composite::Tuple(tuple.iter().map(composite).collect()),
        Description::Choices { choices, discrete: true } => Space::Discrete { n: choices[0] }.into(),
        Description::Choices { choices, .. } => Space::MultiDiscrete { nvec: choices.clone() }.into(),
        Description::Box { low, high, shape, bytes } => {
            let dtype = if *bytes { ElementType::U8 } else { ElementType::F32 };
            Space::Box { low: bounds(low), high: bounds(high), shape: shape.clone(), dtype }.into()
        }
    }
}

fn write(layout: &Layout, element: &[(String, Vec<f64>)]) -> Vec<f32> {
    let mut row = vec![0.0; layout.len()];
    let mut writer = layout.writer(&mut row);
    for (path, values) in element {
        let field = layout.fields().iter().find(|field| field.path == *path).unwrap();
        match &field.space {
            Space::Box { dtype: ElementType::U8, .. } => {
                writer.bytes(path, &values.iter().map(|v| *v as u8).collect::<Vec<_>>());
            }
            Space::Box { .. } => {
                writer.numbers(path, &values.iter().map(|v| *v as f32).collect::<Vec<_>>());
            }
            _ => {
                writer.choices(path, &values.iter().map(|v| *v as i32).collect::<Vec<_>>());
            }
        }
    }
    row
}

/// Gymnasium leaves bytes as they are; here they are divided by the largest of their space, 255.
fn with_bytes_divided(layout: &Layout, mut flat: Vec<f32>) -> Vec<f32> {
    for field in layout.fields() {
        if matches!(field.space, Space::Box { dtype: ElementType::U8, .. }) {
            flat[field.range()].iter_mut().for_each(|byte| *byte /= 255.0);
        }
    }
    flat
}

#[test]
fn spaces_and_elements_are_flattened_as_gymnasium_does() {
    let fixture: Fixture = serde_json::from_str(include_str!("fixtures/gymnasium_flatten.json")).unwrap();
    assert!(fixture.versions["gymnasium"].starts_with("1."));
    assert_eq!(fixture.cases.len(), 3);
    for case in fixture.cases {
        let (space, layout) = composite(&case.space).flatten();
        let [low, high] = [&case.low, &case.high].map(|bound| with_bytes_divided(&layout, bounds(bound)));
        assert_eq!(space, Space::boxed(&low, &high));
        assert_eq!(space.len(), layout.len());
        for (element, flat) in case.elements.iter().zip(&case.flat) {
            let flat: Vec<f32> = flat.iter().map(|x| *x as f32).collect();
            assert_eq!(write(&layout, element), with_bytes_divided(&layout, flat));
        }
        let json = serde_json::to_string(&layout).unwrap();
        // JSON has no infinities, which a box may have for bounds: only finite layouts survive it.
        if !case.low.iter().any(|bound| bound.contains("inf")) {
            assert_eq!(serde_json::from_str::<Layout>(&json).unwrap(), layout);
        }
    }
}

#[test]
fn parts_have_paths_and_what_is_left_out_stays_nan() {
    let (space, layout) = Composite::dict([
        (
            "joints",
            Composite::Tuple(vec![
                Space::boxed(&[-1.0; 2], &[1.0; 2]).into(),
                Space::Discrete { n: 3 }.into(),
            ]),
        ),
        ("goal", Space::MultiDiscrete { nvec: vec![2, 2] }.into()),
    ])
    .flatten();
    assert_eq!(space.len(), 9);
    let parts: Vec<_> = layout.fields().iter().map(|f| (f.path.as_str(), f.range())).collect();
    assert_eq!(parts, [("goal", 0..4), ("joints.0", 4..6), ("joints.1", 6..9)]);
    let mut row = vec![0.0; 9];
    layout.writer(&mut row).choices("goal", &[1, 0]).numbers("joints.0", &[0.5, -0.5]);
    assert_eq!(row[..6], [0.0, 1.0, 1.0, 0.0, 0.5, -0.5]);
    assert!(row[6..].iter().all(|x| x.is_nan()));
}

#[test]
#[should_panic(expected = "the observation has no part \"goals\"; it has [\"goal\"]")]
fn a_part_that_is_not_there_is_answered_with_those_that_are() {
    let (_, layout) = Composite::dict([("goal", Space::Discrete { n: 2 }.into())]).flatten();
    layout.writer(&mut [0.0; 2]).choices("goals", &[1]);
}

#[test]
#[should_panic(expected = "goal is Discrete(2), of which 2 is no choice")]
fn a_choice_out_of_range_is_refused() {
    let (_, layout) = Composite::dict([("goal", Space::Discrete { n: 2 }.into())]).flatten();
    layout.writer(&mut [0.0; 2]).choices("goal", &[2]);
}
