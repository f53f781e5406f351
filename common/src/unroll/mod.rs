//! [`Unroll`]: a time-major block of experience, and its way to and from the wire.
//!
//! A rollout worker fills one, the uplink encodes it, the learner's service decodes and checks it
//! against the run's [`UnrollLayout`] before anything else sees it.
//!
//! # Layout
//!
//! - `array`: numbers of an element type that is known at run time; `layout`: what a run's unrolls look like;
//! - `transit`: arrays between memory and wire, compressed or not, and their checks;
//! - here: the unroll.

mod array;
mod layout;
mod transit;

use crate::kernels::count_cut;
use crate::space::Space;
use crate::stacking::Frames;
use crate::wire::{WireError, v1};
use transit::{
    check_choices, check_masks, decode, decode_compressed, decode_f32, decode_flags, encode,
    encode_compressed, encode_f32, encode_u8, finite,
};

pub use array::Array;
pub use layout::UnrollLayout;

/// T steps of E environment copies, acted with one version of the policy.
#[derive(Debug, Clone, PartialEq)]
pub struct Unroll {
    /// Index of the grant that permitted it.
    pub grant: u64,
    /// The policy version that acted.
    pub policy_version: u64,
    /// The life of the run that made that version.
    pub life: u64,
    /// T: environment steps of each copy.
    pub length: usize,
    /// E: environment copies, hence columns.
    pub copies: usize,
    /// `[T + 1, E, ...]`: what the environments showed; the last row is what the policy would see next.
    pub observations: Array,
    /// `[K - 1, E, ...]`: what the policy saw of earlier frames with the first row, oldest first, where it sees K at once;
    /// otherwise empty.
    pub history: Array,
    /// `[T, E]` for a discrete action space, `[T, E, n]` otherwise; before a squashed policy squashes them.
    pub actions: Array,
    /// `[T, E]`: as the environment gave them.
    pub rewards: Vec<f32>,
    /// `[T, E]`, 0 or 1.
    pub terminated: Vec<u8>,
    /// `[T, E]`, 0 or 1.
    pub truncated: Vec<u8>,
    /// `[T, E]`: log-probability of the action under the policy that acted.
    pub behaviour_log_probs: Vec<f32>,
    /// `[F, ...]`: last observations of the F episodes that were truncated and did not terminate, in the
    /// time-major order of the steps that ended them.
    pub final_observations: Array,
    /// `[T, E, M]`, 0 or 1: which alternatives were legal, M being the alternatives of all choices together;
    /// empty where the environment masks none.
    pub action_masks: Vec<u8>,
    /// `[E, S]`: what the policy's core remembered before the first step; empty for a policy without memory.
    pub core_states: Vec<f32>,
    /// Undiscounted returns of the episodes that ended inside.
    pub episode_returns: Vec<f32>,
    /// Their lengths in environment steps.
    pub episode_lengths: Vec<u32>,
}

impl Unroll {
    /// An unroll of zeros for `copies` copies, to be filled.
    pub fn zeros(layout: &UnrollLayout, copies: usize) -> Self {
        let steps = layout.length * copies;
        Self {
            grant: 0,
            policy_version: 0,
            life: 0,
            length: layout.length,
            copies,
            observations: Array::zeros(
                layout.observation.dtype(),
                (layout.length + 1) * copies * layout.observation.len(),
            ),
            history: Array::zeros(
                layout.observation.dtype(),
                (layout.frame_stack - 1) * copies * layout.observation.len(),
            ),
            actions: Array::zeros(layout.action.dtype(), steps * layout.action.len()),
            rewards: vec![0.0; steps],
            terminated: vec![0; steps],
            truncated: vec![0; steps],
            behaviour_log_probs: vec![0.0; steps],
            final_observations: Array::zeros(layout.observation.dtype(), 0),
            action_masks: vec![1; steps * layout.mask_len],
            core_states: vec![0.0; copies * layout.core_state_len],
            episode_returns: vec![],
            episode_lengths: vec![],
        }
    }

    /// Environment steps inside.
    pub fn steps(&self) -> usize {
        self.length * self.copies
    }

