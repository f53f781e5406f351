//! Convolutions one after another: the network of Mnih et al. 2015 (`"nature"`,
//! <https://doi.org/10.1038/nature14236>), that of Young and Tian 2019 (`"minatar"`, <https://arxiv.org/abs/1903.03176>), and what
//! other sizes make of them.

use candle_core::Tensor;

use super::image::Image;
use super::packed::PackedTrunk;
use crate::kernels::{Activation, Geometry, ImageLayer, Pixels, image_features};
use crate::policy::error::PolicyError;
use crate::policy::layers::{Convolution, ConvolutionSpec};
use crate::policy::parameters::ParameterSpec;
use crate::policy::snapshot::Weights;

/// Sizes of one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerSize {
    /// Channels that it gives.
    pub channels: usize,
    /// Side of its square kernels in pixels.
    pub kernel: usize,
    /// Pixels from one window to the next.
    pub stride: usize,
}

impl LayerSize {
    /// The layers of Mnih et al. 2015.
    pub const NATURE: [Self; 3] = [Self::new(32, 8, 4), Self::new(64, 4, 2), Self::new(64, 3, 1)];
    /// The layer of Young and Tian 2019.
    pub const MINATAR: [Self; 1] = [Self::new(16, 3, 1)];

    const fn new(channels: usize, kernel: usize, stride: usize) -> Self {
        Self { channels, kernel, stride }
    }
}

/// Which layers there are.
#[derive(Debug, Clone, PartialEq)]
pub struct ConvolutionalSpec {
    layers: Vec<ConvolutionSpec>,
}

impl ConvolutionalSpec {
    /// Layers of `sizes` on `image`, with `activation` behind each, and normalised before it if asked for.
    ///
    /// # Errors
    /// If the image is smaller than a kernel.
    pub fn new(
        image: &Image,
        sizes: &[LayerSize],
        activation: Activation,
        layer_norm: bool,
    ) -> Result<Self, PolicyError> {
        let (mut size, mut channels) = (image.size(), image.channels);
        let mut layers = vec![];
        for (layer, of) in sizes.iter().enumerate() {
            let spec = ConvolutionSpec {
                size,
                channels,
                outputs: of.channels,
                kernel: of.kernel,
                geometry: Geometry { stride: [of.stride; 2], padding: [0; 2] },
                activation,
                layer_norm,
            };
            if size.iter().any(|side| *side < of.kernel) {
                return Err(PolicyError::Space(format!(
                    "images of {image}: at layer {layer} they are {} x {}, smaller than its kernels of {} x {}; set \
                     policy.encoder = \"minatar\", or smaller policy.kernels and policy.strides",
                    size[0], size[1], of.kernel, of.kernel
                )));
            }
            (size, channels) = (spec.output_size(), of.channels);
            layers.push(spec);
        }
        Ok(Self { layers })
    }

    /// Numbers that the last layer gives.
    pub fn outputs(&self) -> usize {
        self.layers.last().map_or(0, ConvolutionSpec::numbers)
    }

    /// Multiplications (with as many additions) that an observation costs.
    pub fn products(&self) -> u64 {
        self.layers.iter().map(ConvolutionSpec::products).sum()
    }

    /// Numbers that all layers give for an observation, which the gradient needs.
    pub fn activations(&self) -> usize {
        self.layers.iter().map(ConvolutionSpec::numbers).sum()
    }

    /// The parameters, called `<name>.convolution.<layer>`.
    pub fn parameters(&self, name: &str) -> Vec<ParameterSpec> {
        let layers = self.layers.iter().enumerate();
        layers.flat_map(|(layer, spec)| spec.parameters(&called(name, layer))).collect()
    }
}

fn called(name: &str, layer: usize) -> String {
    format!("{name}.convolution.{layer}")
}

/// The layers with their weights in place.
#[derive(Debug, Clone)]
pub struct Convolutional {
    layers: Vec<Convolution>,
    packed: PackedTrunk,
}

impl Convolutional {
    /// The layers over `weights`, sharing their storage.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(spec: &ConvolutionalSpec, name: &str, weights: &Weights) -> Result<Self, PolicyError> {
        let layers = spec.layers.iter().enumerate();
        let layers = layers.map(|(layer, spec)| Convolution::new(spec, &called(name, layer), weights));
        Ok(Self { layers: layers.collect::<Result<_, _>>()?, packed: PackedTrunk::default() })
    }

    /// The layers as those of one operation, unless they are normalised.
    fn as_layers(&self) -> Option<Vec<ImageLayer<'_>>> {
        self.layers.iter().map(Convolution::as_layer).collect()
    }

    /// Lays the weights out for the processor, for images of `pixels`; later changes of them go unnoticed.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn pack(&mut self, image: &Image, pixels: Pixels) -> Result<(), PolicyError> {
        self.packed = PackedTrunk::new(image, pixels, self.as_layers())?;
        Ok(())
    }

    /// `[N, H' W' O]` for images that lie as `pixels` says.
    ///
    /// # Errors
    /// If the images have another size.
    pub fn forward(&self, images: &Tensor, pixels: Pixels) -> Result<Tensor, PolicyError> {
        if let Some(packed) = self.packed.of(pixels) {
            return Ok(packed.apply(images)?);
        }
        if let Some(layers) = self.as_layers() {
            return Ok(image_features(images, pixels, &layers)?);
        }
        let mut x = images.clone();
        for (layer, convolution) in self.layers.iter().enumerate() {
            x = convolution.forward(&x, if layer == 0 { pixels } else { Pixels::Numbers })?;
        }
        Ok(x.flatten_from(1)?)
    }
}
