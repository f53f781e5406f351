//! [`Stage`]: copies of an environment that play at random, and what they wrote last. A panic is an error like any other here.

use std::cell::RefCell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};

use impresario_actor::env::{Action, FinalObservations, ObservationMut, VectorEnvironment, VectorStep};
use impresario_common::random::{Purpose, Stream, normal, stream};
use impresario_common::space::{ElementType, EnvironmentSpec, Space};
use impresario_common::unroll::Array;
use rand::RngExt;

use super::Subject;

/// What is in the room for observations before they are written: two patterns that no environment writes by chance in
/// both of two runs, or whatever was there before, which costs no time.
#[derive(Debug, Clone, Copy)]
pub(super) enum Blank {
    First,
    Second,
    Untouched,
}

impl Blank {
    /// One of two numbers that are none.
    fn f32(self) -> f32 {
        f32::from_bits(if matches!(self, Self::First) { 0x7fc0_0a0a } else { 0x7fc0_0b0b })
    }

    fn u8(self) -> u8 {
        if matches!(self, Self::First) { 0xa5 } else { 0x5a }
    }

    fn i32(self) -> i32 {
        if matches!(self, Self::First) { i32::MIN + 10 } else { i32::MIN + 11 }
    }

    fn fill(self, array: &mut Array) {
        if matches!(self, Self::Untouched) {
            return;
        }
        match array {
            Array::F32(values) => values.fill(self.f32()),
            Array::U8(values) => values.fill(self.u8()),
            Array::I32(values) => values.fill(self.i32()),
        }
    }
}

/// How far actions go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// Within the action space.
    Within,
    /// Real numbers beyond the bounds as well, as a Gaussian draws them.
    Beyond,
}

/// An action for every copy.
#[derive(Debug)]
pub(super) enum Drawn {
    Choices(Vec<i32>),
    Numbers(Vec<f32>),
}

/// Copies that play at random, each with actions of a stream of its own.
pub(super) struct Stage {
    vector: Box<dyn VectorEnvironment>,
    spec: EnvironmentSpec,
    blank: Blank,
    choices: Vec<Stream>,
    pub(super) observations: Array,
    pub(super) rewards: Vec<f32>,
    pub(super) terminated: Vec<u8>,
    pub(super) truncated: Vec<u8>,
    /// `[E, M]`; empty where the environment masks none.
    pub(super) masks: Vec<u8>,
    pub(super) finals: Finals,
}

/// The final observations of the last step, each with its copy.
#[derive(Debug)]
pub(super) struct Finals {
    dtype: ElementType,
    len: usize,
    blank: Blank,
    pub(super) taken: Vec<(usize, Array)>,
}

impl FinalObservations for Finals {
    fn slot(&mut self, copy: usize) -> ObservationMut<'_> {
        let mut array = Array::zeros(self.dtype, self.len);
        self.blank.fill(&mut array);
        self.taken.push((copy, array));
        room(&mut self.taken.last_mut().expect("it was pushed just now").1)
    }
}

/// What stands at the same places of two arrays.
fn pairs<T: Copy>(a: &[T], b: &[T], place: Range<usize>) -> impl Iterator<Item = (T, T)> {
    a[place.clone()].iter().copied().zip(b[place].iter().copied())
}

fn room(array: &mut Array) -> ObservationMut<'_> {
    match array {
        Array::F32(values) => ObservationMut::F32(values),
        Array::U8(values) => ObservationMut::U8(values),
        Array::I32(values) => ObservationMut::I32(values),
    }
}

impl Stage {
    /// Copies of `subject` whose randomness follows from `seeds[0]`, and their actions from `seeds[1]`.
    pub(super) fn new(
        subject: &Subject<'_>,
        seeds: [u64; 2],
        copies: usize,
        blank: Blank,
    ) -> Result<Self, String> {
        let streams = |seed, purpose| (0..copies as u32).map(|i| stream(seed, purpose, [0, 0, i])).collect();
        let vector = guarded(|| (subject.make)(streams(seeds[0], Purpose::Environment)))?;
        let spec = subject.spec.clone();
        let (dtype, len) = (spec.observation.dtype(), spec.observation.len());
        let masks = if spec.masks_actions { copies * spec.action.alternatives() } else { 0 };
        Ok(Self {
            vector,
            blank,
            choices: streams(seeds[1], Purpose::Actions),
            observations: Array::zeros(dtype, copies * len),
            rewards: vec![0.0; copies],
            terminated: vec![0; copies],
            truncated: vec![0; copies],
            masks: vec![0; masks],
            finals: Finals { dtype, len, blank, taken: vec![] },
            spec,
        })
    }

    pub(super) fn copies(&self) -> usize {
        self.rewards.len()
    }

    /// Where the observation of a copy stands.
    pub(super) fn place(&self, copy: usize) -> Range<usize> {
        copy * self.finals.len..(copy + 1) * self.finals.len
    }

