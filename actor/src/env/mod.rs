//! Environments: what an agent acts in.
//!
//! An author implements [`Environment`] for one copy; [`NativeVector`](vector::NativeVector) steps many
//! copies as a [`VectorEnvironment`], which is all that a rollout worker sees. Episodes end inside the
//! vector: it counts steps, truncates, keeps the final observation and starts the next episode in the
//! same step.
//!
//! # Layout
//!
//! - `arrays`, [`vector`]: access to what crosses the seam; the vector of copies and its checks;
//! - [`picture`]: what environments draw of themselves; [`track`]: the way of a copy in its episode, to be taken again;
//! - [`source`]: a run's environment, native or Gymnasium's; [`gymnasium`]: the bridge to Python;
//! - [`registry`], [`measure`]: native environments by name; what is told of a policy beside its mean return;
//! - [`cartpole`], [`acrobot`], [`mountain_car`], [`mountain_car_continuous`], [`pendulum`]: Gymnasium's classic control;
//! - [`two_joint_arm`]: continuous control of a rigid body;
//! - [`t_maze`], [`repeat_previous`]: tasks that need memory;
//! - [`matrix_game`], [`repeated_game`], [`self_play`]: a game, against an opponent that adapts and against oneself;
//! - [`tic_tac_toe`]: a board game with illegal moves;
//! - [`minatar`]: five Atari games in miniature.

pub mod acrobot;
mod arrays;
pub mod cartpole;
pub mod gymnasium;
pub mod matrix_game;
pub mod measure;
pub mod minatar;
pub mod mountain_car;
pub mod mountain_car_continuous;
pub mod pendulum;
pub mod picture;
pub mod registry;
pub mod repeat_previous;
pub mod repeated_game;
pub mod self_play;
pub mod source;
pub mod t_maze;
pub mod tic_tac_toe;
pub mod track;
pub mod two_joint_arm;
pub mod vector;

use impresario_common::random::Stream;
use impresario_common::space::EnvironmentSpec;

use measure::Measure;
use picture::Picture;
use track::{SavedCopy, Standing};

