//! [`Sampler`]: one worker's environment copies and the unroll they fill, a step at a time.
//!
//! A step: the newest row of observations becomes a tensor, the policy turns it into distribution parameters,
//! each copy draws an action from its own stream, and the environments write what follows straight into the
//! next row of the unroll.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use candle_core::{Device, Tensor};
use impresario_common::kernels::{all_finite, with_slice};
use impresario_common::policy::distribution::{ActionDistribution, ActionMut, DistributionError};
use impresario_common::policy::{Policy, PolicyError};
use impresario_common::random::Stream;
use impresario_common::unroll::{Array, Unroll, UnrollLayout};
use impresario_common::wire::v1;

use super::noise::StateNoise;
use super::position::{Note, Position, SavedEpisode};
use crate::counters::Counters;
use crate::env::picture::Picture;
use crate::env::{
    Action, EnvironmentError, FinalObservations, ObservationMut, Recovery, VectorEnvironment, VectorStep,
};

/// What ends sampling.
#[derive(Debug, thiserror::Error)]
pub enum SamplerError {
    /// The environment failed.
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    /// The policy failed.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

impl From<candle_core::Error> for SamplerError {
    fn from(error: candle_core::Error) -> Self {
        Self::Policy(error.into())
    }
}

/// How far an unroll got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filled {
    /// All steps were taken.
    Complete,
    /// The worker was told to stop before the last step.
    Stopped,
}

/// How actions follow from the policy's distribution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActionChoice {
    /// Drawn from it.
    Sampled,
    /// The likeliest, for evaluation; behaviour log-probabilities are left at 0.
    Greedy,
}

/// E copies of an environment, stepped together through one unroll after another.
pub struct Sampler {
    vector: Box<dyn VectorEnvironment>,
    distribution: ActionDistribution,
    choice: ActionChoice,
    /// One for each copy: its actions depend on nothing else that is random.
    action_streams: Vec<Stream>,
    /// The episodes under way, one for each copy.
    episodes: Vec<Episode>,
    /// `[E, S]`: what the policy remembers of each copy, zeros where an episode begins.
    core_states: Vec<f32>,
    /// S.
    core_state_len: usize,
    /// What unrolls look like.
    layout: UnrollLayout,
    /// Shape of the tensor that the policy sees, `[E, ...]`.
    row_shape: Vec<usize>,
    /// Numbers in one observation.
    observation_len: usize,
    /// Copies whose final observation was taken in the present step.
    cut_copies: Vec<usize>,
    /// Distribution parameters that the present unroll was acted with, if someone wants to know them.
    parameters: Option<Vec<f32>>,
    /// What the environments see of continuous actions, `[E, D]`, where that differs from the actions.
    environment_actions: Vec<f32>,
    /// The noise of actions, where it is a function of the state.
    noise: StateNoise,
    /// M: flags of a copy that say which actions are legal; 0 where the environment masks none.
    mask_len: usize,
    /// Distribution parameters of the present row without the illegal actions, where there are masks.
    masked: Vec<f32>,
    /// Rows of steps taken in the present unroll.
    rows: usize,
    /// Whether episodes have been started.
    started: bool,
    /// The next unroll's history, while it is put together.
    history: Array,
}

impl std::fmt::Debug for Sampler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let id = &self.vector.spec().id;
        f.debug_struct("Sampler").field("environment", id).field("copies", &self.copies()).finish()
    }
}

/// An episode so far.
#[derive(Debug, Clone, Copy, Default)]
struct Episode {
    /// Summed in double precision: rewards may be small and episodes long.
    undiscounted_return: f64,
    length: u32,
}

