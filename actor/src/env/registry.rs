//! Which native environments there are: from the name a run is configured with to a vector of copies.
//!
//! [`Registry::native`] holds the environments of this crate; a program with environments of its own
//! adds them with [`Registry::register`] and hands the registry to the actor.

use std::collections::BTreeMap;
use std::sync::Arc;

use impresario_common::random::Stream;
use impresario_common::space::EnvironmentSpec;

use super::acrobot::Acrobot;
use super::cartpole::CartPole;
use super::matrix_game::MatrixGame;
use super::measure::Measure;
use super::minatar::{ActionSet, Asterix, Breakout, Freeway, Game, MinAtar, Seaquest, SpaceInvaders};
use super::mountain_car::MountainCar;
use super::mountain_car_continuous::MountainCarContinuous;
use super::pendulum::Pendulum;
use super::repeat_previous::RepeatPrevious;
use super::repeated_game::RepeatedGame;
use super::self_play::{self, SelfPlay};
use super::t_maze::TMaze;
use super::tic_tac_toe::TicTacToe;
use super::two_joint_arm::TwoJointArm;
use super::vector::NativeVector;
use super::{Environment, VectorEnvironment};

type MakeVector = dyn Fn(Vec<Stream>) -> Box<dyn VectorEnvironment> + Send + Sync;

/// Environments by name. Clones are cheap enough to give each worker one.
#[derive(Clone)]
pub struct Registry {
    /// Ordered, so that lists of names come out sorted.
    entries: BTreeMap<String, Entry>,
}

#[derive(Clone)]
struct Entry {
    spec: EnvironmentSpec,
    measure: Option<Measure>,
    players: usize,
    make_vector: Arc<MakeVector>,
}

impl Registry {
    /// A registry without any environment.
    pub fn empty() -> Self {
        Self { entries: BTreeMap::new() }
    }

    /// A registry of the environments that this crate implements.
    pub fn native() -> Self {
        let mut registry = Self::empty();
        registry
            .register(CartPole::default)
            .register(Acrobot::default)
            .register(MountainCar::default)
            .register(MountainCarContinuous::default)
            .register(Pendulum::default)
            .register(TwoJointArm::default)
            .register(TMaze::default)
            .register(RepeatPrevious::default)
            .register(TicTacToe::default)
            .register(RepeatedGame::rock_paper_scissors)
            .register_self_play("RockPaperScissorsSelfPlay-v0", MatrixGame::rock_paper_scissors())
            .register_minatar::<Breakout>()
            .register_minatar::<Asterix>()
            .register_minatar::<Freeway>()
            .register_minatar::<Seaquest>()
            .register_minatar::<SpaceInvaders>();
        registry
    }

    /// Adds the environment that `make` makes one copy of, under the id of its spec. One already
    /// registered under that id is replaced.
    pub fn register<E, F>(&mut self, make: F) -> &mut Self
    where
        E: Environment + 'static,
        F: Fn() -> E + Send + Sync + 'static,
    {
        let copy = make();
        let (spec, measure) = (copy.spec(), copy.measure());
        let make_vector = move |streams| -> Box<dyn VectorEnvironment> {
            Box::new(NativeVector::new(&make, Vec::<Stream>::into_iter(streams)))
        };
        self.insert(Entry { spec, measure, players: 1, make_vector: Arc::new(make_vector) })
    }

    /// Adds the self-play of `game` under `id`. One already registered under that id is replaced.
    pub fn register_self_play(&mut self, id: &'static str, game: MatrixGame) -> &mut Self {
        let spec = SelfPlay::spec(id, &game);
        let measure = Some(Measure::Exploitability(game.clone()));
        let make_vector = move |streams: Vec<Stream>| -> Box<dyn VectorEnvironment> {
            Box::new(SelfPlay::new(id, game.clone(), streams.len()))
        };
        self.insert(Entry { spec, measure, players: self_play::PLAYERS, make_vector: Arc::new(make_vector) })
    }

