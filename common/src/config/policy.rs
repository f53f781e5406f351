//! The section `[policy]`: the network. Each field's comment is its reference documentation.

use serde::{Deserialize, Serialize};

/// The network: an encoder for the observation, then heads for policy and value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicySection {
    /// The encoder: `"mlp"`, fully connected layers alone; for images `"nature"` (Mnih et al. 2015), `"minatar"` (Young and
    /// Tian 2019) or `"residual"` (Espeholt et al. 2018), which costs more and may learn more. `"auto"`: `"nature"` for images of
    /// at least 36 x 36 pixels, `"minatar"` for smaller ones, `"mlp"` for anything else.
    pub encoder: EncoderKind,
    /// How the numbers of an image lie: `"channels_last"` `[H, W, C]`, `"channels_first"` `[C, H, W]`, or `"auto"`: first if
    /// the first of three dimensions is smaller than the last.
    pub image_layout: ImageLayout,
    /// Channels of each convolution of `"nature"` and `"minatar"`, or of each section of `"residual"`. `"auto"`: as their authors
    /// have it, `[32, 64, 64]`, `[16]` and `[16, 32, 32]`.
    pub channels: Sizes,
    /// Sides of the kernels of `"nature"` and `"minatar"` in pixels. `"auto"`: `[8, 4, 3]` and `[3]`.
    pub kernels: Sizes,
    /// Strides of the convolutions of `"nature"` and `"minatar"`. `"auto"`: `[4, 2, 1]` and `[1]`.
    pub strides: Sizes,
    /// Widths of the encoder's fully connected hidden layers. `"auto"`: `[64, 64]` for `"mlp"`, `[512]` for `"nature"`, `[128]`
    /// for `"minatar"`, `[256]` for `"residual"`.
    pub hidden: Sizes,
    /// Non-linearity after each hidden layer. `"auto"`: `"tanh"` for `"mlp"`, `"relu"` for the others.
    pub activation: Activation,
    /// Whether the sums of each hidden layer (of a convolution, the channels of each pixel) are normalised before the
    /// non-linearity. It costs little next to a layer and makes larger step sizes bearable.
    pub layer_norm: bool,
    /// Whether every real number of an observation is shifted and scaled by the running mean and deviation of all that
    /// were trained on, which the learner keeps. Of use where the numbers' units differ; bytes and choices are left alone.
    pub normalize_observations: bool,
    /// Whether value estimates are learned on one scale, whatever the rewards' (PopArt): the value targets are shifted and
    /// scaled by their running mean and deviation, which the learner keeps, and advantages are scaled alike.
    pub normalize_values: bool,
    /// PopArt: share by which mean and deviation of the value targets go towards those of each batch. Larger values follow
    /// returns that grow; smaller ones keep the scale steady, as the papers' 0.0003 does over millions of updates.
    pub value_statistics_step: f32,
    /// PopArt: least deviation that values are scaled by, in scaled rewards.
    pub min_value_deviation: f32,
    /// PopArt: largest deviation that values are scaled by, in scaled rewards.
    pub max_value_deviation: f32,
    /// Whether the value estimate shares the policy's hidden layers and core. Layers of its own cost time, and keep its
    /// errors from disturbing the policy; beside them it sees the core's output then, which it does not teach.
    pub shared_encoder: bool,
    /// Memory between the encoder and the heads. It costs time, and is of use where an observation does not tell all that
    /// matters of what came before.
    pub core: CoreKind,
    /// H: outputs of the core; it remembers as many numbers, an LSTM twice as many.
    pub core_size: usize,
    /// LSTM: initial bias of the forget gates. Larger values remember longer from the start: about `exp(bias)` steps.
    pub core_forget_bias: f32,
    /// Gain of the policy head's orthogonal initialisation; small values start near the uniform policy.
    pub policy_gain: f32,
    /// Gain of the value head's orthogonal initialisation.
    pub value_gain: f32,
    /// Whether continuous actions are squashed into the bounds of their space by a hyperbolic tangent, which needs
    /// finite bounds. Without it actions beyond the bounds are clipped by the environment, and probability
    /// piles up there unseen. Discrete actions have nothing to squash.
    pub squash: bool,
    /// Where the logarithm of the standard deviation of continuous actions comes from: `"free"` parameters, the same
    /// at every observation, or `"state"`, a head of the network. The latter can be bold here and careful there,
    /// and is easier to lose exploration with.
    pub log_std: LogStd,
    /// Initial logarithm of the standard deviation of continuous actions.
    pub initial_log_std: f32,
    /// Least logarithm of the standard deviation that a head of the network may give. Beyond this bound and the next
    /// the head's output is cut off and has no gradient.
    pub min_log_std: f32,
    /// Largest logarithm of the standard deviation that a head of the network may give.
    pub max_log_std: f32,
    /// How the noise of continuous actions comes about: `"independent"` in every step, or `"gsde"`, a random function of
    /// the last hidden layer that stays the same for a while. The latter moves smoothly, which real motors need and
    /// which explores further; it has deviations of its own in place of `log_std`.
    pub exploration: Exploration,
    /// With `"gsde"`: environment steps after which a copy draws a new function; 0 is one for each episode.
    pub gsde_resample_steps: u32,
}

