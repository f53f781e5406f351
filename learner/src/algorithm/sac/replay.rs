//! [`Replay`]: a ring of transitions, filled from batches and drawn from at random.

use std::collections::BTreeMap;

use impresario_common::random::Stream;
use impresario_common::space::{ElementType, EnvironmentSpec, Space};
use impresario_common::unroll::Array;
use rand::RngExt;

use crate::batch::Batch;

/// Transitions `(observation, action, reward, terminated, next observation)`, the newest `capacity` of them.
///
/// Memory grows with what is held: observations as the policy sees them, so that stacks of K take K times the bytes. After a truncated step the next observation is the final one of its
/// episode, so that its value can be bootstrapped from.
///
/// Where actions are masked, the mask of the next observation is needed for its value. A batch has none for the observations
/// behind its last step and for final ones: steps that lead to these, unless they terminated, are not taken in.
#[derive(Debug)]
pub struct Replay {
    capacity: usize,
    observation_len: usize,
    action_len: usize,
    /// Where the next transition goes, once the ring is full.
    head: usize,
    observations: Array,
    next_observations: Array,
    actions: Array,
    rewards: Vec<f32>,
    terminated: Vec<u8>,
    /// M: flags of a mask of legal actions; 0 where there are none.
    mask_len: usize,
    masks: Vec<u8>,
    next_masks: Vec<u8>,
}

/// Transitions drawn from the replay, row by row.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// `[N, ...]`.
    pub observations: Array,
    /// `[N, ...]`.
    pub next_observations: Array,
    /// `[N]` or `[N, n]`.
    pub actions: Array,
    /// `[N]`, as the environment gave them.
    pub rewards: Vec<f32>,
    /// `[N]`, 0 or 1.
    pub terminated: Vec<u8>,
    /// `[N, M]`: flags of the legal actions at the observations; empty where all are.
    pub masks: Vec<u8>,
    /// `[N, M]`: the same at the next observations.
    pub next_masks: Vec<u8>,
}

impl Replay {
    /// An empty ring for `capacity` transitions in `environment` as the policy sees it.
    pub fn new(capacity: usize, environment: &EnvironmentSpec) -> Self {
        let EnvironmentSpec { observation, action, masks_actions, .. } = environment;
        let empty = |space: &Space| Array::zeros(space.dtype(), 0);
        Self {
            capacity,
            observation_len: observation.len(),
            action_len: action.len(),
            head: 0,
            observations: empty(observation),
            next_observations: empty(observation),
            actions: empty(action),
            rewards: vec![],
            terminated: vec![],
            mask_len: if *masks_actions { action.alternatives() } else { 0 },
            masks: vec![],
            next_masks: vec![],
        }
    }

    /// Transitions held.
    pub fn len(&self) -> usize {
        self.rewards.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.rewards.is_empty()
    }

    /// Takes in the steps of `batch`.
    pub fn extend(&mut self, batch: &Batch) {
        let seen = &*batch.seen();
        let first_final = (batch.length + 1) * batch.columns;
        let mut finals = batch.final_steps.iter().enumerate().collect::<Vec<_>>();
        finals.sort_by_key(|(_, step)| **step);
        let mut finals = finals.into_iter().peekable();
        for step in 0..batch.steps() {
            let next = match finals.next_if(|(_, cut)| **cut == step) {
                Some((k, _)) => first_final + k,
                None => step + batch.columns,
            };
            if self.mask_len == 0 || batch.terminated[step] == 1 || next < batch.steps() {
                self.push(batch, seen, step, next);
            }
        }
    }

