//! Frame stacking: the policy sees the last K observations of an episode, which are stored and sent once.
//!
//! An environment gives single observations (frames), and these are what unrolls hold. They become stacks where
//! somebody looks at them: at the actor before it acts, at the learner when a batch becomes a tensor. A stack is `[K, ...]`,
//! oldest frame first; where an episode is younger than K frames its first one stands in for those that are missing, as
//! in Gymnasium's `FrameStackObservation`.

use crate::space::{EnvironmentSpec, Space};
use crate::unroll::Array;

/// Most frames of a stack.
pub const MAX_FRAME_STACK: usize = 64;

/// Most numbers of a stack: what one observation may have on the wire.
const MAX_ELEMENTS: usize = 1 << 24;

/// Observations that cannot be stacked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("environment.frame_stack is {frames}, but {problem}")]
pub struct StackError {
    frames: usize,
    problem: String,
}

impl EnvironmentSpec {
    /// The environment as the policy sees it: with observations `[frames, ...]`, unless `frames` is 1.
    ///
    /// # Errors
    /// If the observations are choices, or a stack would be too large.
    pub fn stacked(&self, frames: usize) -> Result<Self, StackError> {
        if frames == 1 {
            return Ok(self.clone());
        }
        let refuse = |problem: String| Err(StackError { frames, problem });
        let Space::Box { low, high, shape, dtype } = &self.observation else {
            return refuse(format!(
                "the observations of {}, {}, are choices, which are not stacked: set it to 1, and policy.core to \
                 \"lstm\" or \"gru\" if the policy needs to know the past",
                self.id, self.observation
            ));
        };
        if frames == 0 || frames > MAX_FRAME_STACK || frames.saturating_mul(low.len()) > MAX_ELEMENTS {
            return refuse(format!(
                "of the observations {} of {} at most {} are stacked",
                self.observation,
                self.id,
                MAX_FRAME_STACK.min(MAX_ELEMENTS / low.len().max(1)),
            ));
        }
        let mut stacked_shape = vec![frames];
        stacked_shape.extend(shape);
        let observation = Space::Box {
            low: low.repeat(frames),
            high: high.repeat(frames),
            shape: stacked_shape,
            dtype: *dtype,
        };
        // A layout is of one frame.
        Ok(Self { observation, layout: None, ..self.clone() })
    }
}

/// A block of experience whose observations are single frames, to be seen in stacks of K.
#[derive(Debug, Clone, Copy)]
pub struct Frames<'a> {
    /// K.
    pub stack: usize,
    /// C: columns.
    pub columns: usize,
    /// Numbers in one frame.
    pub frame_len: usize,
    /// `[K - 1, C, ...]`: what was seen with the first row, oldest first.
    pub history: &'a Array,
    /// `[R, C, ...]`; what stands behind is not looked at.
    pub observations: &'a Array,
    /// `[R - 1, C]`, 0 or 1.
    pub terminated: &'a [u8],
    /// `[R - 1, C]`, 0 or 1.
    pub truncated: &'a [u8],
}

