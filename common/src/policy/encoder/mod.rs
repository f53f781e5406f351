//! Encoders: from what the first layer sees of an observation to the numbers that core and heads see.
//!
//! An encoder is a *trunk*, which looks at images, and fully connected hidden layers behind it; numbers that are no image
//! go to the hidden layers at once. The configuration chooses it, or the observation's space does.
//!
//! # Layout
//!
//! * [`image`]: which observations are images. * [`choice`]: which encoder observations get.
//! * [`mlp`]: fully connected layers. * [`convolutional`], [`residual`]: the trunks; `packed`: those of actors.

pub mod choice;
pub mod convolutional;
pub mod image;
pub mod mlp;
mod packed;
pub mod residual;

use candle_core::{DType, Tensor};

use super::error::PolicyError;
use super::parameters::ParameterSpec;
use super::snapshot::Weights;
use crate::config::EncoderKind;
use crate::kernels::Pixels;
use convolutional::{Convolutional, ConvolutionalSpec};
pub use image::Image;
pub use mlp::{Mlp, MlpSpec};
use residual::{Residual, ResidualSpec};

/// What looks at an observation first.
#[derive(Debug, Clone, PartialEq)]
pub enum TrunkSpec {
    /// Nothing: so many numbers go to the hidden layers as they are.
    None(usize),
    /// Convolutions one after another.
    Convolutional(ConvolutionalSpec, Picture),
    /// Residual sections.
    Residual(ResidualSpec, Picture),
}

/// The image that a trunk looks at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Picture {
    /// Its sizes.
    pub image: Image,
    /// What a byte counts for each unit.
    pub byte_scale: f32,
}

impl Picture {
    /// What its bytes are.
    fn pixels(&self) -> Pixels {
        Pixels::Bytes { order: self.image.order, scale: self.byte_scale }
    }
}

impl TrunkSpec {
    /// The image it looks at.
    pub fn image(&self) -> Option<&Image> {
        match self {
            Self::None(_) => None,
            Self::Convolutional(_, picture) | Self::Residual(_, picture) => Some(&picture.image),
        }
    }

    /// Numbers that it gives for an observation.
    pub fn outputs(&self) -> usize {
        match self {
            Self::None(numbers) => *numbers,
            Self::Convolutional(spec, _) => spec.outputs(),
            Self::Residual(spec, _) => spec.outputs(),
        }
    }

    /// Multiplications (with as many additions) that an observation costs.
    pub fn products(&self) -> u64 {
        match self {
            Self::None(_) => 0,
            Self::Convolutional(spec, _) => spec.products(),
            Self::Residual(spec, _) => spec.products(),
        }
    }

    /// The parameters of the trunk of the encoder called `name`.
    pub fn parameters(&self, name: &str) -> Vec<ParameterSpec> {
        match self {
            Self::None(_) => vec![],
            Self::Convolutional(spec, _) => spec.parameters(name),
            Self::Residual(spec, _) => spec.parameters(name),
        }
    }
}

/// A trunk with its weights in place.
#[derive(Debug, Clone)]
pub enum Trunk {
    /// Nothing.
    None,
    /// Convolutions one after another.
    Convolutional(Convolutional, Picture),
    /// Residual sections.
    Residual(Residual, Picture),
}

impl Trunk {
    /// That of the encoder called `name` over `weights`, sharing their storage.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(spec: &TrunkSpec, name: &str, weights: &Weights) -> Result<Self, PolicyError> {
        Ok(match spec {
            TrunkSpec::None(_) => Self::None,
            TrunkSpec::Convolutional(spec, picture) => {
                Self::Convolutional(Convolutional::new(spec, name, weights)?, *picture)
            }
            TrunkSpec::Residual(spec, picture) => {
                Self::Residual(Residual::new(spec, name, weights)?, *picture)
            }
        })
    }

    /// Lays the weights out for the processor, for observations of bytes; later changes of them go unnoticed.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn pack(&mut self) -> Result<(), PolicyError> {
        match self {
            Self::None => Ok(()),
            Self::Convolutional(trunk, picture) => trunk.pack(&picture.image, picture.pixels()),
            Self::Residual(trunk, picture) => trunk.pack(&picture.image, picture.pixels()),
        }
    }

    /// `[N, F]` for what the first layer sees of N observations.
    ///
    /// # Errors
    /// If it has another shape.
    pub fn forward(&self, input: &Tensor) -> Result<Tensor, PolicyError> {
        let pixels = |picture: &Picture| match input.dtype() {
            DType::U8 => picture.pixels(),
            _ => Pixels::Numbers,
        };
        Ok(match self {
            Self::None => input.clone(),
            Self::Convolutional(trunk, picture) => trunk.forward(input, pixels(picture))?,
            Self::Residual(trunk, picture) => trunk.forward(input, pixels(picture))?,
        })
    }
}

/// A trunk and the hidden layers behind it.
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderSpec {
    /// What it is, never [`EncoderKind::Auto`].
    pub kind: EncoderKind,
    /// What looks at observations first.
    pub trunk: TrunkSpec,
    /// The fully connected layers.
    pub hidden: MlpSpec,
}

impl EncoderSpec {
    /// Numbers that it gives for an observation.
    pub fn outputs(&self) -> usize {
        self.hidden.outputs()
    }

    /// Multiplications (with as many additions) that an observation costs.
    pub fn products(&self) -> u64 {
        self.trunk.products() + self.hidden.products()
    }

    /// Numbers that all its layers give for an observation, which the gradient needs.
    pub fn activations(&self) -> usize {
        let trunk = match &self.trunk {
            TrunkSpec::None(numbers) => *numbers,
            TrunkSpec::Convolutional(spec, _) => spec.activations(),
            TrunkSpec::Residual(spec, _) => spec.activations(),
        };
        trunk + self.hidden.widths.iter().sum::<usize>()
    }

    /// The parameters of the encoder called `name`.
    pub fn parameters(&self, name: &str) -> Vec<ParameterSpec> {
        let mut parameters = self.trunk.parameters(name);
        parameters.extend(self.hidden.parameters(name));
        parameters
    }
}

impl std::fmt::Display for EncoderSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.trunk.image() {
            Some(image) => write!(f, "{} on {image}", self.kind)?,
            None => write!(f, "{} on {} numbers", self.kind, self.trunk.outputs())?,
        }
        write!(f, ", hidden layers {:?}, {} products", self.hidden.widths, self.products())
    }
}

/// An encoder with its weights in place.
#[derive(Debug, Clone)]
pub struct Encoder {
    trunk: Trunk,
    hidden: Mlp,
}

impl Encoder {
    /// The encoder called `name` over `weights`, sharing their storage.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(spec: &EncoderSpec, name: &str, weights: &Weights) -> Result<Self, PolicyError> {
        Ok(Self {
            trunk: Trunk::new(&spec.trunk, name, weights)?,
            hidden: Mlp::new(&spec.hidden, name, weights)?,
        })
    }

    /// Lays the weights out for the processor; later changes of them go unnoticed.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn pack(&mut self) -> Result<(), PolicyError> {
        self.trunk.pack()?;
        self.hidden.pack()
    }

    /// `[N, O]` for what the first layer sees of N observations.
    ///
    /// # Errors
    /// If it has another shape.
    pub fn forward(&self, input: &Tensor) -> Result<Tensor, PolicyError> {
        self.hidden.forward(&self.trunk.forward(input)?)
    }
}
