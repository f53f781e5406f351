//! The layers that networks are made of: which parameters they have, and what they do over them.

use std::sync::Arc;

use candle_core::Tensor;

use super::error::PolicyError;
use super::parameters::{HIDDEN_GAIN, ParameterSpec};
use super::snapshot::Weights;
use crate::kernels::{self, Activation, Geometry, ImageLayer, PackedLinear, Pixels, with_slice};

/// What a hidden layer's sums go through.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FinishSpec {
    /// F: numbers of a row, or channels of a pixel.
    pub features: usize,
    /// What comes last.
    pub activation: Activation,
    /// Whether the features are normalised before it, and then scaled and moved by numbers that are learned.
    pub layer_norm: bool,
}

impl FinishSpec {
    /// `<layer>.norm.weight` and `<layer>.norm.bias`, `[F]` each, which start as 1 and 0; none without normalisation.
    pub fn parameters(&self, layer: &str) -> Vec<ParameterSpec> {
        let start = [("weight", 1.0), ("bias", 0.0)];
        let parameters = start.map(|(name, value)| {
            ParameterSpec::constant(format!("{layer}.norm.{name}"), vec![self.features], value)
        });
        if self.layer_norm { parameters.into() } else { vec![] }
    }
}

/// What a hidden layer's sums go through, with its weights in place.
#[derive(Debug, Clone)]
pub struct Finish {
    activation: Activation,
    /// Gain and bias of the normalised features.
    norm: Option<(Tensor, Tensor)>,
}

impl Finish {
    /// That of the layer called `layer` of `weights`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(spec: &FinishSpec, layer: &str, weights: &Weights) -> Result<Self, PolicyError> {
        let get = |name: &str| weights.get(&format!("{layer}.norm.{name}"), &[spec.features]);
        let norm = if spec.layer_norm { Some((get("weight")?, get("bias")?)) } else { None };
        Ok(Self { activation: spec.activation, norm })
    }

    /// Whether it normalises the features.
    pub fn normalizes(&self) -> bool {
        self.norm.is_some()
    }

    /// What comes last.
    pub fn activation(&self) -> Activation {
        self.activation
    }

    /// What a layer's own operation may apply to its sums.
    fn at_once(&self) -> Activation {
        if self.norm.is_some() { Activation::Identity } else { self.activation }
    }

    /// What is left to be applied, `[..., F]`.
    fn afterwards(&self, sums: Tensor) -> Result<Tensor, PolicyError> {
        if self.norm.is_some() { self.apply(&sums) } else { Ok(sums) }
    }

    /// All of it, `[..., F]`.
    ///
    /// # Errors
    /// If `sums` have another number of features.
    pub fn apply(&self, sums: &Tensor) -> Result<Tensor, PolicyError> {
        Ok(match &self.norm {
            Some((gain, bias)) => kernels::layer_norm(sums, gain, bias, self.activation)?,
            None => kernels::activate(sums, self.activation)?,
        })
    }
}

/// A fully connected layer.
#[derive(Debug, Clone)]
pub struct Linear {
    /// `[outputs, inputs]`.
    weight: Tensor,
    /// `[outputs]`.
    bias: Tensor,
    finish: Finish,
    /// Both laid out for the processor, if they do not change any more.
    packed: Option<Arc<PackedLinear>>,
}

impl Linear {
    /// The layer called `name` of `weights`, sharing their storage, that gives its sums as they are.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(weights: &Weights, name: &str, inputs: usize, outputs: usize) -> Result<Self, PolicyError> {
        let plain = FinishSpec { features: outputs, activation: Activation::Identity, layer_norm: false };
        Self::hidden(weights, name, inputs, &plain)
    }

    /// The same for a hidden layer of `finish.features` outputs.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn hidden(
        weights: &Weights,
        name: &str,
        inputs: usize,
        finish: &FinishSpec,
    ) -> Result<Self, PolicyError> {
        let outputs = finish.features;
        Ok(Self {
            weight: weights.get(&format!("{name}.weight"), &[outputs, inputs])?,
            bias: weights.get(&format!("{name}.bias"), &[outputs])?,
            finish: Finish::new(finish, name, weights)?,
            packed: None,
        })
    }

    /// Lays the weights out for the processor; later changes of them go unnoticed.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn pack(&mut self) -> Result<(), PolicyError> {
        let packed = with_slice(&self.weight, |weight| {
            with_slice(&self.bias, |bias| PackedLinear::new(weight, bias, self.finish.at_once()))
        })??;
        self.packed = Some(Arc::new(packed));
        Ok(())
    }

    /// `[N, outputs]` for `[N, inputs]`.
    ///
    /// # Errors
    /// If `x` has another width.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, PolicyError> {
        if let Some(packed) = &self.packed {
            return self.finish.afterwards(packed.forward(x)?);
        }
        self.finish.afterwards(kernels::linear(x, &self.weight, &self.bias, self.finish.at_once())?)
    }
}

