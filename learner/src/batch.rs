//! [`Batch`]: columns of several unrolls side by side, time-major, as the algorithms read them.

use impresario_common::unroll::{Array, Unroll, UnrollLayout};

/// `[T, B]` of experience.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// T: environment steps of each column.
    pub length: usize,
    /// B: columns.
    pub columns: usize,
    /// `[T + 1, B, ...]`, followed by the `K` final observations `[K, ...]`: one array, so that one forward
    /// pass serves both. A selection ([`Self::of_steps`], [`Self::of_columns`]) has `[T, B, ...]` alone.
    pub observations: Array,
    /// `[T, B]` or `[T, B, n]`.
    pub actions: Array,
    /// `[T, B]`, as the environment gave them.
    pub rewards: Vec<f32>,
    /// `[T, B]`, 0 or 1.
    pub terminated: Vec<u8>,
    /// `[T, B]`, 0 or 1.
    pub truncated: Vec<u8>,
    /// `[T, B]`.
    pub behaviour_log_probs: Vec<f32>,
    /// `[K]`: for each final observation the step `t * B + b` that it belongs to: truncated, not terminated.
    pub final_steps: Vec<usize>,
    /// `[T, B, M]`, 0 or 1: which alternatives were legal; empty where the environment masks none.
    pub action_masks: Vec<u8>,
    /// `[B, S]`: what the policy's core remembered before the first step; empty for a policy without memory.
    pub core_states: Vec<f32>,
    /// `[B]`: the version that acted.
    pub policy_versions: Vec<u64>,
}

impl Batch {
    /// Environment steps inside.
    pub fn steps(&self) -> usize {
        self.length * self.columns
    }

    /// A batch of all columns of one unroll, whose arrays it takes over.
    pub fn whole(unroll: Unroll) -> Self {
        let mut batch = Self {
            length: unroll.length,
            columns: unroll.copies,
            observations: unroll.observations,
            actions: unroll.actions,
            rewards: unroll.rewards,
            terminated: unroll.terminated,
            truncated: unroll.truncated,
            behaviour_log_probs: unroll.behaviour_log_probs,
            final_steps: vec![],
            action_masks: unroll.action_masks,
            core_states: unroll.core_states,
            policy_versions: vec![unroll.policy_version; unroll.copies],
        };
        batch.final_steps.extend(cut_steps(&batch.terminated, &batch.truncated));
        batch.observations.extend_from(&unroll.final_observations, 0..unroll.final_observations.len());
        batch
    }

    /// The given steps `t * B + b` in the given order, as `n` columns of length 1: what a policy without
    /// memory needs of them. Nothing follows them, so there are no bootstrap rows and no final observations.
    ///
    /// # Panics
    /// If a step lies outside, or this is such a selection itself.
    pub fn of_steps(&self, steps: &[usize]) -> Self {
        self.select(1, steps.len(), steps)
    }

    /// The given columns in the given order, from first step to last, as a policy with memory needs them. Nothing
    /// follows them, so there are no bootstrap rows and no final observations.
    ///
    /// # Panics
    /// If a column lies outside, or this is such a selection itself.
    pub fn of_columns(&self, columns: &[usize]) -> Self {
        let mut part = self.select(self.length, columns.len(), &self.steps_of(columns));
        let state = self.core_states.len() / self.columns;
        part.core_states = rows(&self.core_states, state, columns);
        part
    }

    /// The steps of the given columns, `[T, n]`.
    pub fn steps_of(&self, columns: &[usize]) -> Vec<usize> {
        (0..self.length).flat_map(|t| columns.iter().map(move |column| t * self.columns + column)).collect()
    }

    /// `length` times `columns` of the steps.
    fn select(&self, length: usize, columns: usize, steps: &[usize]) -> Self {
        let observations = (self.length + 1) * self.columns + self.final_steps.len();
        assert!(self.observations.len().is_multiple_of(observations), "a selection of a selection");
        let of_array = |array: &Array, count: usize| {
            let width = array.len() / count;
            match array {
                Array::F32(values) => Array::F32(rows(values, width, steps)),
                Array::U8(values) => Array::U8(rows(values, width, steps)),
                Array::I32(values) => Array::I32(rows(values, width, steps)),
            }
        };
        let version = |step: &usize| self.policy_versions[step % self.columns];
        Self {
            length,
            columns,
            observations: of_array(&self.observations, observations),
            actions: of_array(&self.actions, self.steps()),
            rewards: rows(&self.rewards, 1, steps),
            terminated: rows(&self.terminated, 1, steps),
            truncated: rows(&self.truncated, 1, steps),
            behaviour_log_probs: rows(&self.behaviour_log_probs, 1, steps),
            final_steps: vec![],
            action_masks: rows(&self.action_masks, self.action_masks.len() / self.steps(), steps),
            core_states: vec![],
            policy_versions: steps[..columns].iter().map(version).collect(),
        }
    }