impl Default for PolicySection {
    fn default() -> Self {
        Self {
            encoder: EncoderKind::Auto,
            image_layout: ImageLayout::Auto,
            channels: Sizes::Auto,
            kernels: Sizes::Auto,
            strides: Sizes::Auto,
            hidden: Sizes::Auto,
            activation: Activation::Auto,
            layer_norm: false,
            normalize_observations: false,
            normalize_values: false,
            value_statistics_step: 0.01,
            min_value_deviation: 1e-4,
            max_value_deviation: 1e6,
            shared_encoder: true,
            core: CoreKind::None,
            core_size: 64,
            core_forget_bias: 1.0,
            policy_gain: 0.01,
            value_gain: 1.0,
            squash: false,
            log_std: LogStd::Free,
            initial_log_std: 0.0,
            min_log_std: -20.0,
            max_log_std: 2.0,
            exploration: Exploration::Independent,
            gsde_resample_steps: 0,
        }
    }
}

/// Where the logarithms of the standard deviations of continuous actions come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogStd {
    /// Parameters of their own.
    Free,
    /// A head of the network.
    State,
}

/// What a policy remembers from step to step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CoreKind {
    /// Nothing: it sees the present observation only.
    None,
    /// The state of a long short-term memory (Hochreiter and Schmidhuber 1997).
    Lstm,
    /// The state of gated recurrent units (Cho et al. 2014).
    Gru,
}

/// How the noise of continuous actions comes about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Exploration {
    /// Drawn anew in every step.
    Independent,
    /// Generalised state-dependent exploration: a function of the state, drawn anew now and then.
    Gsde,
}

/// Non-linearity of a hidden layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// What the encoder's authors took.
    Auto,
    /// Hyperbolic tangent.
    Tanh,
    /// Rectified linear unit.
    Relu,
}

/// What looks at observations first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EncoderKind {
    /// What the observations' space suggests.
    Auto,
    /// Fully connected layers.
    Mlp,
    /// The convolutions of Mnih et al. 2015.
    Nature,
    /// The convolution of Young and Tian 2019.
    Minatar,
    /// The residual sections of Espeholt et al. 2018.
    Residual,
}

impl std::fmt::Display for EncoderKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Mlp => "mlp",
            Self::Nature => "nature",
            Self::Minatar => "minatar",
            Self::Residual => "residual",
        })
    }
}

/// How the numbers of an image lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageLayout {
    /// As its shape suggests.
    Auto,
    /// The channels of a pixel side by side: `[H, W, C]`.
    ChannelsLast,
    /// One plane a channel: `[C, H, W]`.
    ChannelsFirst,
}

/// A size for each of several layers, or what the encoder's authors took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sizes {
    /// What the encoder's authors took.
    Auto,
    /// These.
    These(Vec<usize>),
}

impl Sizes {
    /// These sizes, or `usual` ones where they are left open.
    pub fn or(&self, usual: &[usize]) -> Vec<usize> {
        match self {
            Self::Auto => usual.to_vec(),
            Self::These(sizes) => sizes.clone(),
        }
    }
}

impl From<Vec<usize>> for Sizes {
    fn from(sizes: Vec<usize>) -> Self {
        Self::These(sizes)
    }
}

impl std::fmt::Display for Sizes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => f.write_str("\"auto\""),
            Self::These(sizes) => write!(f, "{sizes:?}"),
        }
    }
}

impl Serialize for Sizes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::These(sizes) => sizes.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Sizes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a list of sizes such as [64, 64], or \"auto\"")]
        enum Form {
            Sizes(Vec<usize>),
            Word(Word),
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "lowercase")]
        enum Word {
            Auto,
        }
        Ok(match Form::deserialize(deserializer)? {
            Form::Sizes(sizes) => Self::These(sizes),
            Form::Word(Word::Auto) => Self::Auto,
        })
    }
}