impl Sampler {
    /// A sampler over the copies of `vector`, with one stream for the actions of each.
    ///
    /// # Errors
    /// If there is another number of streams than of copies.
    pub fn new(
        vector: Box<dyn VectorEnvironment>,
        distribution: ActionDistribution,
        layout: &UnrollLayout,
        action_streams: Vec<Stream>,
        choice: ActionChoice,
    ) -> Result<Self, SamplerError> {
        let copies = vector.copies();
        let refuse = |message: String| Err(EnvironmentError { id: vector.spec().id.clone(), message }.into());
        if action_streams.len() != copies {
            return refuse(format!("{} streams for {copies} copies", action_streams.len()));
        }
        let mut row_shape = vec![copies];
        row_shape.extend(layout.seen_shape());
        Ok(Self {
            episodes: vec![Episode::default(); copies],
            cut_copies: Vec::with_capacity(copies),
            environment_actions: vec![],
            noise: StateNoise::default(),
            mask_len: layout.mask_len,
            masked: vec![],
            observation_len: layout.observation.len(),
            core_states: vec![0.0; copies * layout.core_state_len],
            core_state_len: layout.core_state_len,
            history: Array::zeros(layout.observation.dtype(), 0),
            layout: layout.clone(),
            row_shape,
            parameters: None,
            rows: 0,
            started: false,
            vector,
            distribution,
            choice,
            action_streams,
        })
    }

    /// E: the copies stepped together.
    pub fn copies(&self) -> usize {
        self.episodes.len()
    }

    /// Environment steps taken in the unroll that [`fill`](Self::fill) worked on last.
    pub fn steps_into_unroll(&self) -> u64 {
        (self.rows * self.copies()) as u64
    }

    /// From now on keeps track, so that [`Self::position`] can say where this sampler stands. False where the environment
    /// cannot; called before the first unroll.
    pub fn keep_track(&mut self) -> bool {
        self.vector.keep_track()
    }

    /// Where this sampler stands, with the unroll that it filled last as it goes over the wire; `None` where that is not known.
    pub fn position(&mut self, unroll: v1::Unroll) -> Option<Note> {
        let copies = self.vector.save()?;
        let episode = |(episode, stream): (&Episode, &Stream)| SavedEpisode {
            undiscounted_return: episode.undiscounted_return,
            length: episode.length,
            actions: Some(stream.into()),
        };
        let (noise, noise_ages) = self.noise.save();
        let position = Position {
            grant: u64::MAX,
            started: self.started,
            episodes: self.episodes.iter().zip(&self.action_streams).map(episode).collect(),
            unroll: self.started.then_some(unroll),
            core_states: self.core_states.clone(),
            noise,
            noise_ages,
            ..Position::default()
        };
        Some(Note { position, copies })
    }

    /// Goes on from where another sampler stood; `unroll` becomes the one that it had filled last.
    ///
    /// # Errors
    /// If that does not fit, or the environments do not repeat themselves; the sampler is of no further use.
    pub fn resume(&mut self, position: Position, unroll: &mut Unroll) -> Result<(), SamplerError> {
        let copies = self.copies();
        let id = self.vector.spec().id.clone();
        let misfit = |what: &str| -> SamplerError {
            let message = format!("the position to go on from does not fit: {what}");
            EnvironmentError { id: id.clone(), message }.into()
        };
        if position.episodes.len() != copies || position.core_states.len() != self.core_states.len() {
            return Err(misfit("another number of copies or another memory"));
        }
        let streams = position.episodes.iter().map(|episode| episode.actions.as_ref()?.stream());
        let streams: Option<Vec<Stream>> = streams.collect();
        self.action_streams = streams.ok_or_else(|| misfit("a stream of actions is missing"))?;
        let before = match position.unroll {
            Some(before) if position.started => {
                Some(Unroll::from_wire(before, &self.layout, copies).map_err(|e| misfit(&e.to_string()))?)
            }
            _ => None,
        };
        let row = copies * self.observation_len;
        let mut observations = Array::zeros(self.layout.observation.dtype(), row);
        self.vector.restore(&position.copies, part_mut(&mut observations, 0..row))?;
        if let Some(before) = before {
            let mut last = Array::zeros(self.layout.observation.dtype(), 0);
            last.extend_from(&before.observations, before.length * row..(before.length + 1) * row);
            if last != observations {
                return Err(
                    self.error("it does not repeat itself: the same actions show something else".into())
                );
            }
            *unroll = before;
        }
        for (episode, saved) in self.episodes.iter_mut().zip(&position.episodes) {
            *episode = Episode { undiscounted_return: saved.undiscounted_return, length: saved.length };
        }
        self.core_states = position.core_states;
        self.noise.restore(position.noise, &position.noise_ages);
        self.started = position.started;
        Ok(())
    }