    /// Puts columns `from..upto` of each unroll side by side.
    ///
    /// # Panics
    /// If an unroll is not of `layout` or lacks the columns.
    pub fn assemble(layout: &UnrollLayout, parts: &[(&Unroll, std::ops::Range<usize>)]) -> Self {
        let t_len = layout.length;
        let columns = parts.iter().map(|(_, range)| range.len()).sum();
        let steps = t_len * columns;
        let observation = layout.observation.len();
        let action = layout.action.len();
        let (mask, state) = (layout.mask_len, layout.core_state_len);
        let mut batch = Self {
            length: t_len,
            columns,
            observations: Array::zeros(layout.observation.dtype(), (t_len + 1) * columns * observation),
            actions: Array::zeros(layout.action.dtype(), steps * action),
            rewards: vec![0.0; steps],
            terminated: vec![0; steps],
            truncated: vec![0; steps],
            behaviour_log_probs: vec![0.0; steps],
            final_steps: vec![],
            action_masks: vec![0; steps * mask],
            core_states: Vec::with_capacity(columns * state),
            policy_versions: Vec::with_capacity(columns),
        };
        let mut first = 0;
        for (unroll, range) in parts {
            let (from, width) = (range.start, range.len());
            for t in 0..=t_len {
                let (to, at) = (t * columns + first, t * unroll.copies + from);
                batch.observations.copy_from(
                    to * observation,
                    &unroll.observations,
                    at * observation,
                    width * observation,
                );
                if t == t_len {
                    break;
                }
                batch.actions.copy_from(to * action, &unroll.actions, at * action, width * action);
                batch.rewards[to..to + width].copy_from_slice(&unroll.rewards[at..at + width]);
                batch.terminated[to..to + width].copy_from_slice(&unroll.terminated[at..at + width]);
                batch.truncated[to..to + width].copy_from_slice(&unroll.truncated[at..at + width]);
                batch.behaviour_log_probs[to..to + width]
                    .copy_from_slice(&unroll.behaviour_log_probs[at..at + width]);
                batch.action_masks[to * mask..(to + width) * mask]
                    .copy_from_slice(&unroll.action_masks[at * mask..(at + width) * mask]);
            }
            batch.core_states.extend(&unroll.core_states[from * state..(from + width) * state]);
            batch.policy_versions.extend(std::iter::repeat_n(unroll.policy_version, width));
            first += width;
        }
        batch.append_final_observations(parts, observation);
        batch
    }

    /// Final observations follow in the order of the unrolls, each with the step that it belongs to.
    fn append_final_observations(&mut self, parts: &[(&Unroll, std::ops::Range<usize>)], observation: usize) {
        let mut first = 0;
        for (unroll, range) in parts {
            for (k, step) in cut_steps(&unroll.terminated, &unroll.truncated).enumerate() {
                let (t, column) = (step / unroll.copies, step % unroll.copies);
                if range.contains(&column) {
                    self.final_steps.push(t * self.columns + first + column - range.start);
                    self.observations
                        .extend_from(&unroll.final_observations, k * observation..(k + 1) * observation);
                }
            }
            first += range.len();
        }
    }
}

/// The given rows of `width` numbers each, one after another.
fn rows<T: Copy>(values: &[T], width: usize, rows: &[usize]) -> Vec<T> {
    rows.iter().flat_map(|row| &values[row * width..(row + 1) * width]).copied().collect()
}

