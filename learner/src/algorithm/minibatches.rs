//! Minibatches: a batch dealt out in random parts, pass after pass.
//!
//! What is dealt are single steps, or, for a policy with memory, whole columns: what such a policy remembers at a
//! step depends on the steps before it.

use crate::batch::Batch;

/// What a batch is dealt out by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Single steps, whatever their column and time.
    Step,
    /// Whole columns, from first step to last.
    Column,
}

/// A batch in parts of nearly equal size, each step in one of them.
#[derive(Debug)]
pub struct Minibatches<'a> {
    batch: &'a Batch,
    unit: Unit,
    order: Vec<usize>,
    count: usize,
}

/// One part of a batch.
#[derive(Debug)]
pub struct Minibatch {
    /// Which steps `t * B + b` of the batch it holds, in its own order.
    pub steps: Vec<usize>,
    /// Their experience.
    pub batch: Batch,
}

impl<'a> Minibatches<'a> {
    /// `batch` in `count` parts, or fewer where it has no more than that to deal.
    pub fn new(batch: &'a Batch, count: usize) -> Self {
        let unit = if batch.core_states.is_empty() { Unit::Step } else { Unit::Column };
        let units = match unit {
            Unit::Step => batch.steps(),
            Unit::Column => batch.columns,
        };
        Self { batch, unit, order: (0..units).collect(), count: count.clamp(1, units.max(1)) }
    }

    /// How many parts there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The steps `t * B + b` or columns in the order in which they are dealt, to be shuffled.
    pub fn order_mut(&mut self) -> &mut [usize] {
        &mut self.order
    }

    /// The parts of one pass.
    pub fn parts(&self) -> impl Iterator<Item = Minibatch> {
        (0..self.count).map(|part| {
            let bound = |part| part * self.order.len() / self.count;
            let dealt = &self.order[bound(part)..bound(part + 1)];
            match self.unit {
                Unit::Step => Minibatch { steps: dealt.to_vec(), batch: self.batch.of_steps(dealt) },
                Unit::Column => {
                    Minibatch { steps: self.batch.steps_of(dealt), batch: self.batch.of_columns(dealt) }
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use impresario_common::random::{self, Purpose};
    use impresario_common::space::Space;
    use rand::seq::SliceRandom;

    use super::*;
    use crate::testing;

    #[test]
    fn every_pass_deals_each_step_once_in_parts_of_nearly_equal_size() {
        let batch = testing::batch(&Space::Discrete { n: 2 }, 1);
        let mut random = random::stream(1, Purpose::Learner, [0; 3]);
        for (count, sizes) in [(1, vec![12]), (5, vec![2, 2, 3, 2, 3]), (12, vec![1; 12]), (99, vec![1; 12])]
        {
            let mut minibatches = Minibatches::new(&batch, count);
            let mut passes = vec![];
            for _ in 0..3 {
                minibatches.order_mut().shuffle(&mut random);
                let parts: Vec<_> = minibatches.parts().collect();
                assert_eq!(parts.iter().map(|part| part.steps.len()).collect::<Vec<_>>(), sizes);
                for part in &parts {
                    let log_probs: Vec<_> =
                        part.steps.iter().map(|step| batch.behaviour_log_probs[*step]).collect();
                    assert_eq!(part.batch.behaviour_log_probs, log_probs);
                }
                let pass: Vec<_> = parts.into_iter().flat_map(|part| part.steps).collect();
                let mut sorted = pass.clone();
                sorted.sort_unstable();
                assert_eq!(sorted, (0..12).collect::<Vec<_>>());
                passes.push(pass);
            }
            assert_ne!(passes[0], passes[1]);
        }
    }

    #[test]
    fn a_policy_with_memory_gets_whole_columns() {
        let mut batch = testing::batch(&Space::Discrete { n: 2 }, 1);
        batch.core_states = vec![0.1, 0.2, 0.3];
        let mut minibatches = Minibatches::new(&batch, 2);
        minibatches.order_mut().reverse();
        let parts: Vec<_> = minibatches.parts().collect();
        assert_eq!(parts[0].steps, [2, 5, 8, 11]);
        assert_eq!(parts[1].steps, [1, 0, 4, 3, 7, 6, 10, 9]);
        assert_eq!((parts[1].batch.length, parts[1].batch.columns), (4, 2));
        assert_eq!(parts[1].batch.core_states, [0.2, 0.1]);
    }
}