    /// Takes in the step in row `step` of `batch`, in which the policy has `seen` these rows, and which led to row `next`.
    fn push(&mut self, batch: &Batch, seen: &Array, step: usize, next: usize) {
        let (o, a) = (self.observation_len, self.action_len);
        let held = self.len();
        if held < self.capacity {
            self.observations.extend_from(seen, step * o..(step + 1) * o);
            self.next_observations.extend_from(seen, next * o..(next + 1) * o);
            self.actions.extend_from(&batch.actions, step * a..(step + 1) * a);
            self.rewards.push(batch.rewards[step]);
            self.terminated.push(batch.terminated[step]);
            self.masks.extend_from_slice(mask_of(batch, step, self.mask_len));
            self.next_masks.extend_from_slice(mask_of(batch, next, self.mask_len));
            return;
        }
        let at = self.head;
        self.head = (self.head + 1) % self.capacity;
        self.observations.copy_from(at * o, seen, step * o, o);
        self.next_observations.copy_from(at * o, seen, next * o, o);
        self.actions.copy_from(at * a, &batch.actions, step * a, a);
        self.rewards[at] = batch.rewards[step];
        self.terminated[at] = batch.terminated[step];
        let m = self.mask_len;
        self.masks[at * m..(at + 1) * m].copy_from_slice(mask_of(batch, step, m));
        self.next_masks[at * m..(at + 1) * m].copy_from_slice(mask_of(batch, next, m));
    }

    /// All that is held, by name, as [`Self::load`] takes it.
    pub fn save(&self) -> Vec<(String, Array)> {
        let head = self.head as u64;
        [
            ("observations", self.observations.clone()),
            ("next_observations", self.next_observations.clone()),
            ("actions", self.actions.clone()),
            ("rewards", Array::F32(self.rewards.clone())),
            ("terminated", Array::U8(self.terminated.clone())),
            ("masks", Array::U8(self.masks.clone())),
            ("next_masks", Array::U8(self.next_masks.clone())),
            ("head", Array::U8(head.to_le_bytes().to_vec())),
        ]
        .map(|(name, array)| (name.to_owned(), array))
        .into()
    }

    /// Holds what [`Self::save`] gave, in the very places; drawing goes on as if nothing had happened.
    ///
    /// # Errors
    /// With what does not fit; nothing has changed then.
    pub fn load(&mut self, arrays: Vec<(String, Array)>) -> Result<(), String> {
        let mut arrays: BTreeMap<String, Array> = arrays.into_iter().collect();
        let mut take = |name: &str, dtype: ElementType| match arrays.remove(name) {
            Some(array) if array.dtype() == dtype => Ok(array),
            Some(array) => Err(format!("the replay's {name} are {}, expected {dtype}", array.dtype())),
            None => Err(format!("the replay's {name} are missing")),
        };
        let (seen, acted) = (self.observations.dtype(), self.actions.dtype());
        let observations = take("observations", seen)?;
        let next_observations = take("next_observations", seen)?;
        let actions = take("actions", acted)?;
        let rewards = floats_of(take("rewards", ElementType::F32)?);
        let terminated = bytes_of(take("terminated", ElementType::U8)?);
        let masks = bytes_of(take("masks", ElementType::U8)?);
        let next_masks = bytes_of(take("next_masks", ElementType::U8)?);
        let head = bytes_of(take("head", ElementType::U8)?);
        let head = <[u8; 8]>::try_from(head).map_err(|_| "the replay's head is no number".to_owned())?;
        let (held, head) = (rewards.len(), u64::from_le_bytes(head) as usize);
        let lens = [
            (observations.len(), held * self.observation_len),
            (next_observations.len(), held * self.observation_len),
            (actions.len(), held * self.action_len),
            (terminated.len(), held),
            (masks.len(), held * self.mask_len),
            (next_masks.len(), held * self.mask_len),
        ];
        if let Some((len, expected)) = lens.into_iter().find(|(len, expected)| len != expected) {
            return Err(format!("the replay has an array of {len} numbers where {expected} belong"));
        }
        let capacity = self.capacity;
        if held > capacity || head > 0 && (held != capacity || head >= capacity) {
            return Err(format!(
                "its replay of {held} transitions does not fit algorithm.replay_capacity = {capacity}: take that from the \
                 configuration it was written with"
            ));
        }
        (self.observations, self.next_observations, self.actions) =
            (observations, next_observations, actions);
        (self.rewards, self.terminated) = (rewards, terminated);
        (self.masks, self.next_masks, self.head) = (masks, next_masks, head);
        Ok(())
    }

