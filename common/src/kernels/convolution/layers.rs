//! Layers over images: what they are made of, and which shapes they have.

use candle_core::{DType, Result, Tensor};

use super::chain::Chain;
use super::geometry::{Geometry, Windows};
use super::images::Form;
use super::{PixelOrder, composed};
use crate::kernels::{Activation, is_fused};

/// What the numbers of images are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pixels {
    /// `f32`, `[N, H, W, C]`.
    Numbers,
    /// Bytes in this order, each of which counts as `byte * scale`.
    Bytes {
        /// Which way they lie.
        order: PixelOrder,
        /// What a byte counts for each unit.
        scale: f32,
    },
}

impl Pixels {
    pub(super) fn form(self) -> Form {
        match self {
            Self::Numbers => Form::Floats,
            Self::Bytes { order: PixelOrder::Interleaved, .. } => Form::Prepared,
            Self::Bytes { order: PixelOrder::Planar, .. } => Form::Planes,
        }
    }

    /// `[N, H, W, C]` of the images in `tensor`.
    ///
    /// # Errors
    /// If it has another element type or number of dimensions.
    pub(super) fn sizes(self, tensor: &Tensor) -> Result<[usize; 4]> {
        let dtype = if self == Self::Numbers { DType::F32 } else { DType::U8 };
        if tensor.dtype() != dtype {
            candle_core::bail!("the images must be {}, not {}", dtype.as_str(), tensor.dtype().as_str());
        }
        let &[n, a, b, c] = tensor.dims() else {
            candle_core::bail!("expected images of four dimensions, got {:?}", tensor.dims())
        };
        Ok(match self {
            Self::Bytes { order: PixelOrder::Planar, .. } => [n, b, c, a],
            _ => [n, a, b, c],
        })
    }
}

/// A layer of [`image_layers`].
#[derive(Debug, Clone, Copy)]
pub enum ImageLayer<'a> {
    /// A convolution: see [`convolution`](super::convolution).
    Convolution {
        /// `[O, KH, KW, C]`.
        weight: &'a Tensor,
        /// `[O]`.
        bias: &'a Tensor,
        /// Its windows.
        geometry: Geometry,
        /// What its sums go through.
        activation: Activation,
    },
    /// Max pooling: see [`max_pool`](super::max_pool).
    MaxPool {
        /// Height and width of a window.
        size: [usize; 2],
        /// Its windows.
        geometry: Geometry,
    },
    /// A residual block: see [`residual_block`](super::residual_block).
    Residual {
        /// Weight and bias of the first convolution.
        first: [&'a Tensor; 2],
        /// Those of the second.
        second: [&'a Tensor; 2],
    },
    /// `max(x, 0)`.
    Rectify,
}

impl<'a> ImageLayer<'a> {
    /// Its weights and biases.
    pub(super) fn parameters(self) -> Vec<&'a Tensor> {
        match self {
            Self::Convolution { weight, bias, .. } => vec![weight, bias],
            Self::Residual { first, second } => [first, second].concat(),
            Self::MaxPool { .. } | Self::Rectify => vec![],
        }
    }

    /// The same of candle's own operations.
    fn composed(self, images: &Tensor) -> Result<Tensor> {
        match self {
            Self::Convolution { weight, bias, geometry, activation } => {
                composed::convolution(images, weight, bias, geometry, activation)
            }
            Self::MaxPool { size, geometry } => {
                let (_, height, width, _) = images.dims4()?;
                composed::max_pool(images, &Windows::new([height, width], size, geometry)?)
            }
            Self::Residual { first, second } => {
                let convolution = |x: &Tensor, [weight, bias]: [&Tensor; 2]| {
                    let geometry = Geometry::square(1, weight.dim(1)? / 2);
                    composed::convolution(&x.relu()?, weight, bias, geometry, Activation::Identity)
                };
                images + convolution(&convolution(images, first)?, second)?
            }
            Self::Rectify => images.relu(),
        }
    }
}

