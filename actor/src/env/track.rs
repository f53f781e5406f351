//! [`Track`]: the way that a copy of an environment has taken in its episode, by which another copy gets to the same place.
//!
//! An environment cannot be looked into; but it is the same again after the same episode. So what is kept is where the copy's
//! random stream stood when the episode began, and the actions since.

use impresario_common::random::Stream;
use impresario_common::space::ElementType;
use impresario_common::unroll::Array;
use prost::Message;
use rand::SeedableRng;

use super::Action;

/// Numbers in the actions of an episode beyond which its way is not kept.
const MAX_ACTIONS: usize = 1 << 20;

/// A random stream, at a place.
#[derive(Clone, PartialEq, Message)]
pub struct SavedStream {
    /// 32 bytes.
    #[prost(bytes = "vec", tag = "1")]
    seed: Vec<u8>,
    /// Words drawn, as 16 little-endian bytes.
    #[prost(bytes = "vec", tag = "2")]
    words: Vec<u8>,
}

impl From<&Stream> for SavedStream {
    fn from(stream: &Stream) -> Self {
        Self { seed: stream.get_seed().to_vec(), words: stream.get_word_pos().to_le_bytes().to_vec() }
    }
}

impl SavedStream {
    /// The stream, at the place; `None` if that is none.
    pub fn stream(&self) -> Option<Stream> {
        let mut stream = Stream::from_seed(self.seed.as_slice().try_into().ok()?);
        stream.set_word_pos(u128::from_le_bytes(self.words.as_slice().try_into().ok()?));
        Some(stream)
    }
}

/// A copy of an environment in the middle of an episode, by the way that it has taken.
#[derive(Clone, PartialEq, Message)]
pub struct SavedCopy {
    /// Its stream when the episode began,
    #[prost(message, optional, tag = "1")]
    pub begun: Option<SavedStream>,
    /// and now; absent where no episode has begun.
    #[prost(message, optional, tag = "2")]
    pub now: Option<SavedStream>,
    /// The actions since then, of one of the types.
    #[prost(int32, repeated, tag = "3")]
    pub choices: Vec<i32>,
    /// See `choices`.
    #[prost(float, repeated, tag = "4")]
    pub numbers: Vec<f32>,
}

/// The way of a copy in its present episode.
#[derive(Debug)]
pub struct Track {
    begun: Stream,
    actions: Array,
    started: bool,
    /// Whether the episode was too long to be kept.
    lost: bool,
}

impl Track {
    /// The way of a copy whose stream is `random` and which has begun no episode.
    pub fn new(random: &Stream, actions: ElementType) -> Self {
        Self { begun: random.clone(), actions: Array::zeros(actions, 0), started: false, lost: false }
    }

    /// An episode is about to begin.
    pub fn begin(&mut self, random: &Stream) {
        self.begun.clone_from(random);
        self.actions.clear();
        (self.started, self.lost) = (true, false);
    }

    /// A step is about to be taken.
    pub fn step(&mut self, action: Action<'_>) {
        self.lost |= self.actions.len() >= MAX_ACTIONS;
        match (&mut self.actions, action) {
            _ if self.lost => {}
            (Array::I32(kept), Action::Discrete(choices)) => kept.extend_from_slice(choices),
            (Array::F32(kept), Action::Continuous(numbers)) => kept.extend_from_slice(numbers),
            _ => self.lost = true,
        }
    }

    /// The way so far, of a copy whose stream is now `random`; `None` if it is not kept.
    pub fn save(&self, random: &Stream) -> Option<SavedCopy> {
        let (choices, numbers) = match &self.actions {
            Array::I32(choices) => (choices.clone(), vec![]),
            Array::F32(numbers) => (vec![], numbers.clone()),
            Array::U8(_) => return None,
        };
        let (begun, now) = (Some((&self.begun).into()), self.started.then(|| random.into()));
        (!self.lost).then_some(SavedCopy { begun, now, choices, numbers })
    }
}
