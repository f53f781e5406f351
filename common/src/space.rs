//! Observation and action spaces: what an environment shows and what it accepts.
//!
//! An environment declares them ([`EnvironmentSpec`]), an actor announces them when it joins, the
//! learner checks them against the run's, and the policy derives its input and output sizes from them.

use serde::{Deserialize, Serialize};

use crate::composite::{Composite, Field, Layout};

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

    /// What stands for 1 where the policy sees numbers of the space: the largest byte of a box of bytes, so that pixels and flags lie
    /// between 0 and 1, and 1 for all others.
    pub fn unit(&self) -> f32 {
        match self {
            Self::Box { high, dtype: ElementType::U8, .. } => {
                let largest = high.iter().copied().fold(0.0, f32::max).min(255.0);
                if largest > 0.0 { largest } else { 1.0 }
            }
            _ => 1.0,
        }
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

    /// Numbers that say an element of the space to a network: those of a box, the one-hot codes of choices.
    pub fn flat_len(&self) -> usize {
        match self {
            Self::Box { .. } => self.len(),
            choices => choices.alternatives(),
        }
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
    /// What it shows. Observations of several parts are a flat box, which [`layout`](Self::layout) explains.
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
    /// Where each part of an observation lies; `None` if observations have no parts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layout: Option<Layout>,
}

impl EnvironmentSpec {
    /// An environment without a time limit, a return that solves it, or illegal actions.
    ///
    /// A composite `observation` is [flattened](Composite::flatten), and its layout kept.
    pub fn new(id: impl Into<String>, observation: impl Into<Composite>, action: Space) -> Self {
        let (observation, layout) = match observation.into() {
            Composite::Leaf(space) => (space, None),
            parts => {
                let (flat, layout) = parts.flatten();
                (flat, Some(layout))
            }
        };
        Self {
            id: id.into(),
            observation,
            action,
            max_episode_steps: None,
            solved_return: None,
            masks_actions: false,
            layout,
        }
    }

    /// The same, with episodes truncated after so many steps.
    pub fn with_max_episode_steps(self, steps: u32) -> Self {
        Self { max_episode_steps: Some(steps), ..self }
    }

    /// The same, solved by this mean return over 100 episodes.
    pub fn with_solved_return(self, solved: f64) -> Self {
        Self { solved_return: Some(solved), ..self }
    }

    /// The same, with a mask of the legal actions for each observation.
    pub fn with_masked_actions(self) -> Self {
        Self { masks_actions: true, ..self }
    }

    /// How policies for `self`, `here`, and for `other`, `there`, would differ in what they see or do, in words; `None` if
    /// one policy serves both. Names and limits may differ.
    pub fn mismatch(&self, here: &str, other: &Self, there: &str) -> Option<String> {
        let id = &self.id;
        if (&self.observation, &self.action) != (&other.observation, &other.action) {
            return Some(format!(
                "{id} has observations {} and actions {} {here}, but {} and {} {there}",
                self.observation, self.action, other.observation, other.action
            ));
        }
        if self.masks_actions != other.masks_actions {
            let masks = |spec: &Self| if spec.masks_actions { "masks" } else { "does not mask" };
            return Some(format!(
                "{id} {} illegal actions {here}, but {} them {there}",
                masks(self),
                masks(other)
            ));
        }
        if self.layout == other.layout {
            return None;
        }
        let fields = |spec: &Self| spec.layout.as_ref().map_or(vec![], |layout| layout.fields().to_vec());
        let (ours, theirs) = (fields(self), fields(other));
        let number = (0..).find(|&i| ours.get(i) != theirs.get(i)).unwrap_or(0);
        let part = |fields: &[Field]| match fields.get(number) {
            Some(field) => format!("{:?}, {}", field.path, field.space),
            None if fields.is_empty() => "of observations without parts".into(),
            None => "missing".into(),
        };
        Some(format!(
            "the observations of {id} have other parts: part {number} is {} {here}, but {} {there}",
            part(&ours),
            part(&theirs)
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arm(first: &str, second: &str) -> EnvironmentSpec {
        let observation = Composite::dict([
            (first, Space::boxed(&[-1.0; 2], &[1.0; 2]).into()),
            (second, Space::boxed(&[-1.0], &[1.0]).into()),
        ]);
        EnvironmentSpec::new("Arm-v0", observation, Space::Discrete { n: 2 })
    }

    #[test]
    fn observations_of_several_parts_are_flat_and_keep_their_layout() {
        let spec = arm("joints", "speed");
        assert_eq!(spec.observation, Space::boxed(&[-1.0; 3], &[1.0; 3]));
        let layout = spec.layout.unwrap();
        let parts: Vec<_> = layout.fields().iter().map(|f| (f.path.as_str(), f.range())).collect();
        assert_eq!(parts, [("joints", 0..2), ("speed", 2..3)]);
        let plain = EnvironmentSpec::new("Plain-v0", Space::Discrete { n: 4 }, Space::Discrete { n: 2 });
        assert_eq!((plain.observation, plain.layout), (Space::Discrete { n: 4 }, None));
    }

    #[test]
    fn specifications_with_and_without_parts_survive_toml() {
        let with = arm("joints", "speed").with_max_episode_steps(9).with_solved_return(0.5);
        let unbounded = Space::boxed(&[f32::NEG_INFINITY], &[f32::INFINITY]);
        let without = EnvironmentSpec::new("Plain-v0", unbounded, Space::Discrete { n: 2 });
        for spec in [with, without] {
            let text = toml::to_string(&spec).unwrap();
            assert_eq!(toml::from_str::<EnvironmentSpec>(&text).unwrap(), spec, "{text}");
            assert_eq!(text.contains("layout"), spec.layout.is_some());
        }
    }

    #[test]
    fn parts_that_change_their_names_or_sizes_are_a_mismatch_though_the_flat_box_is_the_same() {
        let spec = arm("joints", "speed");
        assert_eq!(spec.mismatch("here", &spec.clone().with_max_episode_steps(3), "there"), None);
        let said = |other: &EnvironmentSpec| spec.mismatch("here", other, "there").unwrap();
        assert!(said(&arm("joints", "velocity")).contains("part 1 is \"speed\""));
        let swapped = said(&arm("speed", "joints"));
        assert!(swapped.contains("part 0 is \"joints\", Box(-1..1, [2], f32) here"), "{swapped}");
        assert!(swapped.contains("but \"joints\", Box(-1..1, [1], f32) there"), "{swapped}");
        let flat = EnvironmentSpec::new("Arm-v0", spec.observation.clone(), spec.action.clone());
        assert!(said(&flat).contains("but of observations without parts there"), "{}", said(&flat));
    }
}
