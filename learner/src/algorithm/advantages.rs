//! Advantages and value targets by generalised advantage estimation (Schulman et al. 2015,
//! <https://arxiv.org/abs/1506.02438>), from a batch and the values that the target policy sees in it.

use super::rewards::RewardRule;
use crate::batch::Batch;
use crate::returns::gae_batch;

/// What each step of a batch was worth. All are `[T, B]`; the buffers serve every update.
#[derive(Debug, Default)]
pub struct Advantages {
    rewards: Vec<f32>,
    discounts: Vec<f32>,
    /// What an action's return exceeds the state's value by.
    pub advantages: Vec<f32>,
    /// Advantage plus value: what the value should have been (the lambda return).
    pub returns: Vec<f32>,
}

impl Advantages {
    /// Estimates both from `values`, `[(T + 1) * B + K]`: those of every observation of `batch`.
    pub fn estimate(&mut self, batch: &Batch, values: &[f32], rule: &RewardRule, lambda: f32) {
        let (steps, columns) = (batch.steps(), batch.columns);
        let (values, final_values) = values.split_at(steps + columns);
        rule.apply(batch, final_values, &mut self.rewards, &mut self.discounts);
        let (rewards, discounts) = (&self.rewards, &self.discounts);
        self.advantages.resize(steps, 0.0);
        gae_batch(batch.length, columns, discounts, rewards, values, lambda, &mut self.advantages);
        self.returns.clear();
        self.returns.extend(self.advantages.iter().zip(values).map(|(advantage, value)| advantage + value));
    }
}
