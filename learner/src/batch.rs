//! [`Batch`]: columns of several unrolls side by side, time-major, as the algorithms read them.

use std::borrow::Cow;

use impresario_common::stacking::Frames;
use impresario_common::unroll::{Array, Unroll, UnrollLayout};

/// `[T, B]` of experience.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// T: environment steps of each column.
    pub length: usize,
    /// B: columns.
    pub columns: usize,
    /// `[T + 1, B, ...]`, followed by the `F` final observations `[F, ...]`: one array, so that one forward
    /// pass serves both. A selection ([`Self::of_steps`], [`Self::of_columns`]) has `[T, B, ...]` alone.
    ///
    /// Single frames where the policy sees several at once; [`Self::seen`] has what it sees.
    pub observations: Array,
    /// K: observations that the policy sees at once. A selection's observations are stacked already, and it has 1.
    pub frame_stack: usize,
    /// `[K - 1, B, ...]`: what the policy saw of earlier frames with the first row.
    pub history: Array,
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
    /// `[F]`: for each final observation the step `t * B + b` that it belongs to: truncated, not terminated.
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

    /// A batch of all columns of one unroll of `layout`, whose arrays it takes over.
    pub fn whole(layout: &UnrollLayout, unroll: Unroll) -> Self {
        let mut batch = Self {
            length: unroll.length,
            columns: unroll.copies,
            observations: unroll.observations,
            frame_stack: layout.frame_stack,
            history: unroll.history,
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
        assert!(self.observations.len().is_multiple_of(self.rows()), "a selection of a selection");
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
            observations: match self.frame_stack {
                1 => of_array(&self.observations, self.rows()),
                _ => {
                    let mut stacks = self.room(steps.len());
                    steps.iter().for_each(|step| self.push_seen(*step, &mut stacks));
                    stacks
                }
            },
            frame_stack: 1,
            history: Array::zeros(self.history.dtype(), 0),
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

    /// Observations of a batch that is no selection: those of steps, bootstrap rows and final ones.
    fn rows(&self) -> usize {
        (self.length + 1) * self.columns + self.final_steps.len()
    }

    /// The observations as the policy sees them: in stacks `[K, ...]`, if it sees several frames at once.
    pub fn seen(&self) -> Cow<'_, Array> {
        if self.frame_stack == 1 {
            return Cow::Borrowed(&self.observations);
        }
        let mut stacks = self.room(self.rows());
        self.frames().push_rows(0..self.length + 1, &mut stacks);
        (0..self.final_steps.len()).for_each(|number| self.push_seen_final(number, &mut stacks));
        Cow::Owned(stacks)
    }

    /// Numbers that the policy sees at once.
    pub fn seen_len(&self) -> usize {
        self.frame_stack * self.observations.len() / self.rows()
    }

    /// Appends what the policy saw before the step `t * B + b` to `to`.
    ///
    /// # Panics
    /// If there is no such step, or `to` is of another type.
    pub fn push_seen(&self, step: usize, to: &mut Array) {
        self.frames().push_stack(step / self.columns, step % self.columns, to);
    }

    /// Appends what the policy would see after the episode's end that final observation `number` belongs to.
    fn push_seen_final(&self, number: usize, to: &mut Array) {
        let (row, column) =
            (self.final_steps[number] / self.columns, self.final_steps[number] % self.columns);
        let first = (self.length + 1) * self.columns;
        self.frames().push_final(row, column, &self.observations, first + number, to);
    }

    fn room(&self, rows: usize) -> Array {
        Array::with_capacity(self.observations.dtype(), rows * self.seen_len())
    }

    fn frames(&self) -> Frames<'_> {
        Frames {
            stack: self.frame_stack,
            columns: self.columns,
            frame_len: self.observations.len() / self.rows(),
            history: &self.history,
            observations: &self.observations,
            terminated: &self.terminated,
            truncated: &self.truncated,
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
            frame_stack: layout.frame_stack,
            history: Array::zeros(
                layout.observation.dtype(),
                (layout.frame_stack - 1) * columns * observation,
            ),
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
            for number in 0..layout.frame_stack - 1 {
                batch.history.copy_from(
                    (number * columns + first) * observation,
                    &unroll.history,
                    (number * unroll.copies + from) * observation,
                    width * observation,
                );
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
        assert_eq!(Batch::whole(&layout, unroll), assembled);
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
            frame_stack: 1,
            history: Array::U8(vec![]),
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

    /// What the policy saw of each row and final observation, one step after another.
    fn stacked_naively(layout: &UnrollLayout, unroll: &Unroll, column: usize) -> Vec<Vec<f32>> {
        let (Array::F32(frames), Array::F32(history), Array::F32(finals)) =
            (&unroll.observations, &unroll.history, &unroll.final_observations)
        else {
            panic!("f32 throughout")
        };
        let copies = unroll.copies;
        let mut stack: Vec<f32> = (0..layout.frame_stack - 1).map(|n| history[n * copies + column]).collect();
        stack.push(frames[column]);
        let (mut seen, mut cut) = (vec![stack.clone()], vec![]);
        for row in 1..=unroll.length {
            let step = (row - 1) * copies + column;
            if unroll.truncated[step] == 1 && unroll.terminated[step] == 0 {
                let number = cut_steps(&unroll.terminated, &unroll.truncated).position(|cut| cut == step);
                cut.push([&stack[1..], &finals[number.unwrap()..][..1]].concat());
            }
            let frame = frames[row * copies + column];
            stack.remove(0);
            stack.push(frame);
            if unroll.terminated[step] | unroll.truncated[step] == 1 {
                stack.fill(frame);
            }
            seen.push(stack.clone());
        }
        seen.extend(cut);
        seen
    }

    proptest::proptest! {
        #[test]
        fn a_batch_shows_the_stacks_that_each_copy_saw_step_by_step(
            stack in 2usize..6,
            length in 1usize..7,
            ends in proptest::collection::vec(0u8..5, 6 * 5),
        ) {
            let layout = UnrollLayout {
                frame_stack: stack,
                ..UnrollLayout::of_spaces(length, Space::boxed(&[-1.0], &[1.0]), Space::Discrete { n: 9 })
            };
            let unroll = |copies: usize, first: f32, ends: &[u8]| {
                let mut unroll = Unroll::zeros(&layout, copies);
                unroll.terminated = ends.iter().map(|end| u8::from(*end == 0)).collect();
                unroll.truncated = ends.iter().map(|end| u8::from(*end == 1)).collect();
                let finals = unroll.truncated.iter().filter(|cut| **cut == 1).count();
                unroll.final_observations.resize(finals);
                let mut number = first;
                for array in [&mut unroll.observations, &mut unroll.history, &mut unroll.final_observations] {
                    let Array::F32(values) = array else { panic!("f32 throughout") };
                    values.fill_with(|| { number += 1.0; number });
                }
                unroll
            };
            let (of_a, of_b) = ends.split_at(15);
            let (a, b) = (unroll(2, 0.0, &of_a[..2 * length.min(7)]), unroll(1, 500.0, &of_b[..length]));
            let batch = Batch::assemble(&layout, &[(&a, 0..2), (&b, 0..1)]);
            let columns = [stacked_naively(&layout, &a, 0), stacked_naively(&layout, &a, 1),
                stacked_naively(&layout, &b, 0)];
            let mut expected: Vec<f32> = vec![];
            for row in 0..=length {
                columns.iter().for_each(|column| expected.extend(&column[row]));
            }
            let mut cut: Vec<_> = columns.iter().map(|column| column[length + 1..].iter()).collect();
            for step in &batch.final_steps {
                expected.extend(cut[step % 3].next().unwrap());
            }
            proptest::prop_assert_eq!(&*batch.seen(), &Array::F32(expected.clone()));
            proptest::prop_assert_eq!(batch.seen_len(), stack);

            let steps: Vec<usize> = (0..batch.steps()).rev().collect();
            let part = batch.of_steps(&steps);
            let rows: Vec<f32> = steps.iter().flat_map(|s| expected[s * stack..][..stack].to_vec()).collect();
            proptest::prop_assert_eq!(&*part.seen(), &Array::F32(rows));
            let whole = Batch::whole(&layout, a.clone());
            proptest::prop_assert_eq!(whole, Batch::assemble(&layout, &[(&a, 0..2)]));
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
