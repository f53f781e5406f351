//! Observation and action spaces: what an environment shows and what it accepts.
//!
//! An environment declares them ([`EnvironmentSpec`]), an actor announces them when it joins, the
//! learner checks them against the run's, and the policy derives its input and output sizes from them.

use serde::{Deserialize, Serialize};

/// Element type of an array that crosses the wire or enters a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ElementType {
    /// 32-bit IEEE float.
    F32,
    /// Unsigned byte (pixels, flags).
    U8,
    /// 32-bit signed integer (discrete actions).
    I32,
}

impl ElementType {
    /// Size of one element in bytes.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F32 | Self::I32 => 4,
            Self::U8 => 1,
        }
    }
}

impl std::fmt::Display for ElementType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::U8 => "u8",
            Self::I32 => "i32",
        })
    }
}

/// The set an observation or an action comes from (Gymnasium's fundamental spaces).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Space {
    /// One of `n` alternatives, numbered from 0.
    Discrete {
        /// How many alternatives there are.
        n: u32,
    },
    /// Several independent choices; choice `i` is one of `nvec[i]` alternatives.
    MultiDiscrete {
        /// Alternatives of each choice.
        nvec: Vec<u32>,
    },
    /// A bounded (possibly infinitely) array of real numbers or bytes.
    Box {
        /// Smallest value of each element, in C order; `-inf` where unbounded.
        low: Vec<f32>,
        /// Largest value of each element, in C order; `inf` where unbounded.
        high: Vec<f32>,
        /// Shape of the array; a scalar has an empty shape.
        shape: Vec<usize>,
        /// Element type of the array.
        dtype: ElementType,
    },
}

impl Space {
    /// A one-dimensional `f32` box with the given bounds.
    ///
    /// # Panics
    /// If the bounds differ in length.
    pub fn boxed(low: &[f32], high: &[f32]) -> Self {
        assert_eq!(low.len(), high.len(), "bounds of a box have one length");
        Self::Box { low: low.to_vec(), high: high.to_vec(), shape: vec![low.len()], dtype: ElementType::F32 }
    }

    /// Shape of one element of the space as it is stored: `[]` for `Discrete`, `[k]` for
    /// `MultiDiscrete`, the box's own shape otherwise.
    pub fn shape(&self) -> Vec<usize> {
        match self {
            Self::Discrete { .. } => vec![],
            Self::MultiDiscrete { nvec } => vec![nvec.len()],
            Self::Box { shape, .. } => shape.clone(),
        }
    }

    /// Numbers needed to store one element of the space.
    pub fn len(&self) -> usize {
        match self {
            Self::Discrete { .. } => 1,
            Self::MultiDiscrete { nvec } => nvec.len(),
            Self::Box { shape, .. } => shape.iter().product(),
        }
    }

    /// Whether an element of the space holds no number at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Alternatives of each choice: `[n]` of `Discrete`, `nvec` of `MultiDiscrete`, none of a box.
    pub fn choices(&self) -> &[u32] {
        match self {
            Self::Discrete { n } => std::slice::from_ref(n),
            Self::MultiDiscrete { nvec } => nvec,
            Self::Box { .. } => &[],
        }
    }

    /// Alternatives of all choices together: the length of a one-hot code of an element, and of a mask of legal
    /// actions. 0 for boxes, whose elements are no choices.
    pub fn alternatives(&self) -> usize {
        self.choices().iter().map(|&n| n as usize).sum()
    }

    /// Element type an element of the space is stored with.
    pub fn dtype(&self) -> ElementType {
        match self {
            Self::Discrete { .. } | Self::MultiDiscrete { .. } => ElementType::I32,
            Self::Box { dtype, .. } => *dtype,
        }
    }
}

impl std::fmt::Display for Space {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Discrete { n } => write!(f, "Discrete({n})"),
            Self::MultiDiscrete { nvec } => write!(f, "MultiDiscrete({nvec:?})"),
            Self::Box { low, high, shape, dtype } => {
                let min = low.iter().copied().fold(f32::INFINITY, f32::min);
                let max = high.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                write!(f, "Box({min}..{max}, {shape:?}, {dtype})")
            }
        }
    }
}

/// What an environment is, apart from its state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EnvironmentSpec {
    /// Name it is registered under, with its version: `CartPole-v1`.
    pub id: String,
    /// What it shows.
    pub observation: Space,
    /// What it accepts.
    pub action: Space,
    /// Steps after which an episode is truncated; `None` if it may go on for ever.
    pub max_episode_steps: Option<u32>,
    /// Mean return over 100 episodes from which on the task counts as solved; `None` if undefined.
    pub solved_return: Option<f64>,
    /// Whether some actions are illegal at some observations, so that a mask of the legal ones goes with each.
    #[serde(default)]
    pub masks_actions: bool,
}
