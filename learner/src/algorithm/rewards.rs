//! Rewards and discounts as the returns want them.
//!
//! What a batch holds is what the environment said; here rewards are scaled and clipped, and episodes cut:
//!
//! | step | reward | discount |
//! | --- | --- | --- |
//! | within an episode | `r` | `gamma` |
//! | terminated | `r` | 0 |
//! | truncated, not terminated | `r + gamma * V(final observation)` | 0 |
//!
//! A truncated episode would have gone on: the value of its last observation stands for what was cut off
//! (Pardo et al. 2018, arXiv 1712.00378). The next row of the batch belongs to the next episode.

use crate::batch::Batch;

/// How rewards become what is learned from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RewardRule {
    /// Discount of future reward per environment step.
    pub gamma: f32,
    /// Multiplies every reward first.
    pub scale: f32,
    /// Clips every scaled reward to `[-clip, clip]`; 0 leaves them alone.
    pub clip: f32,
}

impl RewardRule {
    /// Writes `[T, B]` rewards and discounts of `batch`; `final_values` `[K]` are the values of its final
    /// observations under the target policy.
    pub fn apply(
        &self,
        batch: &Batch,
        final_values: &[f32],
        rewards: &mut Vec<f32>,
        discounts: &mut Vec<f32>,
    ) {
        rewards.clear();
        rewards.extend(batch.rewards.iter().map(|reward| reward * self.scale));
        if self.clip > 0.0 {
            rewards.iter_mut().for_each(|reward| *reward = reward.clamp(-self.clip, self.clip));
        }
        for (&step, value) in batch.final_steps.iter().zip(final_values) {
            rewards[step] += self.gamma * value;
        }
        let ends = batch.terminated.iter().zip(&batch.truncated);
        discounts.clear();
        discounts.extend(ends.map(|(end, cut)| if end | cut == 0 { self.gamma } else { 0.0 }));
    }
}

#[cfg(test)]
mod tests {
    use impresario_common::space::Space;

    use super::*;
    use crate::testing;

    #[test]
    fn rewards_are_scaled_then_clipped_and_only_truncated_episodes_bootstrap() {
        let mut batch = testing::batch(&Space::Discrete { n: 2 }, 1);
        batch.rewards = (0..12).map(|i| i as f32 - 6.0).collect();
        let (mut rewards, mut discounts) = (vec![9.0; 99], vec![9.0; 99]);
        RewardRule { gamma: 0.5, scale: 0.5, clip: 2.0 }.apply(
            &batch,
            &[100.0, 200.0],
            &mut rewards,
            &mut discounts,
        );
        // Steps 4 and 11 were cut, 2 terminated, 6 both: that one does not bootstrap.
        assert_eq!(rewards, [-2.0, -2.0, -2.0, -1.5, 49.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 102.0]);
        assert_eq!(discounts, [0.5, 0.5, 0.0, 0.5, 0.0, 0.5, 0.0, 0.5, 0.5, 0.5, 0.5, 0.0]);

        RewardRule { gamma: 0.5, scale: 1.0, clip: 0.0 }.apply(
            &batch,
            &[0.0, 0.0],
            &mut rewards,
            &mut discounts,
        );
        assert_eq!(rewards, batch.rewards);
    }
}
