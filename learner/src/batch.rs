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
    /// pass serves both.
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
}
