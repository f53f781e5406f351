//! The bridge to Gymnasium, against Gymnasium itself.
//!
//! - `trajectories`: what the actor sees is what Gymnasium does alone, in its own environments and in odd ones;
//! - `atari`: games prepared as the literature does;
//! - `film`: pictures of environments that draw themselves;
//! - `alone`: how fast copies are without the bridge;
//! - `trouble`: what cannot be made, and workers that fail.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod alone;
mod atari;
mod film;
#[path = "../../../tests/support/python.rs"]
mod python;
mod trajectories;
mod trouble;

use impresario_actor::env::gymnasium::interpreter::PythonFlag;
use impresario_actor::env::registry::Registry;
use impresario_actor::env::source::{Environments, Source, SourceError};
use impresario_actor::env::{
    Action, EnvironmentError, FinalObservations, ObservationMut, VectorEnvironment, VectorStep,
};
use impresario_common::config::EnvironmentSection;
use impresario_common::random::{Purpose, Stream, stream};
use impresario_common::space::ElementType;
use impresario_common::unroll::Array;
use rand::RngExt;

/// Environments of the tests' Python, with no native ones in the way.
fn environments() -> Environments {
    let python = PythonFlag { python: Some(python::interpreter().into()) };
    Environments::new(Registry::empty(), &python)
}

fn find(section: &EnvironmentSection) -> Result<Source, SourceError> {
    environments().find(section)
}

/// An environment of the tests' own package.
fn odd(name: &str, kwargs: &str) -> EnvironmentSection {
    EnvironmentSection {
        kwargs: kwargs.parse().unwrap(),
        ..EnvironmentSection::new(format!("impresario_test_envs:impresario_test/{name}-v0"))
    }
}

fn streams(copies: u32) -> Vec<Stream> {
    (0..copies).map(|copy| stream(11, Purpose::Environment, [0, 0, copy])).collect()
}

/// The seeds that copies with these streams begin with.
fn seeds(streams: &[Stream]) -> Vec<i64> {
    streams.iter().cloned().map(|mut stream| stream.random_range(0..1i64 << 31)).collect()
}

/// A vector and room for what it gives.
struct Driver {
    vector: Box<dyn VectorEnvironment>,
    observations: Array,
    rewards: Vec<f32>,
    terminated: Vec<u8>,
    truncated: Vec<u8>,
    finals: Finals,
}

/// Final observations of one step, and whose they are.
#[derive(Debug)]
struct Finals {
    observations: Array,
    len: usize,
    copies: Vec<usize>,
}

impl FinalObservations for Finals {
    fn slot(&mut self, copy: usize) -> ObservationMut<'_> {
        self.copies.push(copy);
        let start = self.observations.len();
        self.observations.resize(start + self.len);
        whole(&mut self.observations).tail(start)
    }
}

trait Tail<'a> {
    fn tail(self, start: usize) -> ObservationMut<'a>;
}

impl<'a> Tail<'a> for ObservationMut<'a> {
    fn tail(self, start: usize) -> ObservationMut<'a> {
        match self {
            ObservationMut::F32(values) => ObservationMut::F32(&mut values[start..]),
            ObservationMut::U8(values) => ObservationMut::U8(&mut values[start..]),
            ObservationMut::I32(values) => ObservationMut::I32(&mut values[start..]),
        }
    }
}

fn whole(array: &mut Array) -> ObservationMut<'_> {
    match array {
        Array::F32(values) => ObservationMut::F32(values),
        Array::U8(values) => ObservationMut::U8(values),
        Array::I32(values) => ObservationMut::I32(values),
    }
}

fn numbers(array: &Array, copy: usize, len: usize) -> Vec<f64> {
    let range = copy * len..(copy + 1) * len;
    match array {
        Array::F32(values) => values[range].iter().copied().map(f64::from).collect(),
        Array::U8(values) => values[range].iter().copied().map(f64::from).collect(),
        Array::I32(values) => values[range].iter().copied().map(f64::from).collect(),
    }
}

impl Driver {
    fn new(source: &Source, copies: u32) -> Self {
        let (observation, n) = (&source.spec().observation, copies as usize);
        let room = |len| Array::zeros(observation.dtype(), len);
        Self {
            vector: source.make_vector(streams(copies)).unwrap(),
            observations: room(n * observation.len()),
            rewards: vec![0.0; n],
            terminated: vec![0; n],
            truncated: vec![0; n],
            finals: Finals { observations: room(0), len: observation.len(), copies: vec![] },
        }
    }

    fn reset(&mut self) -> Result<(), EnvironmentError> {
        self.vector.reset(whole(&mut self.observations))
    }

    fn step(&mut self, actions: &Array) -> Result<(), EnvironmentError> {
        self.finals.observations.resize(0);
        self.finals.copies.clear();
        let actions = match actions {
            Array::I32(choices) => Action::Discrete(choices),
            Array::F32(values) => Action::Continuous(values),
            Array::U8(_) => panic!("no action is made of bytes"),
        };
        let out = VectorStep {
            observations: whole(&mut self.observations),
            rewards: &mut self.rewards,
            terminated: &mut self.terminated,
            truncated: &mut self.truncated,
            final_observations: &mut self.finals,
        };
        self.vector.step(actions, out)
    }

    /// The observation of a copy.
    fn observed(&self, copy: usize) -> Vec<f64> {
        numbers(&self.observations, copy, self.finals.len)
    }

    /// The final observation of a copy, if its episode was truncated and did not terminate.
    fn last(&self, copy: usize) -> Option<Vec<f64>> {
        let place = self.finals.copies.iter().position(|&c| c == copy)?;
        Some(numbers(&self.finals.observations, place, self.finals.len))
    }
}

/// Random actions for all copies, some beyond the bounds of a box.
fn random_actions(source: &Source, copies: usize, random: &mut Stream) -> Array {
    let action = &source.spec().action;
    match action.dtype() {
        ElementType::F32 => {
            Array::F32((0..copies * action.len()).map(|_| random.random_range(-1.5..1.5)).collect())
        }
        _ => Array::I32(
            (0..copies)
                .flat_map(|_| action.choices().to_vec())
                .map(|n| random.random_range(0..n as i32))
                .collect(),
        ),
    }
}
