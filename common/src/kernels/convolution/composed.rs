//! Convolution and max pooling made of candle's own operations: for other devices, and as a check of the kernels.

use candle_core::{DType, Result, Tensor};

use super::geometry::Windows;
use super::{Geometry, PixelOrder};
use crate::kernels::Activation;

/// Bytes as the numbers they count for, `[N, H, W, C]`.
pub(super) fn widened(images: &Tensor, order: PixelOrder, scale: f32) -> Result<Tensor> {
    let numbers = (images.to_dtype(DType::F32)? * f64::from(scale))?;
    match order {
        PixelOrder::Planar => numbers.permute((0, 2, 3, 1)),
        PixelOrder::Interleaved => Ok(numbers),
    }
}

/// See [`convolution`](super::convolution).
pub(super) fn convolution(
    images: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    geometry: Geometry,
    activation: Activation,
) -> Result<Tensor> {
    let planes = images.permute((0, 3, 1, 2))?.contiguous()?;
    let kernels = weight.permute((0, 3, 1, 2))?.contiguous()?;
    let Geometry { stride, padding } = geometry;
    // candle knows one padding for both directions.
    let padded = planes.pad_with_zeros(2, padding[0], padding[0])?;
    let padded = padded.pad_with_zeros(3, padding[1], padding[1])?;
    let sums = if stride[0] == stride[1] {
        // Its gradient takes as many pixels to lie beyond the last window in either direction: none then.
        let [height, width] = [2, 3].map(|axis| {
            let size = padded.dims()[axis];
            size - (size - kernels.dims()[axis]) % stride[0]
        });
        padded
            .narrow(2, 0, height)?
            .narrow(3, 0, width)?
            .contiguous()?
            .conv2d(&kernels, 0, stride[0], 1, 1)?
    } else {
        // It knows one stride, too: the rest is windows left out.
        let all = padded.conv2d(&kernels, 0, 1, 1, 1)?;
        let rows = every(all.dim(2)?, stride[0], &all)?;
        let columns = every(all.dim(3)?, stride[1], &all)?;
        all.index_select(&rows, 2)?.index_select(&columns, 3)?
    };
    let sums = sums.permute((0, 2, 3, 1))?.broadcast_add(bias)?;
    match activation {
        Activation::Identity => Ok(sums),
        Activation::Tanh => sums.tanh(),
        Activation::Relu => sums.relu(),
    }
}

/// Indices 0, `stride`, ... below `length`.
fn every(length: usize, stride: usize, like: &Tensor) -> Result<Tensor> {
    let indices: Vec<u32> = (0..length).step_by(stride).map(|at| at as u32).collect();
    Tensor::new(indices, like.device())
}

/// See [`max_pool`](super::max_pool).
pub(super) fn max_pool(images: &Tensor, windows: &Windows) -> Result<Tensor> {
    let padding = windows.geometry.padding;
    let mut padded = images.clone();
    for (axis, padding) in [(1, padding[0]), (2, padding[1])] {
        let mut shape = padded.dims().to_vec();
        shape[axis] = padding;
        if padding > 0 {
            let edge = Tensor::full(f32::NEG_INFINITY, shape, images.device())?;
            padded = Tensor::cat(&[&edge, &padded, &edge], axis)?;
        }
    }
    let indices = |axis: usize, at: usize| {
        let first =
            (0..windows.output[axis]).map(|window| (window * windows.geometry.stride[axis] + at) as u32);
        Tensor::new(first.collect::<Vec<u32>>(), images.device())
    };
    let mut taps = vec![];
    for row in 0..windows.kernel[0] {
        let rows = padded.index_select(&indices(0, row)?, 1)?;
        for column in 0..windows.kernel[1] {
            taps.push(rows.index_select(&indices(1, column)?, 2)?);
        }
    }
    let taps = Tensor::stack(&taps, 0)?;
    // A choice rather than a maximum, for candle halves the gradient between equals.
    let chosen = taps.argmax_keepdim(0)?;
    taps.gather(&chosen, 0)?.squeeze(0)
}