/// Room for observations, in the element type that the environment's space declares.
#[derive(Debug)]
pub enum ObservationMut<'a> {
    /// Real-valued observations.
    F32(&'a mut [f32]),
    /// Bytes (pixels).
    U8(&'a mut [u8]),
    /// Choices of a discrete (one number) or multi-discrete (one per choice) space.
    I32(&'a mut [i32]),
}

/// Actions, in the element type that the environment's space declares.
#[derive(Debug, Clone, Copy)]
pub enum Action<'a> {
    /// Choices of a discrete (one number) or multi-discrete (one per choice) space.
    Discrete(&'a [i32]),
    /// Real numbers of a box space. They may lie outside its bounds: a Gaussian policy that is not squashed knows
    /// none, and the environment clips as Gymnasium's does.
    Continuous(&'a [f32]),
}

/// What one action led to, observation aside.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Transition {
    /// Reward of the step.
    pub reward: f64,
    /// The episode reached a terminal state: no return follows.
    pub terminated: bool,
    /// The episode was cut off from outside the task: the return goes on, unseen.
    pub truncated: bool,
}

/// One copy of an environment. Time limits are not its business: the vector enforces
/// `max_episode_steps` of the spec.
pub trait Environment: Send {
    /// Identity, spaces and limits; the same for every copy.
    fn spec(&self) -> EnvironmentSpec;

    /// Starts an episode, drawing whatever is random from `random`, and writes its first observation.
    fn reset(&mut self, random: &mut Stream, observation: ObservationMut<'_>);

    /// Takes one action and writes the observation that follows, terminal ones included.
    fn step(
        &mut self,
        action: Action<'_>,
        random: &mut Stream,
        observation: ObservationMut<'_>,
    ) -> Transition;

    /// Writes which actions are legal in the present state, that of the observation written last: 1 for a legal
    /// alternative and 0 for an illegal one, the alternatives of a multi-discrete space one choice after another
    /// (`action.alternatives()` numbers). Each choice has a legal alternative.
    ///
    /// Asked only where the spec says `masks_actions`, and never of a terminal state. What an illegal action
    /// does is the environment's to say.
    fn legal_actions(&self, mask: &mut [u8]) {
        mask.fill(1);
    }

    /// Whether an episode depends on those before it by more than `random`. Such a copy cannot be brought to where another
    /// stood by its episode alone ([`track`]).
    fn remembers_episodes(&self) -> bool {
        false
    }

    /// What tells how well a policy does, where the mean return alone does not; the same for every copy.
    fn measure(&self) -> Option<Measure> {
        None
    }

    /// A picture of the present state for people to look at, of one size throughout; `None` from an environment that does
    /// not draw itself.
    fn render(&self) -> Option<Picture> {
        None
    }
}

/// Many copies of one environment, stepped together; episodes restart by themselves.
///
/// Arrays hold one entry a copy, copies contiguous, in C order.
pub trait VectorEnvironment: Send {
    /// Identity, spaces and limits of every copy.
    fn spec(&self) -> &EnvironmentSpec;

    /// How many copies are stepped together.
    fn copies(&self) -> usize;

    /// Whether copies step elsewhere, such as in another process, while the thread that asked them to waits.
    fn steps_elsewhere(&self) -> bool {
        false
    }

    /// Starts an episode in every copy and writes the first observations, `[E, ...]`.
    ///
    /// # Errors
    /// If the environment fails; the vector is of no further use, unless it [recovers](Self::recover).
    fn reset(&mut self, observations: ObservationMut<'_>) -> Result<(), EnvironmentError>;

    /// Takes one action in every copy. Where an episode ends, the next one starts in the same step, and
    /// the observation written is the first of the new episode.
    ///
    /// # Errors
    /// If the environment fails; the vector is of no further use, unless it [recovers](Self::recover).
    fn step(&mut self, actions: Action<'_>, out: VectorStep<'_>) -> Result<(), EnvironmentError>;

    /// Writes the masks of the observations that [`reset`](Self::reset) or [`step`](Self::step) wrote last, `[E, M]`
    /// where M is `action.alternatives()`: 1 for a legal alternative and 0 for an illegal one, as
    /// [`Environment::legal_actions`] says. There are masks only where the spec says `masks_actions`.
    ///
    /// # Errors
    /// If the room has another size, or there are no observations yet.
    fn legal_actions(&self, masks: &mut [u8]) -> Result<(), EnvironmentError> {
        masks.fill(1);
        Ok(())
    }

    /// `[E]`: 1 where the step taken last says `terminated` for learning only, such as at the loss of a life, and the
    /// episode that is reported goes on. Empty if that never is so.
    fn goes_on(&self) -> &[u8] {
        &[]
    }

    /// Asked after a failure of [`reset`](Self::reset) or [`step`](Self::step): whether the copies may be reset and used again.
    fn recover(&mut self) -> Recovery {
        Recovery::Impossible
    }

    /// From now on keeps track of the copies, so that [`Self::save`] can say where they stand. False where that cannot be, which
    /// is the default; called before the first reset.
    fn keep_track(&mut self) -> bool {
        false
    }

    /// Where the copies stand; `None` where that is not known. Asked before every unroll of a lockstep run, so that it should take no
    /// longer for a long episode.
    fn save(&mut self) -> Option<Vec<Standing>> {
        None
    }

    /// Brings the copies to where [`Self::save`] said, and writes the observations there, `[E, ...]`.
    ///
    /// # Errors
    /// If they do not get there; the vector is of no further use.
    fn restore(&mut self, copies: &[SavedCopy], _: ObservationMut<'_>) -> Result<(), EnvironmentError> {
        let message = format!("its {} copies cannot be brought to where others stood", copies.len());
        Err(EnvironmentError { id: self.spec().id.clone(), message })
    }

    /// Seconds that `steps` steps of all copies at random take where they are stepped, without what brings them here; `None` for
    /// copies that are stepped here. They need a [reset](Self::reset) before, and another one afterwards.
    ///
    /// # Errors
    /// If the environment fails; the vector is of no further use, unless it [recovers](Self::recover).
    fn seconds_alone(&mut self, steps: u32) -> Result<Option<f64>, EnvironmentError> {
        let _ = steps;
        Ok(None)
    }

    /// From now on keeps a picture of the first copy after each reset and step; asked before the first reset. A step that ends an
    /// episode gives two: of the state in which it ended, and of the first one of the next.
    ///
    /// # Errors
    /// If the environment does not draw itself.
    fn film(&mut self) -> Result<(), EnvironmentError> {
        Err(cannot_draw(self.spec()))
    }

    /// The pictures that were kept since the last call, if it is filmed.
    fn take_pictures(&mut self) -> Vec<Picture> {
        vec![]
    }
}

/// What to say of an environment that is to be filmed and does not draw itself.
fn cannot_draw(spec: &EnvironmentSpec) -> EnvironmentError {
    let message = "it does not draw itself (Environment::render), so that there is nothing to film".into();
    EnvironmentError { id: spec.id.clone(), message }
}

/// Whether a vector that has failed is of further use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// The next reset starts it anew.
    Possible,
    /// It would fail again.
    Impossible,
}

/// Where a vector writes what its step led to.
#[derive(Debug)]
pub struct VectorStep<'a> {
    /// Observations to act on next, `[E, ...]`.
    pub observations: ObservationMut<'a>,
    /// Rewards, `[E]`.
    pub rewards: &'a mut [f32],
    /// 1 where an episode terminated, `[E]`.
    pub terminated: &'a mut [u8],
    /// 1 where an episode was truncated, `[E]`; a terminal state reached in the last allowed step sets both.
    pub truncated: &'a mut [u8],
    /// Receives the last observation of each episode that was truncated and did not terminate.
    pub final_observations: &'a mut dyn FinalObservations,
}

/// Takes the observations in which truncated episodes ended, which the auto-reset would otherwise hide.
pub trait FinalObservations: std::fmt::Debug {
    /// Room for the final observation of `copy`, to be filled by the caller.
    fn slot(&mut self, copy: usize) -> ObservationMut<'_>;
}

/// A failing environment.
#[derive(Debug, thiserror::Error)]
#[error("environment {id}: {message}")]
pub struct EnvironmentError {
    /// The environment's name.
    pub id: String,
    /// What went wrong, and what to do about it.
    pub message: String,
}
