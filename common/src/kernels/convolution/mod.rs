//! Convolution and max pooling over images whose channels lie side by side, fused with bias and activation, and their
//! gradients.
//!
//! Images are `[N, H, W, C]` (channels last) between all layers: a row of a window is then one stretch of
//! memory, and so is the row of sums of an output pixel. A convolution is the cross-correlation that PyTorch computes:
//! `y[n, i, j, o] = activation(bias[o] + sum weight[o, a, b, c] x[n, i S + a - P, j S + b - P, c])`.
//!
//! # Layout
//!
//! - `geometry`: which pixel a window covers;
//! - `product`: the matrix product whose left factor stays where it is in the image;
//! - `images`: images as the product reads them;
//! - `forward`, `gradient`: a convolution and its gradients; `pooling`: max pooling and its gradient;
//! - `layers`: the layers that there are, and their shapes; `run`, `backward`: how images go through them and back, a few at a
//!   time; `chain`: layers one after another as one operation in the graph, shared out over
//!   [`threads`](super::threads()) threads;
//! - `composed`: the same of candle's own operations, for other devices and as a check.

mod backward;
mod chain;
#[cfg(test)]
mod chain_tests;
mod composed;
mod forward;
mod geometry;
mod gradient;
mod images;
mod layers;
mod pooling;
mod product;
mod run;
#[cfg(test)]
mod tests;

use candle_core::{Result, Tensor};

use super::Activation;

pub use chain::PackedImageLayers;
pub use geometry::Geometry;
pub use layers::{ImageLayer, Pixels, image_features, image_layers};

/// In which order the bytes of an image lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PixelOrder {
    /// `[N, C, H, W]`: one plane a channel, as stacked frames are.
    Planar,
    /// `[N, H, W, C]`: the channels of a pixel side by side.
    Interleaved,
}

/// Convolves images: `[N, OH, OW, O]`.
///
/// `images` is `[N, H, W, C]`, `weight` `[O, KH, KW, C]`, `bias` `[O]`, all `f32`. See [`image_layers`].
///
/// # Errors
/// If an element type is not `f32`, a shape does not fit, or the tensors are on different devices.
pub fn convolution(
    images: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    geometry: Geometry,
    activation: Activation,
) -> Result<Tensor> {
    let layer = ImageLayer::Convolution { weight, bias, geometry, activation };
    image_layers(images, Pixels::Numbers, &[layer])
}

/// Convolves images of bytes, each of which counts as `byte * scale`: `[N, OH, OW, O]`.
///
/// `images` is `u8`, `[N, C, H, W]` or `[N, H, W, C]` as `order` says, `weight` `[O, KH, KW, C]` and `bias` `[O]` are `f32`.
/// The bytes are widened an image at a time, where they are used; they get no gradient.
///
/// # Errors
/// As [`convolution`], or if the images are not `u8`.
pub fn convolution_of_bytes(
    images: &Tensor,
    order: PixelOrder,
    scale: f32,
    weight: &Tensor,
    bias: &Tensor,
    geometry: Geometry,
    activation: Activation,
) -> Result<Tensor> {
    let layer = ImageLayer::Convolution { weight, bias, geometry, activation };
    image_layers(images, Pixels::Bytes { order, scale }, &[layer])
}

/// The greatest number of every window, channel by channel: `[N, OH, OW, C]` of images `[N, H, W, C]`.
///
/// `size` is a window's height and width. Among equals the first one of a window, row by row, gets the gradient; NaN
/// is greater than any number. See [`image_layers`].
///
/// # Errors
/// If the images are not `f32`, or the windows do not fit them or lie wholly in the padding.
pub fn max_pool(images: &Tensor, size: [usize; 2], geometry: Geometry) -> Result<Tensor> {
    image_layers(images, Pixels::Numbers, &[ImageLayer::MaxPool { size, geometry }])
}

/// Applies a residual block to images: `y = x + conv(relu(conv(relu(x))))`, `[N, H, W, C]`, the shape of `images` (He et al. 2016,
/// <https://arxiv.org/abs/1603.05027>, as Espeholt et al. 2018 use it).
///
/// `first` and `second` are the weight `[C, K, K, C]`, K odd, and the bias `[C]` of either convolution, which has stride 1 and
/// pads images so that they keep their size; all `f32`. See [`image_layers`].
///
/// # Errors
/// If an element type is not `f32`, a shape does not fit, or the tensors are on different devices.
pub fn residual_block(images: &Tensor, first: [&Tensor; 2], second: [&Tensor; 2]) -> Result<Tensor> {
    image_layers(images, Pixels::Numbers, &[ImageLayer::Residual { first, second }])
}
