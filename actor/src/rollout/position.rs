//! [`Position`]: where a worker stands between two unrolls, so that another process can go on from there.
//!
//! A lockstep run that is stopped in good order and resumed takes the very same way as one that was never stopped, although its
//! actors are new processes. The learner keeps positions without looking into them.

use std::collections::VecDeque;

use impresario_common::wire::v1;
use prost::Message;

use crate::env::track::{SavedCopy, SavedStream, Standing};

/// Where a worker stands before an unroll, as it is noted while it works: the ways of its copies are shared with them, so that a
/// note costs the same however long episodes are.
#[derive(Debug, Clone)]
pub struct Note {
    /// All but `copies`.
    pub(crate) position: Position,
    /// One a copy.
    pub(crate) copies: Vec<Standing>,
}

impl Note {
    /// The same by itself.
    pub fn position(&self) -> Position {
        Position { copies: self.copies.iter().map(Standing::saved).collect(), ..self.position.clone() }
    }
}

/// What the sampler itself knows of a copy.
#[derive(Clone, PartialEq, Message)]
pub struct SavedEpisode {
    /// Return so far.
    #[prost(double, tag = "1")]
    pub undiscounted_return: f64,
    /// Steps so far.
    #[prost(uint32, tag = "2")]
    pub length: u32,
    /// Where its actions are drawn from.
    #[prost(message, optional, tag = "3")]
    pub actions: Option<SavedStream>,
}

/// Where a worker stands before an unroll.
#[derive(Clone, PartialEq, Message)]
pub struct Position {
    /// The unroll's grant; `u64::MAX` if none has been given for it yet.
    #[prost(uint64, tag = "1")]
    pub grant: u64,
    /// Whether episodes have been started.
    #[prost(bool, tag = "2")]
    pub started: bool,
    /// One a copy; absent where `stages` are there.
    #[prost(message, repeated, tag = "3")]
    pub copies: Vec<SavedCopy>,
    /// One a copy.
    #[prost(message, repeated, tag = "4")]
    pub episodes: Vec<SavedEpisode>,
    /// The unroll before, whose last observations are where the next one starts.
    #[prost(message, optional, tag = "5")]
    pub unroll: Option<v1::Unroll>,
    /// `[E, S]`: what the policy remembers.
    #[prost(float, repeated, tag = "6")]
    pub core_states: Vec<f32>,
    /// `[E, H, D]`: noise that is a function of the state,
    #[prost(float, repeated, tag = "7")]
    pub noise: Vec<f32>,
    /// and the steps that it has served, and one; 0 where a new one is due.
    #[prost(uint32, repeated, tag = "8")]
    pub noise_ages: Vec<u32>,
    /// One a copy: where it stood on ways that several positions share.
    #[prost(message, repeated, tag = "9")]
    pub(super) stages: Vec<SavedStage>,
}

/// Where a copy stood on a way.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SavedStage {
    /// Which of the worker's ways.
    #[prost(uint32, tag = "1")]
    way: u32,
    /// Numbers in the actions taken by then.
    #[prost(uint32, tag = "2")]
    length: u32,
    /// The copy's stream by then; absent where no episode had begun.
    #[prost(message, optional, tag = "3")]
    now: Option<SavedStream>,
}

/// The last positions of each of an actor's workers.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Positions {
    /// The worker whose turn it was for the grant of index 0.
    #[prost(uint64, tag = "1")]
    pub(crate) first_turn: u64,
    #[prost(message, repeated, tag = "2")]
    workers: Vec<WorkerPositions>,
}

#[derive(Clone, PartialEq, Message)]
struct WorkerPositions {
    /// In the order of their grants.
    #[prost(message, repeated, tag = "1")]
    positions: Vec<Position>,
    /// What their stages are of, each as far as the last of the positions got.
    #[prost(message, repeated, tag = "2")]
    ways: Vec<SavedCopy>,
}

impl WorkerPositions {
    /// Positions with each action of each copy told once.
    fn new(notes: &VecDeque<Note>) -> Self {
        let mut ways = vec![];
        // Of each copy, where it stood at the note after, and the number of that way.
        let mut after: Vec<Option<(&Standing, u32)>> = vec![];
        let mut positions = vec![];
        for note in notes.iter().rev() {
            let mut stages = vec![];
            after.resize(note.copies.len(), None);
            for (standing, after) in note.copies.iter().zip(&mut after) {
                let way = match after {
                    Some((later, way)) if standing.shares_way(later) => *way,
                    _ => {
                        ways.push(standing.saved());
                        ways.len() as u32 - 1
                    }
                };
                *after = Some((standing, way));
                stages.push(SavedStage { way, length: standing.length() as u32, now: standing.now() });
            }
            positions.push(Position { stages, ..note.position.clone() });
        }
        positions.reverse();
        Self { positions, ways }
    }