    /// Draws `count` transitions uniformly, with replacement.
    ///
    /// # Panics
    /// If nothing is held.
    pub fn sample(&self, count: usize, random: &mut Stream) -> Sample {
        let (o, a, m) = (self.observation_len, self.action_len, self.mask_len);
        let mut sample = Sample {
            observations: Array::zeros(self.observations.dtype(), count * o),
            next_observations: Array::zeros(self.observations.dtype(), count * o),
            actions: Array::zeros(self.actions.dtype(), count * a),
            rewards: Vec::with_capacity(count),
            terminated: Vec::with_capacity(count),
            masks: Vec::with_capacity(count * m),
            next_masks: Vec::with_capacity(count * m),
        };
        for row in 0..count {
            let at = random.random_range(0..self.len());
            sample.observations.copy_from(row * o, &self.observations, at * o, o);
            sample.next_observations.copy_from(row * o, &self.next_observations, at * o, o);
            sample.actions.copy_from(row * a, &self.actions, at * a, a);
            sample.rewards.push(self.rewards[at]);
            sample.terminated.push(self.terminated[at]);
            sample.masks.extend_from_slice(&self.masks[at * m..(at + 1) * m]);
            sample.next_masks.extend_from_slice(&self.next_masks[at * m..(at + 1) * m]);
        }
        sample
    }
}

fn floats_of(array: Array) -> Vec<f32> {
    if let Array::F32(values) = array { values } else { vec![] }
}

fn bytes_of(array: Array) -> Vec<u8> {
    if let Array::U8(values) = array { values } else { vec![] }
}

/// The mask of the observation in row `row` of `batch`, which has `len` flags. Where there is none, behind the end of an
/// episode, it is of no account.
fn mask_of(batch: &Batch, row: usize, len: usize) -> &[u8] {
    let range = row * len..(row + 1) * len;
    batch.action_masks.get(range).unwrap_or(&batch.action_masks[..len])
}

#[cfg(test)]
mod tests {
    use impresario_common::random::{self, Purpose};

    use super::*;
    use crate::testing;

