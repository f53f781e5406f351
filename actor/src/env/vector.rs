//! Many copies of a native environment, stepped together in one loop.
//!
//! [`NativeVector`] takes a batch of actions from a rollout worker, steps each copy of an
//! [`Environment`], and writes observations, rewards and flags back. It is where episodes end: time
//! limits, final observations and the start of the next episode are its business. `Frame` checks what it is
//! handed.

use std::ops::Range;

use impresario_common::random::Stream;
use impresario_common::space::{ElementType, EnvironmentSpec, Space};

use super::picture::Picture;
use super::track::{SavedCopy, Standing, Track};
use super::{
    Action, Environment, EnvironmentError, FinalObservations, ObservationMut, Transition, VectorEnvironment,
    VectorStep, cannot_draw,
};

/// Copies of an environment of one type, so that the loop over them is compiled for that type.
///
/// Each copy draws from its own [`Stream`]: what happens in it depends on that stream and on its actions,
/// never on how many copies stand beside it.
#[derive(Debug)]
pub struct NativeVector<E> {
    frame: Frame,
    copies: Vec<Copy<E>>,
    /// Pictures of the first copy, if it is filmed.
    film: Option<Vec<Picture>>,
    /// Steps after which an episode is truncated; no episode gets to `u64::MAX`.
    limit: u64,
}

#[derive(Debug)]
struct Copy<E> {
    environment: E,
    random: Stream,
    /// Steps taken in the present episode.
    elapsed: u64,
    /// The way that it has taken in it, if that is kept.
    track: Option<Track>,
}

impl<E: Environment> Copy<E> {
    /// Starts an episode.
    fn begin(&mut self, observation: ObservationMut<'_>) {
        self.elapsed = 0;
        if let Some(track) = &mut self.track {
            track.begin(&self.random);
        }
        self.environment.reset(&mut self.random, observation);
    }

    /// Takes a step in it.
    fn take(&mut self, action: Action<'_>, observation: ObservationMut<'_>) -> Transition {
        if let Some(track) = &mut self.track {
            track.step(action);
        }
        self.elapsed += 1;
        self.environment.step(action, &mut self.random, observation)
    }

    /// Takes the way of another copy; `None` if that does not lead to where the other stands.
    fn follow(
        &mut self,
        saved: &SavedCopy,
        action_len: usize,
        mut observation: ObservationMut<'_>,
    ) -> Option<()> {
        self.random = saved.begun.as_ref()?.stream()?;
        if let Some(track) = &mut self.track {
            *track = Track::new(&self.random, self.environment.spec().action.dtype());
        }
        let Some(now) = &saved.now else { return Some(()) };
        let (now, whole) = (now.stream()?, 0..observation.len());
        self.begin(observation.part(whole.clone()));
        for action in saved.choices.chunks_exact(action_len) {
            self.take(Action::Discrete(action), observation.part(whole.clone()));
        }
        for action in saved.numbers.chunks_exact(action_len) {
            self.take(Action::Continuous(action), observation.part(whole.clone()));
        }
        (self.random.get_word_pos() == now.get_word_pos()).then_some(())
    }
}

impl<E: Environment> NativeVector<E> {
    /// One copy, made by `make`, for each stream.
    pub fn new(make: impl Fn() -> E, streams: impl IntoIterator<Item = Stream>) -> Self {
        let spec = make().spec();
        let copies =
            streams.into_iter().map(|random| Copy { environment: make(), random, elapsed: 0, track: None });
        let copies: Vec<_> = copies.collect();
        let limit = spec.max_episode_steps.map_or(u64::MAX, u64::from);
        Self { frame: Frame::new(spec, copies.len()), copies, film: None, limit }
    }

    /// Keeps a picture of `copy` if it is the one that is filmed.
    fn shoot(&mut self, copy: usize) {
        if let (0, Some(film)) = (copy, &mut self.film) {
            film.extend(self.copies[copy].environment.render());
        }
    }
}

impl<E: Environment> VectorEnvironment for NativeVector<E> {
    fn spec(&self) -> &EnvironmentSpec {
        self.frame.spec()
    }

    fn copies(&self) -> usize {
        self.frame.copies()
    }

    fn reset(&mut self, mut observations: ObservationMut<'_>) -> Result<(), EnvironmentError> {
        self.frame.check_reset(&observations)?;
        for (i, copy) in self.copies.iter_mut().enumerate() {
            copy.begin(observations.part(self.frame.observation(i)));
        }
        self.shoot(0);
        Ok(())
    }