impl Frames<'_> {
    /// Appends what the policy saw at `row` of `column`, `[K, ...]`, to `to`.
    ///
    /// # Panics
    /// If there is no such row, or an array is of another type or size.
    pub fn push_stack(&self, row: usize, column: usize, to: &mut Array) {
        self.push(row, column, row..row + self.stack, to);
    }

    /// Appends what the policy would have seen, `[K, ...]`, where the episode of `column` was cut by the step of `row`:
    /// the frames before, and frame number `number` of `finals` as the newest.
    ///
    /// # Panics
    /// As [`Self::push_stack`].
    pub fn push_final(&self, row: usize, column: usize, finals: &Array, number: usize, to: &mut Array) {
        self.push(row, column, row + 1..row + self.stack, to);
        to.extend_from(finals, number * self.frame_len..(number + 1) * self.frame_len);
    }

    /// Appends what the policy saw in `rows`, `[rows, C, K, ...]`, to `to`.
    ///
    /// # Panics
    /// As [`Self::push_stack`].
    pub fn push_rows(&self, rows: std::ops::Range<usize>, to: &mut Array) {
        for row in rows {
            (0..self.columns).for_each(|column| self.push_stack(row, column, to));
        }
    }

    /// Appends the history of a block that begins at `row`, `[K - 1, C, ...]`, to `to`.
    ///
    /// # Panics
    /// As [`Self::push_stack`].
    pub fn push_history(&self, row: usize, to: &mut Array) {
        for number in row..row + self.stack - 1 {
            (0..self.columns).for_each(|column| self.push(row, column, number..number + 1, to));
        }
    }

    /// Appends the frames with the given numbers, counted from the beginning of the history, as they are seen at `row`.
    fn push(&self, row: usize, column: usize, numbers: std::ops::Range<usize>, to: &mut Array) {
        let before = self.stack - 1;
        // The history is what was seen: nothing in it needs a stand-in.
        let first = self.beginning(row, column).map_or(0, |row| row + before);
        for number in numbers {
            let number = number.max(first);
            let (array, row) = match number.checked_sub(before) {
                Some(row) => (self.observations, row),
                None => (self.history, number),
            };
            let at = (row * self.columns + column) * self.frame_len;
            to.extend_from(array, at..at + self.frame_len);
        }
    }

    /// The row at which the episode seen at `row` began, if it was after the first frame of the stack there.
    fn beginning(&self, row: usize, column: usize) -> Option<usize> {
        let earliest = (row + 2).saturating_sub(self.stack).max(1);
        (earliest..=row).rev().find(|row| {
            let step = (row - 1) * self.columns + column;
            self.terminated[step] | self.truncated[step] == 1
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::space::ElementType;
    use proptest::prelude::*;

    fn spec(observation: Space) -> EnvironmentSpec {
        EnvironmentSpec::new("Test-v0", observation, Space::Discrete { n: 2 })
    }

    fn pixels(side: usize) -> Space {
        let len = side * side;
        Space::Box {
            low: vec![0.0; len],
            high: vec![255.0; len],
            shape: vec![side; 2],
            dtype: ElementType::U8,
        }
    }

    #[test]
    fn the_policy_sees_frames_on_a_new_first_axis() {
        let stacked = spec(pixels(84)).stacked(4).unwrap().observation;
        assert_eq!((stacked.shape(), stacked.dtype()), (vec![4, 84, 84], ElementType::U8));
        let Space::Box { low, high, .. } =
            spec(Space::boxed(&[-1.0, 0.0], &[1.0, 5.0])).stacked(2).unwrap().observation
        else {
            panic!("a box stays a box")
        };
        assert_eq!((low, high), (vec![-1.0, 0.0, -1.0, 0.0], vec![1.0, 5.0, 1.0, 5.0]));
        assert_eq!(spec(pixels(3)).stacked(1).unwrap(), spec(pixels(3)));
        let choices = Space::MultiDiscrete { nvec: vec![3; 9] };
        assert_eq!(spec(choices.clone()).stacked(1).unwrap().observation, choices);
    }

    #[test]
    fn what_cannot_be_stacked_is_refused_before_memory_is_taken() {
        let error = |observation, frames| spec(observation).stacked(frames).unwrap_err().to_string();
        let choices = error(Space::Discrete { n: 3 }, 4);
        assert!(
            choices.contains("environment.frame_stack is 4") && choices.contains("set it to 1"),
            "{choices}"
        );
        assert!(error(pixels(84), 65).contains("at most 64"));
        assert!(error(pixels(84), 0).contains("at most 64"));
        assert!(error(pixels(2048), 5).contains("at most 4"));
    }

    /// An episode's frames as `FrameStackObservation` would stack them, one step after another.
    struct Naive {
        stack: Vec<u8>,
    }

    impl Naive {
        fn see(&mut self, frame: u8, is_first: bool) -> Vec<u8> {
            if is_first {
                self.stack.fill(frame);
            }
            self.stack.remove(0);
            self.stack.push(frame);
            self.stack.clone()
        }
    }

    proptest! {
        #[test]
        fn stacks_of_a_block_are_those_of_a_stacker_that_saw_every_step(
            stack in 1usize..6,
            columns in 1usize..4,
            length in 1usize..8,
            ends in proptest::collection::vec(0u8..6, 3 * 8 * 4),
        ) {
            let block_steps = length * columns;
            let mut naive: Vec<_> = (0..columns).map(|_| Naive { stack: vec![0; stack] }).collect();
            let mut frame = 0u8;
            let mut next = || { frame = frame.wrapping_add(1); frame };
            // What the stackers see at the first row of the first block, and the history that goes with it.
            let mut newest: Vec<u8> = (0..columns).map(|_| next()).collect();
            let mut seen: Vec<_> = naive.iter_mut().zip(&newest).map(|(n, f)| n.see(*f, true)).collect();
            let mut history = Array::U8((0..stack - 1).flat_map(|_| newest.clone()).collect());
            for block in ends.chunks_exact(block_steps).take(3) {
                let (mut observations, mut finals) = (newest.clone(), vec![]);
                let (mut expected, mut expected_finals) = (seen.concat(), vec![]);
                for row in block.chunks_exact(columns) {
                    for (column, end) in row.iter().enumerate() {
                        let ended = *end < 2;
                        if *end == 1 {
                            finals.push(next());
                            let last = [&seen[column][1..], &finals[finals.len() - 1..]].concat();
                            expected_finals.push(last);
                        }
                        newest[column] = next();
                        seen[column] = naive[column].see(newest[column], ended);
                    }
                    observations.extend(&newest);
                    expected.extend(seen.concat());
                }
                let terminated: Vec<u8> = block.iter().map(|end| u8::from(*end == 0)).collect();
                let truncated: Vec<u8> = block.iter().map(|end| u8::from(*end == 1)).collect();
                let (observations, finals) = (Array::U8(observations), Array::U8(finals));
                let frames = Frames {
                    stack,
                    columns,
                    frame_len: 1,
                    history: &history,
                    observations: &observations,
                    terminated: &terminated,
                    truncated: &truncated,
                };
                let mut stacks = Array::zeros(ElementType::U8, 0);
                frames.push_rows(0..length + 1, &mut stacks);
                prop_assert_eq!(stacks, Array::U8(expected));
                let cut = truncated.iter().enumerate().filter(|(_, cut)| **cut == 1);
                for (number, ((step, _), expected)) in cut.zip(expected_finals).enumerate() {
                    let mut last = Array::zeros(ElementType::U8, 0);
                    frames.push_final(step / columns, step % columns, &finals, number, &mut last);
                    prop_assert_eq!(last, Array::U8(expected));
                }
                let mut after = Array::zeros(ElementType::U8, 0);
                frames.push_history(length, &mut after);
                history = after;
            }
        }
    }
}