/// Applies `layers` one after another to images that lie as `pixels` says: `[N, H' W' O]`, the numbers of each image as they lie.
///
/// On the CPU it is one operation in the graph: images go through all layers a few at a time, so that what is between layers stays
/// in the caches; what the gradient needs of it lies in memory that is used again. The gradient leaves out images
/// that no variable feeds. Elsewhere it is made of candle's own operations.
///
/// # Errors
/// If an element type is not what it should be, a shape does not fit, or the tensors are on different devices.
pub fn image_features(images: &Tensor, pixels: Pixels, layers: &[ImageLayer<'_>]) -> Result<Tensor> {
    let [_, sizes @ ..] = pixels.sizes(images)?;
    let chain = Chain::new(pixels, sizes, layers)?;
    if !is_fused(images.device()) {
        let mut images = match pixels {
            Pixels::Numbers => images.clone(),
            Pixels::Bytes { order, scale } => composed::widened(images, order, scale)?,
        };
        for layer in layers {
            images = layer.composed(&images)?;
        }
        return images.flatten_from(1);
    }
    chain.apply(images, layers)
}

/// [`image_features`] as images again: `[N, H', W', O]`.
///
/// # Errors
/// As there.
pub fn image_layers(images: &Tensor, pixels: Pixels, layers: &[ImageLayer<'_>]) -> Result<Tensor> {
    let [count, sizes @ ..] = pixels.sizes(images)?;
    let [height, width, outputs] = Chain::new(pixels, sizes, layers)?.output();
    image_features(images, pixels, layers)?.reshape((count, height, width, outputs))
}

/// What a layer does, as far as shapes tell.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Convolution { windows: Windows, activation: Activation },
    MaxPool { windows: Windows },
    Residual { windows: Windows },
    Rectify,
}

/// A layer over images of a known size.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stage {
    pub(super) kind: Kind,
    /// Channels of what comes in and of what goes out.
    pub(super) channels: [usize; 2],
    /// Numbers of an image that comes in, and of one that goes out.
    pub(super) numbers: [usize; 2],
    /// `[H', W', O]` of what goes out.
    pub(super) output: [usize; 3],
}

impl Stage {
    /// # Errors
    /// If the layer doesn't fit images of `[height, width, channels]`.
    pub(super) fn new(layer: ImageLayer<'_>, [height, width, channels]: [usize; 3]) -> Result<Self> {
        let (size, mut outputs) = ([height, width], channels);
        let kind = match layer {
            ImageLayer::Convolution { weight, bias, geometry, activation } => {
                let kernel = check_convolution(size, channels, weight, bias)?;
                outputs = bias.elem_count();
                Kind::Convolution { windows: Windows::new(size, kernel, geometry)?, activation }
            }
            ImageLayer::MaxPool { size: kernel, geometry } => {
                let windows = Windows::new(size, kernel, geometry)?;
                let padding = geometry.padding;
                if padding[0] >= kernel[0]
                    || padding[1] >= kernel[1]
                    || kernel[0] * kernel[1] > usize::from(u8::MAX)
                    || channels == 0
                {
                    candle_core::bail!(
                        "max_pool: windows of {kernel:?} pixels over images of {size:?} in {channels} channels, padded by \
                         {padding:?}: a window must have more pixels than the padding, 255 at most, and images a channel"
                    );
                }
                Kind::MaxPool { windows }
            }
            ImageLayer::Residual { first, second } => {
                let kernel = first[0].dims().get(1).copied().unwrap_or(0);
                for [weight, bias] in [first, second] {
                    let fits =
                        weight.dims() == [channels, kernel, kernel, channels] && bias.dims() == [channels];
                    let types = [weight, bias].map(Tensor::dtype);
                    if !fits || kernel % 2 == 0 || channels == 0 || types != [DType::F32; 2] {
                        candle_core::bail!(
                            "residual block: expected f32 weights [C, K, K, C] with an odd K and biases [C] for images of \
                             {channels} channels, got {:?} and {:?} of {types:?}",
                            weight.dims(),
                            bias.dims()
                        );
                    }
                }
                let geometry = Geometry::square(1, kernel / 2);
                Kind::Residual { windows: Windows::new(size, [kernel; 2], geometry)? }
            }
            ImageLayer::Rectify => Kind::Rectify,
        };
        let [out_height, out_width] = match kind {
            Kind::Convolution { windows, .. } | Kind::MaxPool { windows } => windows.output,
            Kind::Residual { .. } | Kind::Rectify => size,
        };
        Ok(Self {
            kind,
            channels: [channels, outputs],
            numbers: [height * width * channels, out_height * out_width * outputs],
            output: [out_height, out_width, outputs],
        })
    }

