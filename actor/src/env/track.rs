//! [`Track`]: the way that a copy of an environment has taken in its episode, by which another copy gets to the same place.
//!
//! An environment cannot be looked into; but it is the same again after the same episode. So what is kept is where the copy's
//! random stream stood when the episode began, and the actions since.

use std::sync::{Arc, Mutex, PoisonError};

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

/// Where a copy stands, by its way: what is kept of that is shared with the copy, and with other notes of the same episode.
#[derive(Debug, Clone)]
pub struct Standing {
    begun: SavedStream,
    now: Option<SavedStream>,
    /// The actions of the episode, to which the copy adds.
    way: Arc<Mutex<Array>>,
    /// Numbers in those taken by then.
    length: usize,
}

impl Standing {
    /// The same by itself, with a copy of the way.
    pub fn saved(&self) -> SavedCopy {
        let way = self.way.lock().unwrap_or_else(PoisonError::into_inner);
        let (choices, numbers) = match &*way {
            Array::I32(choices) => (choices[..self.length].to_vec(), vec![]),
            Array::F32(numbers) => (vec![], numbers[..self.length].to_vec()),
            // No space of actions has them.
            Array::U8(_) => (vec![], vec![]),
        };
        SavedCopy { begun: Some(self.begun.clone()), now: self.now.clone(), choices, numbers }
    }

    /// The copy's random stream; absent where no episode has begun.
    pub(crate) fn now(&self) -> Option<SavedStream> {
        self.now.clone()
    }

    /// Numbers in the actions taken.
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// Whether both are on the same way, in the same episode of the same copy.
    pub(crate) fn shares_way(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.way, &other.way)
    }
}

impl SavedCopy {
    /// A copy that stood on this way when it had taken actions of `length` numbers, and whose stream was `now`; `None` if the
    /// way is shorter.
    pub(crate) fn earlier(&self, length: usize, now: Option<SavedStream>) -> Option<Self> {
        let (choices, numbers) = match self.numbers.is_empty() {
            true => (self.choices.get(..length)?.to_vec(), vec![]),
            false => (vec![], self.numbers.get(..length)?.to_vec()),
        };
        Some(Self { begun: self.begun.clone(), now, choices, numbers })
    }
}

/// The way of a copy in its present episode.
#[derive(Debug)]
pub struct Track {
    begun: Stream,
    /// The actions up to the last note of where the copy stands, shared with such notes.
    way: Arc<Mutex<Array>>,
    /// Numbers in them.
    noted: usize,
    /// The actions since.
    recent: Array,
    started: bool,
    /// Whether the episode was too long to be kept.
    lost: bool,
}

impl Track {
    /// The way of a copy whose stream is `random` and which has begun no episode.
    pub fn new(random: &Stream, actions: ElementType) -> Self {
        let none = Array::zeros(actions, 0);
        Self {
            begun: random.clone(),
            way: Arc::new(Mutex::new(none.clone())),
            noted: 0,
            recent: none,
            started: false,
            lost: false,
        }
    }

    /// An episode is about to begin.
    pub fn begin(&mut self, random: &Stream) {
        self.begun.clone_from(random);
        self.recent.clear();
        if self.noted > 0 {
            self.way = Arc::new(Mutex::new(Array::zeros(self.recent.dtype(), 0)));
            self.noted = 0;
        }
        (self.started, self.lost) = (true, false);
    }

    /// A step is about to be taken.
    pub fn step(&mut self, action: Action<'_>) {
        self.lost |= self.noted + self.recent.len() >= MAX_ACTIONS;
        match (&mut self.recent, action) {
            _ if self.lost => {}
            (Array::I32(kept), Action::Discrete(choices)) => kept.extend_from_slice(choices),
            (Array::F32(kept), Action::Continuous(numbers)) => kept.extend_from_slice(numbers),
            _ => self.lost = true,
        }
    }

    /// The way so far, of a copy whose stream is now `random`; `None` if it is not kept. It takes the time of the actions since the
    /// last such note, however long the episode is.
    pub fn save(&mut self, random: &Stream) -> Option<Standing> {
        if self.lost {
            return None;
        }
        let recent = self.recent.len();
        if recent > 0 {
            let mut way = self.way.lock().unwrap_or_else(PoisonError::into_inner);
            way.extend_from(&self.recent, 0..recent);
            self.noted += recent;
            self.recent.clear();
        }
        let (begun, now) = ((&self.begun).into(), self.started.then(|| random.into()));
        Some(Standing { begun, now, way: self.way.clone(), length: self.noted })
    }
}

#[cfg(test)]
mod tests {
    use impresario_common::random::{Purpose, stream};

    use super::*;

    #[test]
    fn notes_of_an_episode_share_its_way_and_each_keeps_its_own_length() {
        let random = stream(1, Purpose::Environment, [0, 0, 0]);
        let mut track = Track::new(&random, ElementType::I32);
        let before = track.save(&random).unwrap();
        track.begin(&random);
        let mut notes = vec![];
        for action in 0..6 {
            notes.push(track.save(&random).unwrap());
            track.step(Action::Discrete(&[action]));
        }
        for (taken, note) in notes.iter().enumerate() {
            assert_eq!(note.saved().choices, (0..taken as i32).collect::<Vec<_>>());
            assert!(note.shares_way(&notes[0]), "one copy of the actions serves all notes");
        }
        assert_eq!((before.saved().choices, before.now()), (vec![], None), "and there was no episode before");
        let whole = notes[5].saved();
        let earlier = whole.earlier(notes[2].length(), notes[2].now());
        assert_eq!(earlier, Some(notes[2].saved()));
        assert_eq!(whole.earlier(6, None), None);

        track.begin(&random);
        track.step(Action::Discrete(&[9]));
        let next = track.save(&random).unwrap();
        assert!(!next.shares_way(&notes[5]));
        assert_eq!((next.saved().choices, notes[5].saved()), (vec![9], whole), "a new episode, a new way");
    }

    #[test]
    fn a_way_that_is_too_long_is_not_kept_and_the_next_one_is() {
        let random = stream(1, Purpose::Environment, [0, 0, 0]);
        let mut track = Track::new(&random, ElementType::F32);
        track.begin(&random);
        let half = vec![0.0; MAX_ACTIONS / 2];
        track.step(Action::Continuous(&half));
        assert!(track.save(&random).is_some());
        track.step(Action::Continuous(&half));
        assert!(track.save(&random).is_some());
        track.step(Action::Continuous(&[0.0]));
        assert!(track.save(&random).is_none());
        track.begin(&random);
        assert!(track.save(&random).is_some());
    }
}