    fn floats(array: &Array) -> &[f32] {
        match array {
            Array::F32(values) => values,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_saved_is_drawn_from_alike_and_what_does_not_fit_is_refused() {
        let action = Space::boxed(&[-1.0; 2], &[1.0; 2]);
        let environment = testing::environment(action.clone());
        // Rings that are not full, and full with the oldest in the middle.
        for capacity in [100, 17] {
            let mut replay = Replay::new(capacity, &environment);
            replay.extend(&testing::batch(&action, 3));
            replay.extend(&testing::batch(&action, 4));
            let mut back = Replay::new(capacity, &environment);
            back.load(replay.save()).unwrap();
            let batch = testing::batch(&action, 5);
            replay.extend(&batch);
            back.extend(&batch);
            let draw = |replay: &Replay| replay.sample(64, &mut random::stream(5, Purpose::Learner, [0; 3]));
            assert_eq!(draw(&replay), draw(&back));
            let mut small = Replay::new(16, &environment);
            assert!(small.load(replay.save()).unwrap_err().contains("replay_capacity = 16"));
            assert!(small.is_empty());
            let mut cut = replay.save();
            cut[3].1.resize(2);
            assert!(back.load(cut).unwrap_err().contains("numbers where"));
            assert!(back.load(replay.save().split_off(1)).unwrap_err().contains("observations are missing"));
        }
    }

    #[test]
    fn a_transition_leads_to_the_next_row_or_to_the_final_observation_of_a_truncated_episode() {
        let action = Space::boxed(&[-1.0; 2], &[1.0; 2]);
        let batch = testing::batch(&action, 3);
        let environment = testing::environment(action.clone());
        let mut replay = Replay::new(100, &environment);
        replay.extend(&batch);
        assert_eq!(replay.len(), 12);
        let (held, led_to, rows) =
            (floats(&replay.observations), floats(&replay.next_observations), floats(&batch.observations));
        assert_eq!(held, &rows[..36]);
        for step in 0..12 {
            // Steps 4 and 11 were truncated; their final observations stand after the 15 rows of the batch.
            let next = match step {
                4 => 15,
                11 => 16,
                step => step + 3,
            };
            assert_eq!(led_to[step * 3..step * 3 + 3], rows[next * 3..next * 3 + 3], "step {step}");
        }
        assert_eq!(replay.terminated, batch.terminated);
    }

    #[test]
    fn stacks_are_held_as_the_policy_sees_them() {
        let action = Space::Discrete { n: 2 };
        let mut batch = testing::batch(&action, 3);
        batch.frame_stack = 3;
        batch.history = Array::F32((0..18).map(|i| i as f32).collect());
        let mut replay = Replay::new(100, &testing::environment(action).stacked(3).unwrap());
        replay.extend(&batch);
        let (seen, width) = (batch.seen(), 9);
        let seen = floats(&seen);
        assert_eq!(floats(&replay.observations), &seen[..12 * width]);
        for step in 0..12 {
            let next = match step {
                4 => 15,
                11 => 16,
                step => step + 3,
            };
            let led_to = &floats(&replay.next_observations)[step * width..(step + 1) * width];
            assert_eq!(led_to, &seen[next * width..(next + 1) * width], "step {step}");
        }
    }

    #[test]
    fn the_oldest_transitions_make_room_and_all_held_are_drawn() {
        let action = Space::Discrete { n: 2 };
        let environment = testing::environment(action.clone());
        let mut replay = Replay::new(8, &environment);
        let mut batch = testing::batch(&action, 1);
        batch.rewards = (0..12).map(|i| i as f32).collect();
        replay.extend(&batch);
        assert_eq!(replay.len(), 8);
        assert_eq!(replay.rewards, [8.0, 9.0, 10.0, 11.0, 4.0, 5.0, 6.0, 7.0]);
        let mut random = random::stream(5, Purpose::Learner, [0; 3]);
        let sample = replay.sample(1000, &mut random);
        for reward in 4..12 {
            let drawn = sample.rewards.iter().filter(|r| **r == reward as f32).count();
            assert!((75..185).contains(&drawn), "{reward} was drawn {drawn} times of 1000");
        }
        // Rows belong together.
        let rows = floats(&batch.observations);
        for (row, reward) in sample.rewards.iter().enumerate() {
            let step = *reward as usize;
            assert_eq!(floats(&sample.observations)[row * 3..row * 3 + 3], rows[step * 3..step * 3 + 3]);
        }
    }

    #[test]
    fn where_actions_are_masked_steps_are_held_whose_next_mask_is_known_or_needless() {
        let action = Space::MultiDiscrete { nvec: vec![2, 3] };
        let environment = testing::environment(action.clone()).with_masked_actions();
        let mut batch = testing::batch(&action, 1);
        batch.rewards = (0..12).map(|i| i as f32).collect();
        // A mask that tells its step.
        let flags = |step: usize| [1, 1, 1, (step % 2) as u8, (step / 2 % 2) as u8];
        batch.action_masks = (0..12).flat_map(flags).collect();
        let mut replay = Replay::new(7, &environment);
        replay.extend(&batch);
        // 4 was cut, 9 to 11 end the batch; 2 and 6 terminated.
        assert_eq!(replay.rewards, [8.0, 1.0, 2.0, 3.0, 5.0, 6.0, 7.0]);
        let sample = replay.sample(100, &mut random::stream(5, Purpose::Learner, [0; 3]));
        for (row, reward) in sample.rewards.iter().enumerate() {
            let step = *reward as usize;
            assert_eq!(sample.masks[5 * row..5 * row + 5], flags(step));
            if sample.terminated[row] == 0 {
                assert_eq!(sample.next_masks[5 * row..5 * row + 5], flags(step + 3));
            }
        }
    }
}