    /// Numbers of its weights and biases, in their order.
    pub(super) fn parameters(&self) -> Vec<usize> {
        let [channels, outputs] = self.channels;
        let of = |windows: &Windows| [outputs * windows.kernel[0] * windows.kernel[1] * channels, outputs];
        match &self.kind {
            Kind::Convolution { windows, .. } => of(windows).into(),
            Kind::Residual { windows } => of(windows).repeat(2),
            Kind::MaxPool { .. } | Kind::Rectify => vec![],
        }
    }

    /// Multiplications (with as many additions) that an image costs.
    pub(super) fn products(&self) -> usize {
        match self.kind {
            Kind::Convolution { windows, .. } => {
                self.numbers[1] * windows.kernel.iter().product::<usize>() * self.channels[0]
            }
            Kind::Residual { windows } => {
                2 * self.numbers[1] * windows.kernel.iter().product::<usize>() * self.channels[0]
            }
            // It costs about as much for each pixel of a window.
            Kind::MaxPool { windows } => self.numbers[1] * windows.kernel.iter().product::<usize>(),
            Kind::Rectify => self.numbers[1],
        }
    }

    /// Whether the gradient needs what comes in.
    pub(super) fn needs_input(&self) -> bool {
        matches!(self.kind, Kind::Convolution { .. } | Kind::Residual { .. })
    }

    /// Whether the gradient needs what goes out.
    pub(super) fn needs_output(&self) -> bool {
        match self.kind {
            Kind::Convolution { activation, .. } => activation != Activation::Identity,
            Kind::Rectify => true,
            Kind::MaxPool { .. } | Kind::Residual { .. } => false,
        }
    }

    /// Numbers beside its output that it leaves for the gradient, for an image: which pixels were greatest, as bytes; what is
    /// between the convolutions of a block.
    pub(super) fn aside(&self) -> usize {
        match self.kind {
            Kind::MaxPool { .. } => self.numbers[1].div_ceil(size_of::<f32>()),
            Kind::Residual { .. } => self.numbers[1],
            Kind::Convolution { .. } | Kind::Rectify => 0,
        }
    }
}

/// Height and width of the kernel.
///
/// # Errors
/// If the weight or the bias doesn't fit.
fn check_convolution(
    size: [usize; 2],
    channels: usize,
    weight: &Tensor,
    bias: &Tensor,
) -> Result<[usize; 2]> {
    for (name, tensor) in [("weight", weight), ("bias", bias)] {
        if tensor.dtype() != DType::F32 {
            candle_core::bail!("convolution: the {name} must be f32, not {}", tensor.dtype().as_str());
        }
    }
    let &[outputs, kernel_height, kernel_width, inputs] = weight.dims() else {
        candle_core::bail!(
            "convolution: expected images of four dimensions and weight [O, KH, KW, C], got {:?}",
            weight.dims()
        )
    };
    if inputs != channels || bias.dims() != [outputs] || outputs * channels == 0 {
        candle_core::bail!(
            "convolution: images of {size:?} in {channels} channels, weight {:?} and bias {:?} do not fit together",
            weight.dims(),
            bias.dims()
        );
    }
    Ok([kernel_height, kernel_width])
}