    fn step(&mut self, actions: Action<'_>, mut out: VectorStep<'_>) -> Result<(), EnvironmentError> {
        self.frame.check_step(actions, &out)?;
        let filmed = self.film.is_some();
        for i in 0..self.copies.len() {
            let copy = &mut self.copies[i];
            let mut observation = out.observations.part(self.frame.observation(i));
            let whole = 0..observation.len();
            let action = actions.part(self.frame.action(i));
            let transition = copy.take(action, observation.part(whole.clone()));

            let terminated = transition.terminated;
            let truncated = transition.truncated || copy.elapsed >= self.limit;
            out.rewards[i] = transition.reward as f32;
            out.terminated[i] = u8::from(terminated);
            out.truncated[i] = u8::from(truncated);
            if filmed {
                self.shoot(i);
            }
            if !terminated && !truncated {
                continue;
            }
            if !terminated {
                self.frame.hand_over(observation.part(whole), i, &mut *out.final_observations)?;
            }
            self.copies[i].begin(observation);
            if filmed {
                self.shoot(i);
            }
        }
        Ok(())
    }

    fn keep_track(&mut self) -> bool {
        if self.copies.iter().any(|copy| copy.environment.remembers_episodes()) {
            return false;
        }
        let actions = self.frame.spec.action.dtype();
        self.copies.iter_mut().for_each(|copy| copy.track = Some(Track::new(&copy.random, actions)));
        true
    }

    fn save(&mut self) -> Option<Vec<Standing>> {
        self.copies.iter_mut().map(|copy| copy.track.as_mut()?.save(&copy.random)).collect()
    }

    fn restore(
        &mut self,
        saved: &[SavedCopy],
        mut observations: ObservationMut<'_>,
    ) -> Result<(), EnvironmentError> {
        self.frame.check_reset(&observations)?;
        if saved.len() != self.copies.len() {
            let message =
                format!("{} copies stood somewhere, and here are {}", saved.len(), self.copies.len());
            return Err(self.frame.error(message));
        }
        for (i, (copy, saved)) in self.copies.iter_mut().zip(saved).enumerate() {
            let observation = observations.part(self.frame.observation(i));
            copy.follow(saved, self.frame.action_len.max(1), observation).ok_or_else(|| {
                self.frame.error(format!(
                    "copy {i} does not repeat itself: the same actions took it to another place"
                ))
            })?;
        }
        Ok(())
    }

    fn film(&mut self) -> Result<(), EnvironmentError> {
        let draws_itself = self.copies.first().is_some_and(|copy| copy.environment.render().is_some());
        self.film = draws_itself.then(Vec::new);
        draws_itself.then_some(()).ok_or_else(|| cannot_draw(self.frame.spec()))
    }

    fn take_pictures(&mut self) -> Vec<Picture> {
        self.film.as_mut().map(std::mem::take).unwrap_or_default()
    }

    fn legal_actions(&self, masks: &mut [u8]) -> Result<(), EnvironmentError> {
        let len = self.frame.check_masks(masks)?;
        for (copy, mask) in self.copies.iter().zip(masks.chunks_exact_mut(len)) {
            copy.environment.legal_actions(mask);
        }
        Ok(())
    }
}

/// The size of what crosses the seam of a vector: what the vector was made for, and a check of each call against it.
#[derive(Debug)]
pub(super) struct Frame {
    spec: EnvironmentSpec,
    copies: usize,
    /// Numbers in one observation and in one action, kept because a space computes them.
    observation_len: usize,
    action_len: usize,
    /// Whether episodes have been started, without which there is no state to step.
    started: bool,
}

impl Frame {
    pub(super) fn new(spec: EnvironmentSpec, copies: usize) -> Self {
        let (observation_len, action_len) = (spec.observation.len(), spec.action.len());
        Self { spec, copies, observation_len, action_len, started: false }
    }

    pub(super) fn spec(&self) -> &EnvironmentSpec {
        &self.spec
    }

    pub(super) fn copies(&self) -> usize {
        self.copies
    }

    /// Where the observation of a copy stands among those of all.
    #[inline]
    pub(super) fn observation(&self, copy: usize) -> Range<usize> {
        copy * self.observation_len..(copy + 1) * self.observation_len
    }

    /// Where the action of a copy stands among those of all.
    #[inline]
    fn action(&self, copy: usize) -> Range<usize> {
        copy * self.action_len..(copy + 1) * self.action_len
    }

    /// Checks the room of a reset, after which the vector may be stepped.
    pub(super) fn check_reset(&mut self, observations: &ObservationMut<'_>) -> Result<(), EnvironmentError> {
        self.check_observations(observations)?;
        self.started = true;
        Ok(())
    }

