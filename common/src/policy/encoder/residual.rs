//! The residual network of Espeholt et al. 2018 (IMPALA, <https://arxiv.org/abs/1802.01561>, figure 3, right).
//!
//! Each section is a convolution 3 x 3, max pooling 3 x 3 with stride 2, and two blocks `x + conv(f(conv(f(x))))` of
//! convolutions 3 x 3; `f` is the activation, and is applied once more behind the last section. With layer normalisation `f`
//! normalises the channels of each pixel first.

use candle_core::Tensor;

use super::image::Image;
use super::packed::PackedTrunk;
use crate::kernels::{self, Activation, Geometry, ImageLayer, Pixels};
use crate::policy::error::PolicyError;
use crate::policy::layers::{Convolution, ConvolutionSpec, Finish, FinishSpec};
use crate::policy::parameters::ParameterSpec;
use crate::policy::snapshot::Weights;

/// Channels of the sections of Espeholt et al. 2018.
pub const CHANNELS: [usize; 3] = [16, 32, 32];

/// Blocks of a section.
const BLOCKS: usize = 2;

/// Side of a convolution's kernels and of the pooling's windows in pixels.
const KERNEL: usize = 3;

/// Windows at every pixel, the image's edge included.
const EVERYWHERE: Geometry = Geometry { stride: [1; 2], padding: [1; 2] };

/// Windows of the pooling.
const POOLING: Geometry = Geometry { stride: [2; 2], padding: [1; 2] };

/// Which sections there are.
#[derive(Debug, Clone, PartialEq)]
pub struct ResidualSpec {
    sections: Vec<SectionSpec>,
    last: FinishSpec,
}

#[derive(Debug, Clone, PartialEq)]
struct SectionSpec {
    convolution: ConvolutionSpec,
    /// `[H', W']` behind the pooling.
    size: [usize; 2],
    /// A block's first convolution, with what its sums go through; the second gives them as they are.
    first: ConvolutionSpec,
    second: ConvolutionSpec,
    before: FinishSpec,
}

impl ResidualSpec {
    /// Sections of as many `channels` on `image`.
    pub fn new(image: &Image, channels: &[usize], activation: Activation, layer_norm: bool) -> Self {
        let (mut size, mut inputs) = (image.size(), image.channels);
        let mut sections = vec![];
        for &outputs in channels {
            let plain = |size, channels| ConvolutionSpec {
                size,
                channels,
                outputs,
                kernel: KERNEL,
                geometry: EVERYWHERE,
                activation: Activation::Identity,
                layer_norm: false,
            };
            let convolution = plain(size, inputs);
            size = size.map(|side| (side - 1) / 2 + 1);
            sections.push(SectionSpec {
                convolution,
                size,
                first: ConvolutionSpec { activation, layer_norm, ..plain(size, outputs) },
                second: plain(size, outputs),
                before: FinishSpec { features: outputs, activation, layer_norm },
            });
            inputs = outputs;
        }
        Self { sections, last: FinishSpec { features: inputs, activation, layer_norm } }
    }

    /// Numbers that the last section gives.
    pub fn outputs(&self) -> usize {
        self.sections.last().map_or(0, |section| section.second.numbers())
    }

    /// Multiplications (with as many additions) that an observation costs.
    pub fn products(&self) -> u64 {
        let section = |s: &SectionSpec| {
            s.convolution.products() + BLOCKS as u64 * (s.first.products() + s.second.products())
        };
        self.sections.iter().map(section).sum()
    }

    /// Numbers that all layers give for an observation, which the gradient needs: those behind each pooling and each
    /// convolution of a block.
    pub fn activations(&self) -> usize {
        let section =
            |s: &SectionSpec| s.second.numbers() + BLOCKS * (s.first.numbers() + s.second.numbers());
        self.sections.iter().map(section).sum()
    }

    /// The parameters, called `<name>.section.<section>` and `<name>.norm`.
    pub fn parameters(&self, name: &str) -> Vec<ParameterSpec> {
        let mut parameters = vec![];
        for (at, section) in self.sections.iter().enumerate() {
            let name = section_name(name, at);
            parameters.extend(section.convolution.parameters(&format!("{name}.convolution")));
            for block in 0..BLOCKS {
                let name = block_name(&name, block);
                parameters.extend(section.before.parameters(&name));
                parameters.extend(section.first.parameters(&format!("{name}.0")));
                parameters.extend(section.second.parameters(&format!("{name}.1")));
            }
        }
        parameters.extend(self.last.parameters(name));
        parameters
    }
}

fn section_name(encoder: &str, section: usize) -> String {
    format!("{encoder}.section.{section}")
}

fn block_name(section: &str, block: usize) -> String {
    format!("{section}.block.{block}")
}

/// The sections with their weights in place.
#[derive(Debug, Clone)]
pub struct Residual {
    sections: Vec<Section>,
    last: Finish,
    packed: PackedTrunk,
}

#[derive(Debug, Clone)]
struct Section {
    convolution: Convolution,
    blocks: Vec<Block>,
}

#[derive(Debug, Clone)]
struct Block {
    before: Finish,
    first: Convolution,
    second: Convolution,
}

impl Residual {
    /// The sections over `weights`, sharing their storage.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(spec: &ResidualSpec, name: &str, weights: &Weights) -> Result<Self, PolicyError> {
        let section = |(at, spec): (usize, &SectionSpec)| {
            let name = section_name(name, at);
            let block = |block| {
                let name = block_name(&name, block);
                Ok(Block {
                    before: Finish::new(&spec.before, &name, weights)?,
                    first: Convolution::new(&spec.first, &format!("{name}.0"), weights)?,
                    second: Convolution::new(&spec.second, &format!("{name}.1"), weights)?,
                })
            };
            Ok(Section {
                convolution: Convolution::new(&spec.convolution, &format!("{name}.convolution"), weights)?,
                blocks: (0..BLOCKS).map(block).collect::<Result<_, PolicyError>>()?,
            })
        };
        Ok(Self {
            sections: spec.sections.iter().enumerate().map(section).collect::<Result<_, PolicyError>>()?,
            last: Finish::new(&spec.last, name, weights)?,
            packed: PackedTrunk::default(),
        })
    }

    /// The sections as layers of one operation, if they are those of Espeholt et al. 2018.
    fn as_layers(&self) -> Option<Vec<ImageLayer<'_>>> {
        if self.last.normalizes() || self.last.activation() != Activation::Relu {
            return None;
        }
        let mut layers = vec![];
        for section in &self.sections {
            layers.push(section.convolution.as_layer()?);
            layers.push(ImageLayer::MaxPool { size: [KERNEL; 2], geometry: POOLING });
            layers.extend(section.blocks.iter().map(|block| ImageLayer::Residual {
                first: block.first.parameters(),
                second: block.second.parameters(),
            }));
        }
        layers.push(ImageLayer::Rectify);
        Some(layers)
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
            return Ok(kernels::image_features(images, pixels, &layers)?);
        }
        let mut x = images.clone();
        for (at, section) in self.sections.iter().enumerate() {
            x = section.convolution.forward(&x, if at == 0 { pixels } else { Pixels::Numbers })?;
            x = kernels::max_pool(&x, [KERNEL; 2], POOLING)?;
            for block in &section.blocks {
                let inner = block.first.forward(&block.before.apply(&x)?, Pixels::Numbers)?;
                x = (x + block.second.forward(&inner, Pixels::Numbers)?)?;
            }
        }
        Ok(self.last.apply(&x)?.flatten_from(1)?)
    }
}
