//! [`Unroll`]: a time-major block of experience, and its way to and from the wire.
//!
//! A rollout worker fills one, the uplink encodes it, the learner's service decodes and checks it
//! against the run's [`UnrollLayout`] before anything else sees it.

use bytes::Bytes;

#[cfg(target_endian = "big")]
compile_error!("arrays travel as the little-endian bytes that they are in memory");

use crate::config::RunConfig;
use crate::kernels::{all_below, all_finite, count_cut, elements};
use crate::policy::PolicySpec;
use crate::space::{ElementType, EnvironmentSpec, Space};
use crate::stacking::Frames;
use crate::wire::{WireError, v1};

/// A flat array of one of the element types that cross the wire, in C order.
#[derive(Debug, Clone, PartialEq)]
pub enum Array {
    /// 32-bit floats.
    F32(Vec<f32>),
    /// Bytes.
    U8(Vec<u8>),
    /// 32-bit integers.
    I32(Vec<i32>),
}

impl Array {
    /// `len` zeros.
    pub fn zeros(dtype: ElementType, len: usize) -> Self {
        match dtype {
            ElementType::F32 => Self::F32(vec![0.0; len]),
            ElementType::U8 => Self::U8(vec![0; len]),
            ElementType::I32 => Self::I32(vec![0; len]),
        }
    }

