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
//! - `forward`, `gradient`: a convolution and its gradients, shared out over [`threads`](super::threads) threads;
//! - `pooling`: max pooling and its gradient;
//! - `residual`: a block of two convolutions and what goes around them;
//! - `composed`: the same of candle's own operations, for other devices and as a check.

mod composed;
mod forward;
mod geometry;
mod gradient;
mod images;
mod pooling;
mod product;
mod residual;
#[cfg(test)]
mod tests;

use candle_core::{CpuStorage, CustomOp3, DType, Layout, Result, Shape, Tensor};

pub use geometry::Geometry;
pub use pooling::max_pool;
pub use residual::residual_block;

use super::storage::contiguous;
use super::{Activation, is_fused, with_slice};
use geometry::Windows;

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
/// `images` is `[N, H, W, C]`, `weight` `[O, KH, KW, C]`, `bias` `[O]`, all `f32`. On the CPU it is one operation in
/// the graph, whose gradient leaves out inputs that no variable feeds; elsewhere it is made of candle's own operations.
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
    if images.dtype() != DType::F32 {
        candle_core::bail!("convolution: the images must be f32, not {:?}", images.dtype());
    }
    convolve(images, Source::Floats, weight, bias, geometry, activation)
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
    if images.dtype() != DType::U8 {
        candle_core::bail!("convolution: the images must be u8, not {:?}", images.dtype());
    }
    convolve(images, Source::Bytes { order, scale }, weight, bias, geometry, activation)
}

/// What the numbers of the images are.
#[derive(Debug, Clone, Copy)]
enum Source {
    Floats,
    Bytes { order: PixelOrder, scale: f32 },
}

/// The memory of images.
#[derive(Clone, Copy)]
enum Images<'a> {
    Floats(&'a [f32]),
    /// Of which negative ones count as 0.
    Rectified(&'a [f32]),
    Bytes {
        bytes: &'a [u8],
        order: PixelOrder,
        scale: f32,
    },
}

fn convolve(
    images: &Tensor,
    source: Source,
    weight: &Tensor,
    bias: &Tensor,
    geometry: Geometry,
    activation: Activation,
) -> Result<Tensor> {
    for (name, tensor) in [("weight", weight), ("bias", bias)] {
        if tensor.dtype() != DType::F32 {
            candle_core::bail!("convolution: the {name} must be f32, not {:?}", tensor.dtype());
        }
    }
    let (&[n, a, b, c], &[outputs, kernel_height, kernel_width, channels]) = (images.dims(), weight.dims())
    else {
        candle_core::bail!(
            "convolution: expected images of four dimensions and weight [O, KH, KW, C], got {:?} and {:?}",
            images.dims(),
            weight.dims()
        )
    };
    let (size, of_images) = match source {
        Source::Bytes { order: PixelOrder::Planar, .. } => ([b, c], a),
        _ => ([a, b], c),
    };
    if of_images != channels || bias.dims() != [outputs] || outputs * channels == 0 {
        candle_core::bail!(
            "convolution: images {:?}, weight {:?} and bias {:?} do not fit together",
            images.dims(),
            weight.dims(),
            bias.dims()
        );
    }
    let windows = Windows::new(size, [kernel_height, kernel_width], geometry)?;
    if !is_fused(images.device()) {
        let images = match source {
            Source::Floats => images.clone(),
            Source::Bytes { order, scale } => composed::widened(images, order, scale)?,
        };
        return composed::convolution(&images, weight, bias, geometry, activation);
    }
    let op = Convolution { source, images: n, channels, outputs, windows, activation };
    images.contiguous()?.apply_op3(&weight.contiguous()?, &bias.contiguous()?, op)
}

/// The operation.
struct Convolution {
    source: Source,
    images: usize,
    channels: usize,
    outputs: usize,
    windows: Windows,
    activation: Activation,
}

impl CustomOp3 for Convolution {
    fn name(&self) -> &'static str {
        "convolution"
    }

    fn cpu_fwd(
        &self,
        images: &CpuStorage,
        images_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let [height, width] = self.windows.output;
        let mut out = vec![0f32; self.images * height * width * self.outputs];
        let source = match self.source {
            Source::Floats => Images::Floats(contiguous(images, images_layout)?),
            Source::Bytes { order, scale } => {
                Images::Bytes { bytes: contiguous(images, images_layout)?, order, scale }
            }
        };
        let (weight, bias) = (contiguous(weight, weight_layout)?, contiguous(bias, bias_layout)?);
        forward::forward(source, self.channels, &self.windows, weight, bias, self.activation, &mut out);
        Ok((CpuStorage::F32(out), (self.images, height, width, self.outputs).into()))
    }

    fn bwd(
        &self,
        images: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let mut d_images = images.track_op().then(|| vec![0f32; images.elem_count()]);
        let mut d_weight = vec![0f32; weight.elem_count()];
        let mut d_bias = vec![0f32; bias.elem_count()];
        let mut backward = |source: Images<'_>| {
            with_slice(weight, |weight| {
                with_slice(y, |y| {
                    with_slice(&grad, |grad| {
                        gradient::backward(
                            source,
                            self.channels,
                            &self.windows,
                            weight,
                            y,
                            grad,
                            self.activation,
                            d_images.as_deref_mut(),
                            &mut d_weight,
                            &mut d_bias,
                        )
                    })
                })
            })??
        };
        match self.source {
            Source::Floats => with_slice(images, |images| backward(Images::Floats(images)))??,
            Source::Bytes { order, scale } => {
                with_slice(images, |bytes| backward(Images::Bytes { bytes, order, scale }))??
            }
        }
        let tensor = |of: &Tensor, values| {
            of.track_op().then(|| Tensor::from_vec(values, of.shape(), of.device())).transpose()
        };
        let d_images = d_images.map(|d| Tensor::from_vec(d, images.shape(), images.device())).transpose()?;
        Ok((d_images, tensor(weight, d_weight)?, tensor(bias, d_bias)?))
    }
}