    /// Adds a game of MinAtar with either action set.
    fn register_minatar<G: Game + 'static>(&mut self) -> &mut Self {
        self.register(|| MinAtar::<G>::new(ActionSet::Full))
            .register(|| MinAtar::<G>::new(ActionSet::Minimal))
    }

    fn insert(&mut self, entry: Entry) -> &mut Self {
        self.entries.insert(entry.spec.id.clone(), entry);
        self
    }

    /// The names of all environments, sorted.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Spaces and limits of an environment.
    ///
    /// # Errors
    /// If no environment is registered under `id`.
    pub fn spec(&self, id: &str) -> Result<&EnvironmentSpec, UnknownEnvironment> {
        self.entry(id).map(|entry| &entry.spec)
    }

    /// What is told of a policy in an environment beside its mean return, if anything.
    ///
    /// # Errors
    /// If no environment is registered under `id`.
    pub fn measure(&self, id: &str) -> Result<Option<&Measure>, UnknownEnvironment> {
        self.entry(id).map(|entry| entry.measure.as_ref())
    }

    /// How many copies of an environment make one game: 1 unless they play one another.
    ///
    /// # Errors
    /// If no environment is registered under `id`.
    pub fn players(&self, id: &str) -> Result<usize, UnknownEnvironment> {
        self.entry(id).map(|entry| entry.players)
    }

    /// Copies of an environment, one for each stream; copy `i` draws from `streams[i]`.
    ///
    /// # Errors
    /// If no environment is registered under `id`, or so many copies cannot be divided into games.
    pub fn make_vector(
        &self,
        id: &str,
        streams: Vec<Stream>,
    ) -> Result<Box<dyn VectorEnvironment>, MakeVectorError> {
        let entry = self.entry(id)?;
        let (players, copies) = (entry.players, streams.len());
        if !copies.is_multiple_of(players) {
            return Err(MakeVectorError::Copies { id: id.into(), players, copies });
        }
        Ok((entry.make_vector)(streams))
    }

    fn entry(&self, id: &str) -> Result<&Entry, UnknownEnvironment> {
        self.entries.get(id).ok_or_else(|| UnknownEnvironment {
            id: id.into(),
            closest: closest(id, self.ids()).map(Into::into),
            known: self.ids().map(Into::into).collect(),
        })
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Registry").field(&self.entries.keys()).finish()
    }
}

/// Copies that cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MakeVectorError {
    /// There is no such environment.
    #[error(transparent)]
    Unknown(#[from] UnknownEnvironment),
    /// Copies play one another, and some would have no one to play.
    #[error(
        "{id} is played by {players} copies together, and the {copies} copies of a worker are no multiple of \
         that: change rollout.envs_per_actor (the actor's --envs) or rollout.workers_per_actor (its --workers)"
    )]
    Copies {
        /// The environment's name.
        id: String,
        /// Copies that make one game.
        players: usize,
        /// Copies asked for.
        copies: usize,
    },
}

/// A name that no environment is registered under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownEnvironment {
    /// The name that was asked for.
    pub id: String,
    /// The registered name most like it, if one is like it at all.
    pub closest: Option<String>,
    /// All registered names, sorted.
    pub known: Vec<String>,
}

impl std::fmt::Display for UnknownEnvironment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "there is no environment {:?}", self.id)?;
        if let Some(closest) = &self.closest {
            write!(f, "; did you mean {closest:?}?")?;
        }
        write!(f, " (known: {})", self.known.join(", "))
    }
}

impl std::error::Error for UnknownEnvironment {}

/// The name that takes the fewest edits to turn `id` into, if these are no more than a third of it.
pub(super) fn closest<'a>(id: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let folded = id.to_ascii_lowercase();
    names
        .map(|name| (edits(&folded, &name.to_ascii_lowercase()), name))
        .filter(|(edits, name)| 3 * edits <= name.chars().count())
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, name)| name)
}

/// Levenshtein's distance: how many characters must be inserted, deleted or replaced.
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    // distances[j]: from the characters of `from` seen so far to the first j of `to`.
    let mut distances: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = distances[0];
        distances[0] = i + 1;
        for (j, &b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = distances[j + 1];
            distances[j + 1] = replaced.min(distances[j] + 1).min(diagonal + 1);
        }
    }
    distances[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_counts_insertions_deletions_and_replacements() {
        for (from, to, expected) in
            [("", "abc", 3), ("abc", "", 3), ("kitten", "sitting", 3), ("ab", "ab", 0)]
        {
            assert_eq!(edits(from, to), expected, "{from} -> {to}");
        }
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_closest_and_with_all_known_ones() {
        let registry = Registry::native();
        let Err(error) = registry.make_vector("CartPole-v0", vec![]) else { panic!("CartPole-v0 exists") };
        assert_eq!(
            error.to_string(),
            "there is no environment \"CartPole-v0\"; did you mean \"CartPole-v1\"? \
             (known: Acrobot-v1, CartPole-v1, MinAtar/Asterix-v0, MinAtar/Asterix-v1, MinAtar/Breakout-v0, \
             MinAtar/Breakout-v1, MinAtar/Freeway-v0, MinAtar/Freeway-v1, MinAtar/Seaquest-v0, MinAtar/Seaquest-v1, \
             MinAtar/SpaceInvaders-v0, MinAtar/SpaceInvaders-v1, MountainCar-v0, MountainCarContinuous-v0, \
             Pendulum-v1, RepeatPrevious-v0, RockPaperScissors-v0, RockPaperScissorsSelfPlay-v0, TMaze-v0, TicTacToe-v0, \
             TwoJointArm-v0)"
        );
        let closest = |id| registry.spec(id).unwrap_err().closest;
        assert_eq!(closest("cartpole").as_deref(), Some("CartPole-v1"));
        assert_eq!(closest("MountainCarContinous-v0").as_deref(), Some("MountainCarContinuous-v0"));
        assert_eq!(closest("Pong-v5"), None);
        assert_eq!(closest(""), None);
    }

    #[test]
    fn a_registry_can_be_shared_between_threads() {
        fn shared<T: Clone + Send + Sync>() {}
        shared::<Registry>();
    }
}