    /// From now on, keeps the parameters of the distributions that actions are chosen by.
    pub fn keep_parameters(&mut self) {
        self.parameters = Some(vec![]);
    }

    /// From now on keeps pictures of the first copy.
    ///
    /// # Errors
    /// If the environment does not draw itself.
    pub fn film(&mut self) -> Result<(), EnvironmentError> {
        self.vector.film()
    }

    /// The pictures that were kept since the last call, if it is filmed: one after each reset and step.
    pub fn take_pictures(&mut self) -> Vec<Picture> {
        self.vector.take_pictures()
    }

    /// `[T, E, P]`: the parameters that the last unroll was acted with, if they are kept; otherwise empty.
    pub fn parameters(&self) -> &[f32] {
        self.parameters.as_deref().unwrap_or_default()
    }

    /// Takes `unroll.length` steps in each copy with `policy`, going on where the unroll before ended.
    /// `unroll` is the one filled before (its last observations are where this one starts), or a new one for
    /// the first call; its grant and version are the caller's to set.
    ///
    /// # Errors
    /// If the policy or the environment fails; the sampler is of no further use.
    pub fn fill(
        &mut self,
        policy: &Policy,
        unroll: &mut Unroll,
        counters: &Counters,
        stop: &AtomicBool,
    ) -> Result<Filled, SamplerError> {
        self.rows = 0;
        self.begin(unroll)?;
        let mut start = Instant::now();
        while self.rows < unroll.length {
            if stop.load(Relaxed) {
                return Ok(Filled::Stopped);
            }
            self.act(policy, unroll)?;
            let acted = Instant::now();
            self.step(unroll)?;
            self.rows += 1;
            let stepped = Instant::now();
            counters.stepped(self.copies(), acted - start, stepped - acted);
            self.finish_episodes(unroll)?;
            start = stepped;
        }
        self.check(unroll)?;
        Ok(Filled::Complete)
    }

    /// Asked after an error of [`fill`](Self::fill): whether it may be called again, to begin with new episodes. Those under way
    /// are forgotten.
    pub fn recover(&mut self, error: &SamplerError) -> Recovery {
        let recovery = match error {
            SamplerError::Environment(_) => self.vector.recover(),
            _ => Recovery::Impossible,
        };
        self.started = false;
        self.rows = 0;
        self.core_states.fill(0.0);
        for (copy, episode) in self.episodes.iter_mut().enumerate() {
            *episode = Episode::default();
            self.noise.end_episode(copy);
        }
        recovery
    }

    /// Puts the first observations in place.
    fn begin(&mut self, unroll: &mut Unroll) -> Result<(), SamplerError> {
        let row = self.copies() * self.observation_len;
        if self.started {
            self.history.clear();
            unroll.frames(&self.layout).push_history(unroll.length, &mut self.history);
            std::mem::swap(&mut unroll.history, &mut self.history);
            let last = unroll.length * row;
            match &mut unroll.observations {
                Array::F32(values) => values.copy_within(last..last + row, 0),
                Array::U8(values) => values.copy_within(last..last + row, 0),
                Array::I32(values) => values.copy_within(last..last + row, 0),
            }
        } else {
            self.vector.reset(part_mut(&mut unroll.observations, 0..row))?;
            unroll.history.clear();
            (1..self.layout.frame_stack)
                .for_each(|_| unroll.history.extend_from(&unroll.observations, 0..row));
            self.started = true;
        }
        if let Some(kept) = &mut self.parameters {
            kept.clear();
        }
        unroll.core_states.clone_from(&self.core_states);
        unroll.final_observations.resize(0);
        unroll.episode_returns.clear();
        unroll.episode_lengths.clear();
        Ok(())
    }

