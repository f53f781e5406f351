//! All that an actor reads of what a Python worker says or leaves in shared memory, without a worker: bytes in its place, for tests of
//! what becomes of them. The very functions that the bridge reads with do it here.

use impresario_common::space::{EnvironmentSpec, Space};
use impresario_common::unroll::Array;

use super::failure::Failure;
use super::interpreter::{Interpreter, PythonFlag};
use super::link::{Problem, refused, take_answer, take_bytes};
use super::listing::Listed;
use super::memory::{self, Memory};
use super::process::{self, NO_FLAGS};
use super::protocol::Description;
use super::vector::take_step;
use crate::env::vector::Frame;
use crate::env::{FinalObservations, ObservationMut, VectorStep};

/// Copies of which memory is laid out.
const COPIES: usize = 2;

/// The environment called `id`, as `json` describes it.
///
/// # Errors
/// If it is no description, or contradicts itself.
pub fn described(id: &str, json: &[u8]) -> Result<EnvironmentSpec, String> {
    serde_json::from_slice::<Description>(json).map_err(|e| e.to_string())?.spec(id)
}

/// The environment called `id`, from the answer to what a worker was asked to make.
///
/// # Errors
/// If the answer is none, tells of a failure, or describes what memory cannot be laid out for.
pub fn made(id: &str, mut answer: &[u8]) -> Result<EnvironmentSpec, Failure> {
    let description: Description = take_answer(&mut answer).map_err(|problem| explained(problem, id))?;
    let size = description.picture_size();
    let spec = description.spec(id).map_err(Failure::Link)?;
    Memory::plan(&spec, COPIES, size).map_err(refused)?;
    Ok(spec)
}

/// What there is, from the answer to a request to list it.
///
/// # Errors
/// If the answer is none, or tells of a failure.
pub fn listed(mut answer: &[u8]) -> Result<Vec<Listed>, Failure> {
    take_answer(&mut answer).map_err(|problem| explained(problem, ""))
}

/// Whether a reset or step is done, from the answer to a ring.
///
/// # Errors
/// If the answer is none, or tells of a failure.
pub fn rung(mut answer: &[u8]) -> Result<(), Failure> {
    take_bytes::<0>(&mut answer).map_err(|problem| explained(problem, ""))?;
    Ok(())
}

/// Seconds that steps took, from the answer to a ring for that.
///
/// # Errors
/// If the answer is none, tells of a failure, or is no time.
pub fn timed(mut answer: &[u8]) -> Result<f64, Failure> {
    let told = take_bytes(&mut answer).map_err(|problem| explained(problem, ""))?;
    process::seconds(told).map_err(Failure::Link)
}

/// What a step led to that a worker says is done.
#[derive(Debug, Clone, PartialEq)]
pub struct Stepped {
    /// `[E, ...]`.
    pub observations: Array,
    /// `[E]`.
    pub rewards: Vec<f32>,
    /// `[E]`.
    pub terminated: Vec<u8>,
    /// `[E]`.
    pub truncated: Vec<u8>,
    /// The last observations of episodes that were truncated, with their copies.
    pub finals: Vec<(usize, Array)>,
    /// Pictures that came of it.
    pub pictures: usize,
}

/// A step in an environment with these spaces and pictures of 2 x 3 pixels, after which `bytes` are in the memory that is shared with its
/// worker, from its beginning.
///
/// # Errors
/// If they are nothing that a worker writes.
pub fn stepped(observation: &Space, action: &Space, bytes: &[u8]) -> Result<Stepped, Failure> {
    let spec = EnvironmentSpec::new("Thing-v0", observation.clone(), action.clone());
    let file = memory::create().map_err(refused)?;
    let (mut memory, _) = Memory::new(&file, &spec, COPIES, [3, 2]).map_err(refused)?;
    memory.scribble(bytes);
    if !memory.flags_are_flags() {
        return Err(Failure::Link(NO_FLAGS.into()));
    }
    let zeros = || Array::zeros(spec.observation.dtype(), spec.observation.len());
    let pictures = process::pictures(&mut memory, 0.1).len();
    let mut observations = Array::zeros(spec.observation.dtype(), COPIES * spec.observation.len());
    let (mut rewards, mut terminated, mut truncated) = ([0.0; COPIES], [0; COPIES], [0; COPIES]);
    let mut finals = Finals { room: zeros(), taken: vec![] };
    let out = VectorStep {
        observations: room(&mut observations),
        rewards: &mut rewards,
        terminated: &mut terminated,
        truncated: &mut truncated,
        final_observations: &mut finals,
    };
    take_step(&mut memory, &Frame::new(spec.clone(), COPIES), out)
        .map_err(|e| Failure::Link(e.to_string()))?;
    let finals = finals.taken;
    Ok(Stepped {
        observations,
        rewards: rewards.to_vec(),
        terminated: terminated.to_vec(),
        truncated: truncated.to_vec(),
        finals,
        pictures,
    })
}

fn explained(problem: Problem, name: &str) -> Failure {
    match problem {
        Problem::Io(error) => refused(error),
        Problem::Told(told) => Failure::told(told, name, &Interpreter::choose(&PythonFlag::default())),
    }
}

/// Keeps final observations.
#[derive(Debug)]
struct Finals {
    room: Array,
    taken: Vec<(usize, Array)>,
}

impl FinalObservations for Finals {
    fn slot(&mut self, copy: usize) -> ObservationMut<'_> {
        self.taken.push((copy, self.room.clone()));
        let (_, taken) = self.taken.last_mut().expect("it was pushed");
        room(taken)
    }
}

fn room(array: &mut Array) -> ObservationMut<'_> {
    match array {
        Array::F32(values) => ObservationMut::F32(values),
        Array::U8(values) => ObservationMut::U8(values),
        Array::I32(values) => ObservationMut::I32(values),
    }
}