    /// The first number of the observation of `copy` that nobody wrote, here and in `other`, which has another blank.
    pub(super) fn unwritten(&self, other: &Self, copy: usize) -> Option<usize> {
        let place = self.place(copy);
        match (&self.observations, &other.observations) {
            (Array::F32(a), Array::F32(b)) => {
                let blank = [self.blank, other.blank].map(|blank| blank.f32().to_bits());
                pairs(a, b, place).position(|(a, b)| [a.to_bits(), b.to_bits()] == blank)
            }
            (Array::U8(a), Array::U8(b)) => {
                let blank = [self.blank, other.blank].map(Blank::u8);
                pairs(a, b, place).position(|(a, b)| [a, b] == blank)
            }
            (Array::I32(a), Array::I32(b)) => {
                let blank = [self.blank, other.blank].map(Blank::i32);
                pairs(a, b, place).position(|(a, b)| [a, b] == blank)
            }
            _ => None,
        }
    }

    /// Starts an episode in every copy.
    pub(super) fn reset(&mut self) -> Result<(), String> {
        let Self { vector, observations, .. } = self;
        self.blank.fill(observations);
        guarded(|| vector.reset(room(observations)).map_err(|e| e.to_string()))?;
        self.look_at_masks()
    }

    /// Takes a random legal action in every copy.
    pub(super) fn step(&mut self, reach: Reach) -> Result<(), String> {
        let drawn = self.draw(reach);
        self.take(&drawn)
    }

    /// Draws a random legal action for every copy.
    pub(super) fn draw(&mut self, reach: Reach) -> Drawn {
        match self.spec.action.dtype() {
            ElementType::I32 => Drawn::Choices(self.draw_choices()),
            _ => Drawn::Numbers(self.draw_numbers(reach)),
        }
    }

    /// Takes actions that were drawn.
    pub(super) fn take(&mut self, drawn: &Drawn) -> Result<(), String> {
        let Self { vector, observations, rewards, terminated, truncated, finals, .. } = self;
        self.blank.fill(observations);
        finals.taken.clear();
        let observations = room(observations);
        let out = VectorStep { observations, rewards, terminated, truncated, final_observations: finals };
        let actions = match drawn {
            Drawn::Choices(choices) => Action::Discrete(choices),
            Drawn::Numbers(numbers) => Action::Continuous(numbers),
        };
        guarded(|| vector.step(actions, out).map_err(|e| e.to_string()))?;
        self.look_at_masks()
    }

    /// Seconds that steps at random take in another process that copies step in, if they do.
    pub(super) fn seconds_alone(&mut self, steps: u32) -> Result<Option<f64>, String> {
        guarded(|| self.vector.seconds_alone(steps).map_err(|e| e.to_string()))
    }

    fn look_at_masks(&mut self) -> Result<(), String> {
        let Self { vector, masks, .. } = self;
        if masks.is_empty() {
            return Ok(());
        }
        masks.fill(u8::MAX);
        guarded(|| vector.legal_actions(masks).map_err(|e| e.to_string()))
    }

    /// `[E, k]`: for each choice any of the legal alternatives.
    fn draw_choices(&mut self) -> Vec<i32> {
        let width = self.spec.action.alternatives();
        let mut actions = vec![];
        for (copy, stream) in self.choices.iter_mut().enumerate() {
            let mut first = copy * width;
            for &n in self.spec.action.choices() {
                let n = n as usize;
                let is_legal = |i: &usize| self.masks.get(first + i).is_none_or(|&legal| legal == 1);
                let legal: Vec<usize> = (0..n).filter(is_legal).collect();
                let drawn: f64 = stream.random();
                let drawn = (drawn * legal.len() as f64) as usize;
                // Without a legal alternative, which is told elsewhere, any will do.
                actions.push(legal.get(drawn).copied().unwrap_or(0) as i32);
                first += n;
            }
        }
        actions
    }

    /// `[E, D]`: anything within the bounds, or a normal number as wide as they are.
    fn draw_numbers(&mut self, reach: Reach) -> Vec<f32> {
        let Space::Box { low, high, .. } = &self.spec.action else { return vec![] };
        let mut actions = vec![];
        for stream in &mut self.choices {
            for (&low, &high) in low.iter().zip(high) {
                let bounded = low.is_finite() && high.is_finite();
                let (uniform, normal) = (stream.random::<f32>(), normal(stream) as f32);
                actions.push(match reach {
                    Reach::Within if bounded => low + uniform * (high - low),
                    Reach::Beyond if bounded => (low + high) / 2.0 + normal * (high - low),
                    _ => normal.clamp(low, high),
                });
            }
        }
        actions
    }
}

thread_local! {
    /// What the last panic said, with its place.
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Does `work` while panics print nothing.
pub(super) fn quietly<T>(work: impl FnOnce() -> T) -> T {
    let before = take_hook();
    set_hook(Box::new(|panic| {
        let told = panic.to_string();
        LAST_PANIC.replace(told);
    }));
    let done = work();
    set_hook(before);
    done
}

/// Does what an environment's author wrote; a panic in it is an error.
fn guarded<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    // What panicked is not used again.
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(format!("it panicked: {}", LAST_PANIC.take().replace('\n', " "))))
}