    /// Draws the actions of the present row.
    fn act(&mut self, policy: &Policy, unroll: &mut Unroll) -> Result<(), SamplerError> {
        let (copies, row) = (self.copies(), self.rows);
        let acting = policy.act(&self.seen(unroll)?, &mut self.core_states)?;
        let chosen = span(row, copies * self.distribution.action_len());
        let actions = match &mut unroll.actions {
            Array::I32(values) => ActionMut::Discrete(&mut values[chosen]),
            Array::F32(values) => ActionMut::Continuous(&mut values[chosen]),
            Array::U8(_) => unreachable_actions(),
        };
        let log_probs = &mut unroll.behaviour_log_probs[span(row, copies)];
        let masks = &mut unroll.action_masks[span(row, copies * self.mask_len)];
        if self.mask_len > 0 {
            self.vector.legal_actions(masks)?;
        }
        let noise = match (&acting.noise, self.choice) {
            (Some(features), ActionChoice::Sampled) => {
                Some(self.noise.draw(features, &mut self.action_streams)?)
            }
            _ => None,
        };
        let chosen = with_slice(&acting.distribution, |parameters: &[f32]| {
            let parameters = without_illegal(&self.distribution, parameters, masks, &mut self.masked)?;
            if let Some(kept) = &mut self.parameters {
                kept.extend_from_slice(parameters);
            }
            match (self.choice, noise) {
                (ActionChoice::Sampled, Some(noise)) => {
                    self.distribution.displace_batch(parameters, noise, actions, log_probs);
                }
                (ActionChoice::Sampled, None) => {
                    self.distribution.sample_batch(parameters, &mut self.action_streams, actions, log_probs);
                }
                (ActionChoice::Greedy, _) => self.distribution.mode_batch(parameters, actions),
            }
            Ok(())
        })?;
        chosen.map_err(|e| match e {
            DistributionError::NoLegalAction { row, choice } => self.error(format!(
                "copy {row} calls no alternative of choice {choice} legal; a mask must leave one wherever an action is \
                 to be taken"
            )),
            e => self.error(e.to_string()),
        })
    }

    /// What the policy sees in the present row, `[E, ...]`.
    fn seen(&self, unroll: &Unroll) -> Result<Tensor, candle_core::Error> {
        let shape = self.row_shape.as_slice();
        let stack = self.layout.frame_stack;
        if stack > 1 {
            let len = self.copies() * stack * self.observation_len;
            let mut stacks = Array::with_capacity(unroll.observations.dtype(), len);
            unroll.frames(&self.layout).push_rows(self.rows..self.rows + 1, &mut stacks);
            return match stacks {
                Array::F32(values) => Tensor::from_vec(values, shape, &Device::Cpu),
                Array::U8(values) => Tensor::from_vec(values, shape, &Device::Cpu),
                Array::I32(values) => Tensor::from_vec(values, shape, &Device::Cpu),
            };
        }
        let row = span(self.rows, self.copies() * self.observation_len);
        match &unroll.observations {
            Array::F32(values) => Tensor::from_slice(&values[row], shape, &Device::Cpu),
            Array::U8(values) => Tensor::from_slice(&values[row], shape, &Device::Cpu),
            Array::I32(values) => Tensor::from_slice(&values[row], shape, &Device::Cpu),
        }
    }

    /// Steps the environments with the actions of the present row.
    fn step(&mut self, unroll: &mut Unroll) -> Result<(), SamplerError> {
        let (copies, row) = (self.copies(), self.rows);
        let chosen = span(row, copies * self.distribution.action_len());
        let actions = match &unroll.actions {
            Array::I32(values) => Action::Discrete(&values[chosen]),
            Array::F32(values) => Action::Continuous(
                self.distribution.to_environment(&values[chosen], &mut self.environment_actions),
            ),
            Array::U8(_) => unreachable_actions(),
        };
        self.cut_copies.clear();
        let step = span(row, copies);
        let mut finals = Finals {
            observations: &mut unroll.final_observations,
            observation_len: self.observation_len,
            copies: &mut self.cut_copies,
        };
        let out = VectorStep {
            observations: part_mut(&mut unroll.observations, span(row + 1, copies * self.observation_len)),
            rewards: &mut unroll.rewards[step.clone()],
            terminated: &mut unroll.terminated[step.clone()],
            truncated: &mut unroll.truncated[step],
            final_observations: &mut finals,
        };
        Ok(self.vector.step(actions, out)?)
    }