    /// Bytes of experience held, bookkeeping aside.
    pub fn bytes(&self) -> usize {
        self.observations.bytes()
            + self.history.bytes()
            + self.actions.bytes()
            + self.final_observations.bytes()
            + self.steps() * (4 + 1 + 1 + 4)
            + self.action_masks.len()
            + self.core_states.len() * 4
            + self.episode_returns.len() * 8
    }

    /// Its observations, to be seen in stacks as `layout` says.
    pub fn frames(&self, layout: &UnrollLayout) -> Frames<'_> {
        Frames {
            stack: layout.frame_stack,
            columns: self.copies,
            frame_len: layout.observation.len(),
            history: &self.history,
            observations: &self.observations,
            terminated: &self.terminated,
            truncated: &self.truncated,
        }
    }

    /// Whether a message holds arrays that are to be decompressed, which takes a while.
    pub fn is_compressed(message: &v1::Unroll) -> bool {
        let arrays = [&message.observations, &message.history, &message.final_observations];
        arrays.into_iter().flatten().any(|tensor| tensor.compression != v1::Compression::Unspecified as i32)
    }

    /// The message for the wire, to be completed by the uplink with `sequence` and `progress`.
    pub fn to_wire(&self, layout: &UnrollLayout) -> v1::Unroll {
        let (t, e) = (self.length as u32, self.copies as u32);
        let per_step = |inner: &Space, rows: u32| {
            let mut shape = vec![rows, e];
            shape.extend(inner.shape().iter().map(|&d| d as u32));
            shape
        };
        let observation = layout.observation.len().max(1);
        let mut final_shape = vec![(self.final_observations.len() / observation) as u32];
        final_shape.extend(layout.observation.shape().iter().map(|&d| d as u32));
        let observed = |array, shape| encode_compressed(array, shape, layout.compression);
        v1::Unroll {
            sequence: 0,
            grant: self.grant,
            policy_version: self.policy_version,
            life: self.life,
            observations: Some(observed(&self.observations, per_step(&layout.observation, t + 1))),
            actions: Some(encode(&self.actions, per_step(&layout.action, t))),
            rewards: Some(encode_f32(&self.rewards, vec![t, e])),
            terminated: Some(encode_u8(&self.terminated, vec![t, e])),
            truncated: Some(encode_u8(&self.truncated, vec![t, e])),
            behaviour_log_probs: Some(encode_f32(&self.behaviour_log_probs, vec![t, e])),
            final_observations: Some(observed(&self.final_observations, final_shape)),
            action_masks: (layout.mask_len > 0)
                .then(|| encode_u8(&self.action_masks, vec![t, e, layout.mask_len as u32])),
            core_states: (layout.core_state_len > 0)
                .then(|| encode_f32(&self.core_states, vec![e, layout.core_state_len as u32])),
            history: (layout.frame_stack > 1).then(|| {
                observed(&self.history, per_step(&layout.observation, layout.frame_stack as u32 - 1))
            }),
            episode_returns: self.episode_returns.clone(),
            episode_lengths: self.episode_lengths.clone(),
            progress: None,
        }
    }

    /// Decodes and checks a message against what the run expects of `copies` columns.
    ///
    /// # Errors
    /// If an array is missing or has another shape or element type, if a number is not finite, an action is
    /// out of range or illegal by its own mask, a mask leaves no alternative, a flag is neither 0 nor 1, or the count
    /// of final observations is off.
    pub fn from_wire(message: v1::Unroll, layout: &UnrollLayout, copies: usize) -> Result<Self, WireError> {
        let (t, e) = (layout.length, copies);
        let per_step = |inner: &Space, rows: usize| {
            let mut shape = vec![rows, e];
            shape.extend(inner.shape());
            shape
        };
        let observation = &layout.observation;
        let observed = |field, tensor, shape: &[usize]| {
            decode_compressed(field, tensor, observation.dtype(), shape, layout.compression)
        };
        let observations = observed("observations", message.observations, &per_step(observation, t + 1))?;
        let history = match layout.frame_stack {
            1 => Array::zeros(observation.dtype(), 0),
            frames => observed("history", message.history, &per_step(observation, frames - 1))?,
        };
        let actions =
            decode("actions", message.actions, layout.action.dtype(), &per_step(&layout.action, t))?;
        check_choices("actions", &actions, &layout.action)?;
        check_choices("observations", &observations, observation)?;
        let rewards = decode_f32("rewards", message.rewards, &[t, e])?;
        let behaviour_log_probs = decode_f32("behaviour_log_probs", message.behaviour_log_probs, &[t, e])?;
        let terminated = decode_flags("terminated", message.terminated, &[t, e])?;
        let truncated = decode_flags("truncated", message.truncated, &[t, e])?;
        let cut = count_cut(&terminated, &truncated);
        let mut final_shape = vec![cut];
        final_shape.extend(observation.shape());
        let final_observations = observed("final_observations", message.final_observations, &final_shape)?;
        check_choices("final_observations", &final_observations, observation)?;
        let action_masks = match layout.mask_len {
            0 => vec![],
            len => decode_flags("action_masks", message.action_masks, &[t, e, len])?,
        };
        check_masks(&action_masks, &actions, &layout.action)?;
        let core_states = match layout.core_state_len {
            0 => vec![],
            len => decode_f32("core_states", message.core_states, &[e, len])?,
        };
        if message.episode_returns.len() != message.episode_lengths.len() {
            return Err(WireError::field(
                "episode_returns",
                format!(
                    "{} returns for {} lengths",
                    message.episode_returns.len(),
                    message.episode_lengths.len()
                ),
            ));
        }
        let ends = cut + terminated.iter().map(|&end| usize::from(end)).sum::<usize>();
        if message.episode_returns.len() > ends {
            let problem = format!("{} episodes, but {ends} ended", message.episode_returns.len());
            return Err(WireError::field("episode_returns", problem));
        }
        finite("episode_returns", &message.episode_returns)?;
        Ok(Self {
            grant: message.grant,
            policy_version: message.policy_version,
            life: message.life,
            length: t,
            copies: e,
            observations,
            history,
            actions,
            rewards,
            terminated,
            truncated,
            behaviour_log_probs,
            final_observations,
            action_masks,
            core_states,
            episode_returns: message.episode_returns,
            episode_lengths: message.episode_lengths,
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::transit::owned;
    use super::*;
    use crate::config::Compression;
    use crate::space::ElementType;

    fn layout() -> UnrollLayout {
        let action = Space::Discrete { n: 2 };
        let layout = UnrollLayout::of_spaces(3, Space::boxed(&[-1.0; 2], &[1.0; 2]), action);
        UnrollLayout { mask_len: 2, core_state_len: 3, frame_stack: 3, ..layout }
    }

    fn sample() -> Unroll {
        let mut unroll = Unroll::zeros(&layout(), 2);
        unroll.grant = 7;
        unroll.policy_version = 41;
        unroll.observations = Array::F32((0..16).map(|i| i as f32 / 16.0).collect());
        unroll.history = Array::F32((0..8).map(|i| i as f32).collect());
        unroll.actions = Array::I32(vec![0, 1, 1, 0, 1, 1]);
        unroll.rewards = vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        unroll.terminated[1] = 1;
        unroll.truncated[1] = 1;
        unroll.truncated[4] = 1;
        unroll.behaviour_log_probs = vec![-0.5; 6];
        unroll.final_observations = Array::F32(vec![0.25, -0.25]);
        unroll.action_masks = vec![1, 1, 0, 1, 0, 1, 1, 1, 1, 1, 0, 1];
        unroll.core_states = vec![0.5, -1.0, 2.0, 0.25, 1.0, -0.5];
        unroll.episode_returns = vec![3.0, 9.0];
        unroll.episode_lengths = vec![2, 4];
        unroll
    }

    #[test]
    fn an_unroll_survives_the_wire() {
        let message = sample().to_wire(&layout());
        assert_eq!(Unroll::from_wire(message, &layout(), 2).unwrap(), sample());
    }

    #[test]
    fn each_breach_of_the_contract_is_named() {
        let refused = |change: &dyn Fn(&mut v1::Unroll), expected: &str| {
            let mut message = sample().to_wire(&layout());
            change(&mut message);
            let error = Unroll::from_wire(message, &layout(), 2).unwrap_err().to_string();
            assert!(error.contains(expected), "{error:?} does not say {expected:?}");
        };
        refused(&|m| m.rewards = None, "rewards: missing");
        refused(&|m| m.rewards.as_mut().unwrap().dtype = 2, "rewards: element type is ELEMENT_TYPE_U8");
        refused(&|m| m.actions.as_mut().unwrap().shape[0] = 4, "actions: shape is [4, 2], expected [3, 2]");
        refused(&|m| m.rewards.as_mut().unwrap().data.truncate(20), "rewards: 20 bytes, expected 24");
        refused(
            &|m| {
                let mut data = m.rewards.as_ref().unwrap().data.to_vec();
                data[8..12].copy_from_slice(&f32::NAN.to_le_bytes());
                m.rewards.as_mut().unwrap().data = data.into();
            },
            "rewards: element 2 is NaN",
        );
        refused(
            &|m| {
                let mut data = m.actions.as_ref().unwrap().data.to_vec();
                data[0..4].copy_from_slice(&(-1i32).to_le_bytes());
                m.actions.as_mut().unwrap().data = data.into();
            },
            "actions: element 0 is -1, out of range 0..2",
        );
        refused(
            &|m| m.truncated.as_mut().unwrap().data = Bytes::from_static(&[0, 0, 0, 0, 0, 2]),
            "truncated: a flag",
        );
        refused(
            &|m| m.truncated.as_mut().unwrap().data = Bytes::from_static(&[0; 6]),
            "final_observations: shape",
        );
        refused(&|m| m.core_states = None, "core_states: missing");
        refused(&|m| m.history = None, "history: missing");
        refused(
            &|m| m.history.as_mut().unwrap().shape[0] = 3,
            "history: shape is [3, 2, 2], expected [2, 2, 2]",
        );
        let masks = |m: &mut v1::Unroll, flags: &'static [u8]| {
            m.action_masks.as_mut().unwrap().data = Bytes::from_static(flags);
        };
        refused(
            &|m| masks(m, &[1, 1, 0, 1, 0, 1, 1, 1, 1, 1, 1, 0]),
            "action_masks: action 1, element 5 of the actions, is illegal by its own mask",
        );
        refused(
            &|m| masks(m, &[1, 1, 0, 0, 0, 1, 1, 1, 1, 1, 0, 1]),
            "action_masks: no alternative is legal for element 1 of the actions",
        );
        refused(
            &|m| m.action_masks.as_mut().unwrap().shape[2] = 1,
            "action_masks: shape is [3, 2, 1], expected [3, 2, 2]",
        );
        refused(&|m| m.episode_lengths.clear(), "2 returns for 0 lengths");
        let episodes = |m: &mut v1::Unroll| {
            m.episode_returns = vec![0.0; 1000];
            m.episode_lengths = vec![1; 1000];
        };
        refused(&episodes, "1000 episodes, but 2 ended");
    }

    /// Pictures in stacks, with a final observation, sent in the given way.
    fn pictures(compression: Compression) -> (UnrollLayout, Unroll) {
        let picture = Space::Box {
            low: vec![0.0; 64],
            high: vec![255.0; 64],
            shape: vec![8, 8],
            dtype: ElementType::U8,
        };
        let layout = UnrollLayout {
            frame_stack: 4,
            compression,
            ..UnrollLayout::of_spaces(3, picture, Space::Discrete { n: 2 })
        };
        let mut unroll = Unroll::zeros(&layout, 2);
        unroll.truncated[3] = 1;
        unroll.observations = Array::U8((0..8 * 64).map(|i| (i / 100) as u8).collect());
        unroll.history = Array::U8((0..6 * 64).map(|i| (i / 64) as u8).collect());
        unroll.final_observations = Array::U8(vec![9; 64]);
        (layout, unroll)
    }

    #[test]
    fn compressed_observations_survive_the_wire_and_take_less_of_it() {
        let size = |message: &v1::Unroll| prost::Message::encoded_len(message);
        let (plain, unroll) = pictures(Compression::None);
        let plain = unroll.to_wire(&plain);
        assert!(!Unroll::is_compressed(&plain));
        for compression in [Compression::Lz4, Compression::Zstd] {
            let (layout, unroll) = pictures(compression);
            let message = unroll.to_wire(&layout);
            assert!(Unroll::is_compressed(&message));
            assert!(size(&message) + 600 < size(&plain), "{} and {}", size(&message), size(&plain));
            assert_eq!(Unroll::from_wire(message, &layout, 2).unwrap(), unroll);
            // Nobody must compress.
            assert_eq!(Unroll::from_wire(plain.clone(), &layout, 2).unwrap(), unroll);
        }
    }

    #[test]
    fn compression_that_the_run_does_not_use_or_of_another_size_is_refused() {
        let refused = |layout: &UnrollLayout, message: v1::Unroll, expected: &str| {
            let error = Unroll::from_wire(message, layout, 2).unwrap_err().to_string();
            assert!(error.contains(expected), "{error:?} does not say {expected:?}");
        };
        let ((lz4, unroll), (none, _)) = (pictures(Compression::Lz4), pictures(Compression::None));
        let (zstd, _) = pictures(Compression::Zstd);
        let message = unroll.to_wire(&lz4);
        refused(&none, message.clone(), "observations: compressed as COMPRESSION_LZ4, expected none");
        refused(&zstd, message.clone(), "observations: compressed as COMPRESSION_LZ4, expected zstd");
        let mut unknown = message.clone();
        unknown.observations.as_mut().unwrap().compression = 17;
        refused(&lz4, unknown, "observations: compressed as in an unknown way");
        for (layout, compression) in [(&lz4, Compression::Lz4), (&zstd, Compression::Zstd)] {
            let mut bomb = unroll.to_wire(layout);
            let tensor = bomb.history.as_mut().unwrap();
            tensor.compression = v1::Compression::from(compression).into();
            tensor.data = compression.compress(&vec![0; 1 << 20]).unwrap().into();
            refused(layout, bomb, "history: ");
        }
        let mut rewards = unroll.to_wire(&lz4);
        rewards.rewards.as_mut().unwrap().compression = v1::Compression::Lz4.into();
        refused(&lz4, rewards, "rewards: compressed as COMPRESSION_LZ4, expected none");
    }

    #[test]
    fn observations_that_are_no_alternatives_of_their_space_are_refused() {
        let layout = UnrollLayout { observation: Space::Discrete { n: 3 }, frame_stack: 1, ..layout() };
        let mut unroll = Unroll::zeros(&layout, 2);
        unroll.observations = Array::I32(vec![2; 8]);
        Unroll::from_wire(unroll.to_wire(&layout), &layout, 2).unwrap();
        unroll.observations = Array::I32(vec![2, 2, 2, 3, 2, 2, 2, 2]);
        let error = Unroll::from_wire(unroll.to_wire(&layout), &layout, 2).unwrap_err().to_string();
        assert!(error.contains("observations: element 3 is 3, out of range 0..3"), "{error}");
    }

    #[test]
    fn bytes_are_taken_over_whole_and_copied_out_of_a_larger_frame() {
        let whole = vec![7; 1 << 20];
        let at = whole.as_ptr();
        let taken = owned(whole.into());
        assert_eq!((taken.as_ptr(), taken.len()), (at, 1 << 20));
        let mut frame = Bytes::from(vec![7; 1 << 20]);
        let flags = frame.split_off((1 << 20) - 640);
        drop(frame);
        let flags = owned(flags);
        assert!(flags == [7; 640] && flags.capacity() < 2000, "{} bytes kept for 640", flags.capacity());
    }

    #[test]
    fn layout_predicts_the_bytes_of_a_column() {
        let unroll = Unroll::zeros(&layout(), 2);
        assert_eq!(unroll.bytes(), 2 * layout().column_bytes());
    }
}
