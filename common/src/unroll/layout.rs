//! [`UnrollLayout`]: what every unroll of a run looks like.

use crate::config::{Compression, RunConfig};
use crate::policy::PolicySpec;
use crate::space::{EnvironmentSpec, Space};

/// What every unroll of a run looks like, whatever its number of columns.
#[derive(Debug, Clone, PartialEq)]
pub struct UnrollLayout {
    /// T: environment steps of each copy.
    pub length: usize,
    /// Space of the observations, one at a time.
    pub observation: Space,
    /// K: observations that the policy sees at once.
    pub frame_stack: usize,
    /// Space of the actions.
    pub action: Space,
    /// M: flags of a step that say which alternatives are legal; 0 where the environment masks none.
    pub mask_len: usize,
    /// S: numbers that the policy's core remembers of a copy; 0 for a policy without memory.
    pub core_state_len: usize,
    /// How observations travel.
    pub compression: Compression,
}

impl UnrollLayout {
    /// The layout for unrolls of `length` steps in a run with the given configuration, in the environment described, for
    /// the run's policy.
    pub fn of_run(
        config: &RunConfig,
        length: usize,
        environment: &EnvironmentSpec,
        policy: &PolicySpec,
    ) -> Self {
        Self {
            frame_stack: config.environment.frame_stack,
            compression: config.rollout.compression,
            core_state_len: policy.core_state_len(),
            ..Self::new(length, environment)
        }
    }

    /// The layout for unrolls of `length` steps in the environment described, seen one frame at a time by a policy
    /// without memory.
    pub fn new(length: usize, spec: &EnvironmentSpec) -> Self {
        let mask_len = if spec.masks_actions { spec.action.alternatives() } else { 0 };
        Self { mask_len, ..Self::of_spaces(length, spec.observation.clone(), spec.action.clone()) }
    }

    /// The layout for unrolls of `length` steps between these spaces, without masks or memory.
    pub fn of_spaces(length: usize, observation: Space, action: Space) -> Self {
        Self {
            length,
            observation,
            frame_stack: 1,
            action,
            mask_len: 0,
            core_state_len: 0,
            compression: Compression::None,
        }
    }

    /// Shape of what the policy sees at once: `[K, ...]` where it sees several frames.
    pub fn seen_shape(&self) -> Vec<usize> {
        let stack = (self.frame_stack > 1).then_some(self.frame_stack);
        stack.into_iter().chain(self.observation.shape()).collect()
    }

    /// Bytes of experience of one column, final observations aside.
    pub fn column_bytes(&self) -> usize {
        let observation = self.observation.len() * self.observation.dtype().bytes();
        let action = self.action.len() * self.action.dtype().bytes();
        (self.length + self.frame_stack) * observation
            + self.length * (action + 4 + 1 + 1 + 4 + self.mask_len)
            + self.core_state_len * 4
    }
}