    /// Closes the books of the episodes that ended in the row just taken.
    fn finish_episodes(&mut self, unroll: &mut Unroll) -> Result<(), SamplerError> {
        let step = span(self.rows - 1, self.copies());
        let (rewards, terminated, truncated) =
            (&unroll.rewards[step.clone()], &unroll.terminated[step.clone()], &unroll.truncated[step]);
        let mut cut = self.cut_copies.iter();
        for (copy, episode) in self.episodes.iter_mut().enumerate() {
            episode.undiscounted_return += f64::from(rewards[copy]);
            episode.length += 1;
            if terminated[copy] | truncated[copy] == 0 {
                continue;
            }
            if terminated[copy] == 0 && cut.next() != Some(&copy) {
                return Err(self.misplaced_final_observations());
            }
            if self.vector.goes_on().get(copy) != Some(&1) {
                unroll.episode_returns.push(episode.undiscounted_return as f32);
                unroll.episode_lengths.push(episode.length);
                *episode = Episode::default();
            }
            self.core_states[span(copy, self.core_state_len)].fill(0.0);
            self.noise.end_episode(copy);
        }
        match cut.next() {
            None => Ok(()),
            Some(_) => Err(self.misplaced_final_observations()),
        }
    }

    fn misplaced_final_observations(&self) -> SamplerError {
        let copies = &self.cut_copies;
        self.error(format!(
            "gave final observations of copies {copies:?}; it must give that of each copy whose episode was \
             truncated and did not terminate, in order"
        ))
    }

    /// Finds numbers that are not finite while it is still known whose fault they are.
    fn check(&self, unroll: &Unroll) -> Result<(), SamplerError> {
        let copies = self.copies();
        if !all_finite(&unroll.behaviour_log_probs) {
            let version = unroll.policy_version;
            let message = format!("version {version} gives log-probabilities that are not finite numbers");
            return Err(PolicyError::Weights(message).into());
        }
        if let Some(at) = first_not_finite(&unroll.rewards) {
            let (copy, reward) = (at % copies, unroll.rewards[at]);
            return Err(self.error(format!("copy {copy} gave the reward {reward}, not a finite number")));
        }
        if unroll.action_masks.iter().fold(0, |all, flag| all | flag) > 1 {
            return Err(self.error("a mask of legal actions holds a flag that is neither 0 nor 1".into()));
        }
        for array in [&unroll.observations, &unroll.final_observations] {
            if let Array::F32(values) = array
                && let Some(at) = first_not_finite(values)
            {
                let value = values[at];
                return Err(self.error(format!("an observation holds {value}, not a finite number")));
            }
        }
        Ok(())
    }

    fn error(&self, message: String) -> SamplerError {
        EnvironmentError { id: self.vector.spec().id.clone(), message }.into()
    }
}

/// Takes final observations in where the unroll holds them, and notes whose they are.
#[derive(Debug)]
struct Finals<'a> {
    observations: &'a mut Array,
    observation_len: usize,
    copies: &'a mut Vec<usize>,
}

impl FinalObservations for Finals<'_> {
    fn slot(&mut self, copy: usize) -> ObservationMut<'_> {
        self.copies.push(copy);
        let start = self.observations.len();
        self.observations.resize(start + self.observation_len);
        part_mut(self.observations, start..start + self.observation_len)
    }
}

/// Distribution parameters in which the alternatives that `masks` calls illegal are impossible, in `buffer` unless there
/// are no masks.
fn without_illegal<'a>(
    distribution: &ActionDistribution,
    parameters: &'a [f32],
    masks: &[u8],
    buffer: &'a mut Vec<f32>,
) -> Result<&'a [f32], DistributionError> {
    if masks.is_empty() {
        return Ok(parameters);
    }
    buffer.clear();
    buffer.extend_from_slice(parameters);
    distribution.mask(buffer, masks)?;
    Ok(buffer)
}

/// The numbers of row `row` where rows have `len` numbers.
fn span(row: usize, len: usize) -> Range<usize> {
    row * len..(row + 1) * len
}

fn part_mut(array: &mut Array, range: Range<usize>) -> ObservationMut<'_> {
    match array {
        Array::F32(values) => ObservationMut::F32(&mut values[range]),
        Array::U8(values) => ObservationMut::U8(&mut values[range]),
        Array::I32(values) => ObservationMut::I32(&mut values[range]),
    }
}

fn first_not_finite(values: &[f32]) -> Option<usize> {
    if all_finite(values) { None } else { values.iter().position(|value| !value.is_finite()) }
}

fn unreachable_actions() -> ! {
    unreachable!("an action space is discrete or of real numbers")
}