    /// The first position with a grant of `grant` or later, by itself.
    fn before(self, grant: u64) -> Option<Position> {
        let mut position = self.positions.into_iter().find(|position| position.grant >= grant)?;
        for SavedStage { way, length, now } in std::mem::take(&mut position.stages) {
            position.copies.push(self.ways.get(way as usize)?.earlier(length as usize, now)?);
        }
        Some(position)
    }
}

impl Positions {
    /// What workers noted of themselves.
    pub(crate) fn new(first_turn: usize, workers: &[VecDeque<Note>]) -> Self {
        Self { first_turn: first_turn as u64, workers: workers.iter().map(WorkerPositions::new).collect() }
    }

    /// Where each of `workers` workers stood before its first unroll with a grant of `grant` or later.
    ///
    /// # Errors
    /// If one of them does not say.
    pub(crate) fn before(mut self, grant: u64, workers: usize) -> Result<Vec<Position>, String> {
        if self.workers.len() != workers {
            return Err(format!("it is of {} workers, and here are {workers}", self.workers.len()));
        }
        let all: Option<Vec<Position>> = self.workers.drain(..).map(|worker| worker.before(grant)).collect();
        all.ok_or_else(|| format!("a worker does not say where it stood before grant {grant}"))
    }
}

#[cfg(test)]
mod tests {
    use impresario_common::random::{Purpose, stream};
    use impresario_common::space::ElementType;

    use super::*;
    use crate::env::Action;
    use crate::env::track::Track;

    /// Notes of a worker with two copies before each of `count` unrolls of `length` steps; the second copy begins a new episode
    /// with each third unroll.
    fn notes(count: u64, length: usize) -> VecDeque<Note> {
        let random = stream(1, Purpose::Environment, [0, 0, 0]);
        let mut tracks = [0, 1].map(|_| Track::new(&random, ElementType::I32));
        let mut note = |grant| {
            let copies = tracks.iter_mut().map(|track| track.save(&random).unwrap()).collect();
            for (copy, track) in tracks.iter_mut().enumerate() {
                if grant == 0 || (copy == 1 && grant % 3 == 0) {
                    track.begin(&random);
                }
                for step in 0..length {
                    track.step(Action::Discrete(&[grant as i32 * 100 + (step % 100) as i32]));
                }
            }
            Note { position: Position { grant, ..Position::default() }, copies }
        };
        (0..count).map(&mut note).collect()
    }

    #[test]
    fn positions_on_shared_ways_are_what_was_noted() {
        let notes = notes(8, 5);
        let encoded = Positions::new(3, &[notes.clone(), notes.clone()]).encode_to_vec();
        for note in &notes {
            let decoded = Positions::decode(encoded.as_slice()).unwrap();
            assert_eq!(decoded.first_turn, 3);
            let positions = decoded.before(note.position.grant, 2).unwrap();
            assert_eq!(positions, [note.position(), note.position()]);
        }
        let decoded = Positions::decode(encoded.as_slice()).unwrap();
        assert!(decoded.clone().before(8, 2).unwrap_err().contains("before grant 8"));
        assert!(decoded.before(0, 3).unwrap_err().contains("of 2 workers, and here are 3"));
    }

    #[test]
    fn each_action_of_a_copy_is_told_once_however_many_positions_are() {
        let (count, length) = (20, 1000);
        let notes = notes(count, length);
        let size = Positions::new(0, std::slice::from_ref(&notes)).encoded_len();
        let by_themselves: usize = notes.iter().map(|note| note.position().encoded_len()).sum();
        // Numbers below 2000 take up to two bytes.
        let actions = 2 * count as usize * length;
        assert!(size < 2 * actions + 300 * count as usize, "{size} bytes for {actions} actions");
        assert!(5 * size < by_themselves, "{size} bytes, or {by_themselves} with an own copy for each");
    }

    #[test]
    fn positions_of_a_former_release_and_damaged_ones_are_told_apart() {
        let notes = notes(4, 5);
        let whole: Vec<Position> = notes.iter().map(Note::position).collect();
        let old = Positions {
            first_turn: 0,
            workers: vec![WorkerPositions { positions: whole.clone(), ways: vec![] }],
        };
        assert_eq!(old.before(2, 1).unwrap(), [whole[2].clone()]);
        for damage in
            [(|stage: &mut SavedStage| stage.way = 77) as fn(&mut SavedStage), |stage| stage.length = 1 << 20]
        {
            let mut damaged = Positions::new(0, std::slice::from_ref(&notes));
            damage(&mut damaged.workers[0].positions[3].stages[1]);
            assert!(damaged.before(3, 1).is_err());
        }
    }
}