    /// Checks the actions and the room of a step.
    pub(super) fn check_step(
        &self,
        actions: Action<'_>,
        out: &VectorStep<'_>,
    ) -> Result<(), EnvironmentError> {
        if !self.started {
            return Err(self.error("stepped before its first reset; reset it first".into()));
        }
        self.check_actions(actions)?;
        self.check_observations(&out.observations)?;
        self.check_flags(out)
    }

    /// Checks the room for masks; M, the length of one, if it is right.
    fn check_masks(&self, masks: &[u8]) -> Result<usize, EnvironmentError> {
        if !self.started {
            return Err(self.error("asked for legal actions before its first reset; reset it first".into()));
        }
        let (copies, len) = (self.copies, self.spec.action.alternatives());
        if len == 0 || masks.len() != copies * len {
            return Err(self.error(format!(
                "room for masks is {}; {copies} copies of {} need {len} each",
                masks.len(),
                self.spec.action,
            )));
        }
        Ok(len)
    }

    pub(super) fn error(&self, message: String) -> EnvironmentError {
        EnvironmentError { id: self.spec.id.clone(), message }
    }

    fn check_observations(&self, room: &ObservationMut<'_>) -> Result<(), EnvironmentError> {
        let (dtype, len) = (self.spec.observation.dtype(), self.copies * self.observation_len);
        if room.dtype() == dtype && room.len() == len {
            return Ok(());
        }
        Err(self.error(format!(
            "room for observations is {} x {}; {} copies of {} need {len} x {dtype}",
            room.len(),
            room.dtype(),
            self.copies,
            self.spec.observation,
        )))
    }

    fn check_flags(&self, out: &VectorStep<'_>) -> Result<(), EnvironmentError> {
        let lens = [out.rewards.len(), out.terminated.len(), out.truncated.len()];
        if lens == [self.copies; 3] {
            return Ok(());
        }
        let copies = self.copies;
        Err(self.error(format!(
            "room for rewards, terminated and truncated is {lens:?}; {copies} copies need {copies} of each"
        )))
    }

    fn check_actions(&self, actions: Action<'_>) -> Result<(), EnvironmentError> {
        let given = match actions {
            Action::Discrete(_) => ElementType::I32,
            Action::Continuous(_) => ElementType::F32,
        };
        let (dtype, len) = (self.spec.action.dtype(), self.copies * self.action_len);
        if given != dtype || actions.len() != len {
            return Err(self.error(format!(
                "actions are {} x {given}; {} copies of {} need {len} x {dtype}",
                actions.len(),
                self.copies,
                self.spec.action,
            )));
        }
        let outside = |choice: i32, n: u32| u32::try_from(choice).map_or(true, |choice| choice >= n);
        let bad = match (&self.spec.action, actions) {
            (Space::Discrete { n }, Action::Discrete(choices)) => {
                choices.iter().position(|&choice| outside(choice, *n))
            }
            (Space::MultiDiscrete { nvec }, Action::Discrete(choices)) => {
                choices.iter().zip(nvec.iter().cycle()).position(|(&choice, &n)| outside(choice, n))
            }
            // Values out of bounds are the environment's to clip; only a broken policy gives no number.
            (_, Action::Continuous(values)) => values.iter().position(|value| value.is_nan()),
            (_, Action::Discrete(_)) => None,
        };
        let Some(bad) = bad else { return Ok(()) };
        let copy = bad / self.action_len;
        let action = actions.part(copy * self.action_len..(copy + 1) * self.action_len);
        Err(self.error(format!("{action:?} of copy {copy} is no action of {}", self.spec.action)))
    }

    /// Hands the last observation of an episode over, before the next episode takes its place.
    pub(super) fn hand_over(
        &self,
        last: ObservationMut<'_>,
        copy: usize,
        receiver: &mut dyn FinalObservations,
    ) -> Result<(), EnvironmentError> {
        match (last, receiver.slot(copy)) {
            (ObservationMut::F32(last), ObservationMut::F32(slot)) if last.len() == slot.len() => {
                slot.copy_from_slice(last);
            }
            (ObservationMut::U8(last), ObservationMut::U8(slot)) if last.len() == slot.len() => {
                slot.copy_from_slice(last);
            }
            (ObservationMut::I32(last), ObservationMut::I32(slot)) if last.len() == slot.len() => {
                slot.copy_from_slice(last);
            }
            (last, slot) => {
                let (need, given) = ((last.len(), last.dtype()), (slot.len(), slot.dtype()));
                return Err(self.error(format!(
                    "room for a final observation is {} x {}; it needs {} x {}",
                    given.0, given.1, need.0, need.1
                )));
            }
        }
        Ok(())
    }
}