/// Sizes of a convolution with square kernels.
#[derive(Debug, Clone, PartialEq)]
pub struct ConvolutionSpec {
    /// `[H, W]` of its images.
    pub size: [usize; 2],
    /// C: their channels.
    pub channels: usize,
    /// O: channels that it gives.
    pub outputs: usize,
    /// Side of the kernels in pixels.
    pub kernel: usize,
    /// Stride and padding.
    pub geometry: Geometry,
    /// What comes last.
    pub activation: Activation,
    /// Whether the channels of each pixel are normalised before it.
    pub layer_norm: bool,
}

impl ConvolutionSpec {
    /// `[H', W']` of what it gives; the kernels must fit the padded images.
    pub fn output_size(&self) -> [usize; 2] {
        let Geometry { stride, padding } = self.geometry;
        [0, 1].map(|axis| (self.size[axis] + 2 * padding[axis] - self.kernel) / stride[axis] + 1)
    }

    /// Numbers that it gives for an image.
    pub fn numbers(&self) -> usize {
        self.output_size().iter().product::<usize>() * self.outputs
    }

    /// Multiplications (with as many additions) that an image costs.
    pub fn products(&self) -> u64 {
        (self.numbers() * self.kernel * self.kernel * self.channels) as u64
    }

    fn finish(&self) -> FinishSpec {
        let Self { outputs, activation, layer_norm, .. } = *self;
        FinishSpec { features: outputs, activation, layer_norm }
    }

    fn shape(&self) -> Vec<usize> {
        vec![self.outputs, self.kernel, self.kernel, self.channels]
    }

    /// `<name>.weight` `[O, K, K, C]`, `<name>.bias` `[O]`, and those of its normalisation.
    pub fn parameters(&self, name: &str) -> Vec<ParameterSpec> {
        let mut parameters: Vec<_> = ParameterSpec::layer(name, self.shape(), HIDDEN_GAIN, 0.0).into();
        parameters.extend(self.finish().parameters(name));
        parameters
    }
}

/// A convolution with its weights in place.
#[derive(Debug, Clone)]
pub struct Convolution {
    /// `[O, K, K, C]`.
    weight: Tensor,
    /// `[O]`.
    bias: Tensor,
    geometry: Geometry,
    finish: Finish,
}

impl Convolution {
    /// The layer called `name` of `weights`, sharing their storage.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(spec: &ConvolutionSpec, name: &str, weights: &Weights) -> Result<Self, PolicyError> {
        Ok(Self {
            weight: weights.get(&format!("{name}.weight"), &spec.shape())?,
            bias: weights.get(&format!("{name}.bias"), &[spec.outputs])?,
            geometry: spec.geometry,
            finish: Finish::new(&spec.finish(), name, weights)?,
        })
    }

    /// `[N, H', W', O]` for images that lie as `pixels` says.
    ///
    /// # Errors
    /// If the images have another size.
    pub fn forward(&self, images: &Tensor, pixels: Pixels) -> Result<Tensor, PolicyError> {
        let (weight, bias, geometry, activation) =
            (&self.weight, &self.bias, self.geometry, self.finish.at_once());
        let layer = ImageLayer::Convolution { weight, bias, geometry, activation };
        let sums = kernels::image_layers(images, pixels, &[layer])?;
        self.finish.afterwards(sums)
    }

    /// Weight and bias.
    pub fn parameters(&self) -> [&Tensor; 2] {
        [&self.weight, &self.bias]
    }

    /// All of it as a layer of an operation of several, unless it is normalised.
    pub fn as_layer(&self) -> Option<ImageLayer<'_>> {
        let Self { weight, bias, geometry, finish } = self;
        let layer =
            ImageLayer::Convolution { weight, bias, geometry: *geometry, activation: finish.activation };
        (!finish.normalizes()).then_some(layer)
    }
}