    /// Element type.
    pub fn dtype(&self) -> ElementType {
        match self {
            Self::F32(_) => ElementType::F32,
            Self::U8(_) => ElementType::U8,
            Self::I32(_) => ElementType::I32,
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(v) => v.len(),
            Self::U8(v) => v.len(),
            Self::I32(v) => v.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        self.len() * self.dtype().bytes()
    }

    /// No elements yet, and room for `capacity`.
    pub fn with_capacity(dtype: ElementType, capacity: usize) -> Self {
        match dtype {
            ElementType::F32 => Self::F32(Vec::with_capacity(capacity)),
            ElementType::U8 => Self::U8(Vec::with_capacity(capacity)),
            ElementType::I32 => Self::I32(Vec::with_capacity(capacity)),
        }
    }

    /// Removes all elements and keeps their room.
    pub fn clear(&mut self) {
        self.resize(0);
    }

    /// Makes it `len` elements long, filling with zeros.
    pub fn resize(&mut self, len: usize) {
        match self {
            Self::F32(v) => v.resize(len, 0.0),
            Self::U8(v) => v.resize(len, 0),
            Self::I32(v) => v.resize(len, 0),
        }
    }

    /// Appends `source[range]`.
    ///
    /// # Panics
    /// If element types differ or the range lies outside `source`.
    pub fn extend_from(&mut self, source: &Self, range: std::ops::Range<usize>) {
        match (self, source) {
            (Self::F32(to), Self::F32(from)) => to.extend_from_slice(&from[range]),
            (Self::U8(to), Self::U8(from)) => to.extend_from_slice(&from[range]),
            (Self::I32(to), Self::I32(from)) => to.extend_from_slice(&from[range]),
            (to, from) => panic!("cannot append {} to {}", from.dtype(), to.dtype()),
        }
    }

    /// Copies `source[from..from + len]` to `self[to..to + len]`.
    ///
    /// # Panics
    /// If element types differ or a range lies outside its array.
    pub fn copy_from(&mut self, to: usize, source: &Self, from: usize, len: usize) {
        match (self, source) {
            (Self::F32(t), Self::F32(f)) => t[to..to + len].copy_from_slice(&f[from..from + len]),
            (Self::U8(t), Self::U8(f)) => t[to..to + len].copy_from_slice(&f[from..from + len]),
            (Self::I32(t), Self::I32(f)) => t[to..to + len].copy_from_slice(&f[from..from + len]),
            (t, f) => panic!("cannot copy {} to {}", f.dtype(), t.dtype()),
        }
    }
}

/// T steps of E environment copies, acted with one version of the policy.
#[derive(Debug, Clone, PartialEq)]
pub struct Unroll {
    /// Index of the grant that permitted it.
    pub grant: u64,
    /// The policy version that acted.
    pub policy_version: u64,
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
        v1::Unroll {
            sequence: 0,
            grant: self.grant,
            policy_version: self.policy_version,
            observations: Some(encode(&self.observations, per_step(&layout.observation, t + 1))),
            actions: Some(encode(&self.actions, per_step(&layout.action, t))),
            rewards: Some(encode_f32(&self.rewards, vec![t, e])),
            terminated: Some(encode_u8(&self.terminated, vec![t, e])),
            truncated: Some(encode_u8(&self.truncated, vec![t, e])),
            behaviour_log_probs: Some(encode_f32(&self.behaviour_log_probs, vec![t, e])),
            final_observations: Some(encode(&self.final_observations, final_shape)),
            action_masks: (layout.mask_len > 0)
                .then(|| encode_u8(&self.action_masks, vec![t, e, layout.mask_len as u32])),
            core_states: (layout.core_state_len > 0)
                .then(|| encode_f32(&self.core_states, vec![e, layout.core_state_len as u32])),
            history: (layout.frame_stack > 1)
                .then(|| encode(&self.history, per_step(&layout.observation, layout.frame_stack as u32 - 1))),
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
        let observations =
            decode("observations", message.observations, observation.dtype(), &per_step(observation, t + 1))?;
        let history = match layout.frame_stack {
            1 => Array::zeros(observation.dtype(), 0),
            frames => {
                decode("history", message.history, observation.dtype(), &per_step(observation, frames - 1))?
            }
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
        let final_observations =
            decode("final_observations", message.final_observations, observation.dtype(), &final_shape)?;
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
        Self { length, observation, frame_stack: 1, action, mask_len: 0, core_state_len: 0 }
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

fn encode(array: &Array, shape: Vec<u32>) -> v1::Tensor {
    match array {
        Array::F32(values) => encode_f32(values, shape),
        Array::U8(values) => encode_u8(values, shape),
        Array::I32(values) => v1::Tensor {
            dtype: v1::ElementType::I32.into(),
            shape,
            data: Bytes::copy_from_slice(bytemuck::cast_slice(values)),
        },
    }
}

fn encode_f32(values: &[f32], shape: Vec<u32>) -> v1::Tensor {
    let data = Bytes::copy_from_slice(bytemuck::cast_slice(values));
    v1::Tensor { dtype: v1::ElementType::F32.into(), shape, data }
}

fn encode_u8(values: &[u8], shape: Vec<u32>) -> v1::Tensor {
    v1::Tensor { dtype: v1::ElementType::U8.into(), shape, data: Bytes::copy_from_slice(values) }
}

fn decode(
    field: &str,
    tensor: Option<v1::Tensor>,
    dtype: ElementType,
    shape: &[usize],
) -> Result<Array, WireError> {
    let tensor = tensor.ok_or_else(|| WireError::field(field, "missing"))?;
    if v1::ElementType::try_from(tensor.dtype) != Ok(dtype.into()) {
        let found = v1::ElementType::try_from(tensor.dtype).map_or("unknown", |d| d.as_str_name());
        return Err(WireError::field(field, format!("element type is {found}, expected {dtype}")));
    }
    if tensor.shape.len() != shape.len() || tensor.shape.iter().zip(shape).any(|(&a, &b)| a as usize != b) {
        return Err(WireError::field(field, format!("shape is {:?}, expected {shape:?}", tensor.shape)));
    }
    let expected = shape.iter().product::<usize>() * dtype.bytes();
    if tensor.data.len() != expected {
        return Err(WireError::field(field, format!("{} bytes, expected {expected}", tensor.data.len())));
    }
    Ok(match dtype {
        ElementType::U8 => Array::U8(owned(tensor.data)),
        ElementType::I32 => Array::I32(elements(&tensor.data)),
        ElementType::F32 => {
            let values: Vec<f32> = elements(&tensor.data);
            finite(field, &values)?;
            Array::F32(values)
        }
    })
}

/// Bytes taken over where nobody shares their memory, and copied where somebody does.
fn owned(data: Bytes) -> Vec<u8> {
    let owned = Vec::from(data);
    // The last to go of a frame that held much else must not keep all of it.
    if owned.capacity() / 2 > owned.len() { owned.as_slice().to_vec() } else { owned }
}

fn decode_f32(field: &str, tensor: Option<v1::Tensor>, shape: &[usize]) -> Result<Vec<f32>, WireError> {
    match decode(field, tensor, ElementType::F32, shape)? {
        Array::F32(values) => Ok(values),
        other => Err(WireError::field(field, format!("element type is {}", other.dtype()))),
    }
}

fn decode_flags(field: &str, tensor: Option<v1::Tensor>, shape: &[usize]) -> Result<Vec<u8>, WireError> {
    match decode(field, tensor, ElementType::U8, shape)? {
        // Without an early exit the pass vectorises.
        Array::U8(values) if values.iter().fold(0, |all, &v| all | v) <= 1 => Ok(values),
        _ => Err(WireError::field(field, "a flag is neither 0 nor 1")),
    }
}

fn finite(field: &str, values: &[f32]) -> Result<(), WireError> {
    if all_finite(values) {
        return Ok(());
    }
    let index = values.iter().position(|v| !v.is_finite()).unwrap_or(0);
    Err(WireError::field(field, format!("element {index} is {}, not a finite number", values[index])))
}

fn check_choices(field: &str, choices: &Array, space: &Space) -> Result<(), WireError> {
    let out_of_range = |index: usize, choice: i32, n: u32| {
        Err(WireError::field(field, format!("element {index} is {choice}, out of range 0..{n}")))
    };
    match (choices, space) {
        (Array::I32(values), Space::Discrete { n }) => {
            if all_below(values, *n) {
                return Ok(());
            }
            match values.iter().position(|&a| a as u32 >= *n) {
                Some(index) => out_of_range(index, values[index], *n),
                None => Ok(()),
            }
        }
        (Array::I32(values), Space::MultiDiscrete { nvec }) => {
            match values.iter().zip(nvec.iter().cycle()).position(|(&a, &n)| a as u32 >= n) {
                Some(index) => out_of_range(index, values[index], nvec[index % nvec.len()]),
                None => Ok(()),
            }
        }
        // A Gaussian policy acts beyond the box, and the environment clips: any finite number is in range.
        _ => Ok(()),
    }
}

/// Refuses masks that leave a choice no legal alternative, and actions that their own masks call illegal.
fn check_masks(masks: &[u8], actions: &Array, space: &Space) -> Result<(), WireError> {
    let Array::I32(actions) = actions else { return Ok(()) };
    let mut rest = masks;
    // Without masks there is nothing to look at; with them, there are as many as actions.
    for (at, (&action, &alternatives)) in actions.iter().zip(space.choices().iter().cycle()).enumerate() {
        if rest.is_empty() {
            break;
        }
        let (flags, after) = rest.split_at(alternatives as usize);
        if flags[action as usize] == 0 {
            let problem = match flags.contains(&1) {
                true => format!("action {action}, element {at} of the actions, is illegal by its own mask"),
                false => format!("no alternative is legal for element {at} of the actions"),
            };
            return Err(WireError::field("action_masks", problem));
        }
        rest = after;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

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
