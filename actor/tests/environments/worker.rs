//! What a rollout worker keeps: room for one step of a vector.

use impresario_actor::env::{
    Action, EnvironmentError, FinalObservations, ObservationMut, VectorEnvironment, VectorStep,
};
use impresario_common::random::{Purpose, Stream, stream};
use impresario_common::space::ElementType;
use impresario_common::unroll::Array;

#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) observations: Array,
    pub(crate) rewards: Vec<f32>,
    pub(crate) terminated: Vec<u8>,
    pub(crate) truncated: Vec<u8>,
    pub(crate) finals: Finals,
}

/// Final observations in the order they came, each with its copy.
#[derive(Debug)]
pub(crate) struct Finals {
    pub(crate) numbers: usize,
    dtype: ElementType,
    pub(crate) taken: Vec<(usize, Array)>,
}

impl FinalObservations for Finals {
    fn slot(&mut self, copy: usize) -> ObservationMut<'_> {
        self.taken.push((copy, Array::zeros(self.dtype, self.numbers)));
        room(&mut self.taken.last_mut().unwrap().1)
    }
}

impl Worker {
    pub(crate) fn new(vector: &dyn VectorEnvironment) -> Self {
        let (copies, space) = (vector.copies(), &vector.spec().observation);
        let (numbers, dtype) = (space.len(), space.dtype());
        // Nothing that an environment would write.
        let observations = match dtype {
            ElementType::F32 => Array::F32(vec![f32::NAN; copies * numbers]),
            ElementType::U8 => Array::U8(vec![u8::MAX; copies * numbers]),
            ElementType::I32 => Array::I32(vec![i32::MIN; copies * numbers]),
        };
        Self {
            observations,
            rewards: vec![f32::NAN; copies],
            terminated: vec![u8::MAX; copies],
            truncated: vec![u8::MAX; copies],
            finals: Finals { numbers, dtype, taken: vec![] },
        }
    }

    pub(crate) fn reset(vector: &mut dyn VectorEnvironment) -> Self {
        let mut worker = Self::new(vector);
        vector.reset(room(&mut worker.observations)).unwrap();
        worker
    }

    pub(crate) fn step(
        &mut self,
        vector: &mut dyn VectorEnvironment,
        actions: Action<'_>,
    ) -> Result<(), EnvironmentError> {
        let Self { observations, rewards, terminated, truncated, finals } = self;
        finals.taken.clear();
        let observations = room(observations);
        let step = VectorStep { observations, rewards, terminated, truncated, final_observations: finals };
        vector.step(actions, step)
    }

    /// Takes a step of choices, one for each copy.
    pub(crate) fn choose(&mut self, vector: &mut dyn VectorEnvironment, choices: &[i32]) {
        self.step(vector, Action::Discrete(choices)).unwrap();
    }

    /// What `copy` sees.
    pub(crate) fn seen(&self, copy: usize) -> Vec<f32> {
        numbers(&self.observations)[copy * self.finals.numbers..(copy + 1) * self.finals.numbers].to_vec()
    }
}

fn room(array: &mut Array) -> ObservationMut<'_> {
    match array {
        Array::F32(values) => ObservationMut::F32(values),
        Array::U8(values) => ObservationMut::U8(values),
        Array::I32(values) => ObservationMut::I32(values),
    }
}

/// The elements, whatever their type.
pub(crate) fn numbers(array: &Array) -> Vec<f32> {
    match array {
        Array::F32(values) => values.clone(),
        Array::U8(values) => values.iter().map(|&value| value.into()).collect(),
        Array::I32(values) => values.iter().map(|&value| value as f32).collect(),
    }
}

pub(crate) fn streams(seed: u64, copies: u32) -> Vec<Stream> {
    (0..copies).map(|copy| stream(seed, Purpose::Environment, [0, 0, copy])).collect()
}

/// A stream for a test's own choices.
pub(crate) fn choices(seed: u64) -> Stream {
    stream(seed, Purpose::Actions, [0; 3])
}