/// The steps that have final observations: truncated, not terminated.
fn cut_steps<'a>(terminated: &'a [u8], truncated: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    // Most stretches have none, which one vectorised pass over each shows.
    const STRETCH: usize = 512;
    let stretches = truncated.chunks(STRETCH).enumerate();
    let some = stretches.filter(|(_, stretch)| stretch.iter().fold(0, |any, &cut| any | cut) != 0);
    some.flat_map(move |(k, stretch)| {
        let steps = k * STRETCH..k * STRETCH + stretch.len();
        steps.filter(move |&step| truncated[step] == 1 && terminated[step] == 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use impresario_common::space::Space;

    #[test]
    fn columns_of_several_unrolls_lie_side_by_side() {
        let layout = UnrollLayout {
            mask_len: 1,
            core_state_len: 2,
            ..UnrollLayout::of_spaces(2, Space::boxed(&[-1.0], &[1.0]), Space::Discrete { n: 9 })
        };
        let mut a = Unroll::zeros(&layout, 2);
        a.observations = Array::F32(vec![0.0, 1.0, 10.0, 11.0, 20.0, 21.0]);
        a.actions = Array::I32(vec![0, 1, 2, 3]);
        a.rewards = vec![0.0, 1.0, 2.0, 3.0];
        a.truncated = vec![1, 0, 0, 1];
        a.final_observations = Array::F32(vec![100.0, 103.0]);
        a.action_masks = vec![0, 1, 1, 0];
        a.core_states = vec![0.0, 0.5, 1.0, 1.5];
        a.policy_version = 4;
        let mut b = Unroll::zeros(&layout, 1);
        b.observations = Array::F32(vec![5.0, 15.0, 25.0]);
        b.actions = Array::I32(vec![5, 6]);
        b.rewards = vec![5.0, 6.0];
        b.truncated = vec![1, 1];
        b.terminated = vec![1, 0];
        b.final_observations = Array::F32(vec![106.0]);
        b.core_states = vec![5.0, 5.5];
        b.policy_version = 5;

        let batch = Batch::assemble(&layout, &[(&a, 1..2), (&b, 0..1)]);
        assert_eq!((batch.length, batch.columns, batch.steps()), (2, 2, 4));
        assert_eq!(batch.observations, Array::F32(vec![1.0, 5.0, 11.0, 15.0, 21.0, 25.0, 103.0, 106.0]));
        assert_eq!(batch.actions, Array::I32(vec![1, 5, 3, 6]));
        assert_eq!(batch.rewards, [1.0, 5.0, 3.0, 6.0]);
        assert_eq!(batch.truncated, [0, 1, 1, 1]);
        assert_eq!(batch.terminated, [0, 1, 0, 0]);
        assert_eq!(batch.final_steps, [2, 3]);
        assert_eq!(batch.action_masks, [1, 1, 0, 1]);
        assert_eq!(batch.core_states, [1.0, 1.5, 5.0, 5.5]);
        assert_eq!(batch.policy_versions, [4, 5]);
    }

    #[test]
    fn a_whole_unroll_is_the_batch_of_all_its_columns() {
        let layout = UnrollLayout {
            mask_len: 1,
            core_state_len: 2,
            ..UnrollLayout::of_spaces(2, Space::boxed(&[-1.0], &[1.0]), Space::Discrete { n: 9 })
        };
        let mut unroll = Unroll::zeros(&layout, 2);
        unroll.observations = Array::F32(vec![0.0, 1.0, 10.0, 11.0, 20.0, 21.0]);
        unroll.actions = Array::I32(vec![0, 1, 2, 3]);
        unroll.rewards = vec![0.0, 1.0, 2.0, 3.0];
        unroll.terminated = vec![0, 1, 0, 0];
        unroll.truncated = vec![1, 1, 0, 1];
        unroll.final_observations = Array::F32(vec![100.0, 103.0]);
        unroll.action_masks = vec![0, 1, 1, 0];
        unroll.core_states = vec![0.0, 0.5, 1.0, 1.5];
        unroll.policy_version = 4;
        let assembled = Batch::assemble(&layout, &[(&unroll, 0..2)]);
        assert_eq!(Batch::whole(unroll), assembled);
        assert_eq!(assembled.final_steps, [0, 3]);
    }

    /// `[2, 3]` with a mask, a core's state and bytes as observations; every number tells where it belongs.
    fn numbered() -> Batch {
        let numbers = |len: u8| (0..len).collect::<Vec<u8>>();
        let floats = |from: f32, len: u8| (0..len).map(|i| from + f32::from(i)).collect::<Vec<f32>>();
        Batch {
            length: 2,
            columns: 3,
            observations: Array::U8(numbers(2 * (3 * 3 + 1))),
            actions: Array::I32((0..6).collect()),
            rewards: floats(10.0, 6),
            terminated: vec![0, 1, 0, 0, 0, 1],
            truncated: vec![0, 0, 0, 1, 0, 0],
            behaviour_log_probs: floats(-9.0, 6),
            final_steps: vec![3],
            action_masks: numbers(12),
            core_states: floats(50.0, 3),
            policy_versions: vec![7, 8, 9],
        }
    }

    #[test]
    fn selected_steps_keep_what_belongs_to_them() {
        let part = numbered().of_steps(&[5, 0, 3, 1]);
        assert_eq!((part.length, part.columns, part.steps()), (1, 4, 4));
        assert_eq!(part.observations, Array::U8(vec![10, 11, 0, 1, 6, 7, 2, 3]));
        assert_eq!(part.actions, Array::I32(vec![5, 0, 3, 1]));
        assert_eq!(part.rewards, [15.0, 10.0, 13.0, 11.0]);
        assert_eq!(part.terminated, [1, 0, 0, 1]);
        assert_eq!(part.truncated, [0, 0, 1, 0]);
        assert_eq!(part.behaviour_log_probs, [-4.0, -9.0, -6.0, -8.0]);
        assert_eq!(part.action_masks, [10, 11, 0, 1, 6, 7, 2, 3]);
        assert_eq!(part.policy_versions, [9, 7, 7, 8]);
        assert!(part.final_steps.is_empty() && part.core_states.is_empty());
    }

    #[test]
    fn selected_columns_keep_their_order_in_time_and_their_memory() {
        let part = numbered().of_columns(&[2, 0]);
        assert_eq!((part.length, part.columns, part.steps()), (2, 2, 4));
        assert_eq!(numbered().steps_of(&[2, 0]), [2, 0, 5, 3]);
        assert_eq!(part.actions, Array::I32(vec![2, 0, 5, 3]));
        assert_eq!(part.observations, Array::U8(vec![4, 5, 0, 1, 10, 11, 6, 7]));
        assert_eq!(part.core_states, [52.0, 50.0]);
        assert_eq!(part.policy_versions, [9, 7]);
    }
}
