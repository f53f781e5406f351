//! Max pooling and its gradient.

use std::sync::{Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor};

use super::composed;
use super::geometry::{Geometry, Windows};
use crate::kernels::storage::contiguous;
use crate::kernels::threads::share_out;
use crate::kernels::{Isa, dispatch, is_fused, with_slice};

/// Numbers of images from which on pooling them is worth the start of threads.
const PARALLEL_NUMBERS: usize = 1 << 20;

/// The greatest number of every window, channel by channel: `[N, OH, OW, C]` of images `[N, H, W, C]`.
///
/// `size` is a window's height and width. Among equals the first one of a window, row by row, gets the gradient; NaN
/// is greater than any number. On a device other than the CPU it is made of candle's own operations.
///
/// # Errors
/// If the images are not `f32`, or the windows do not fit them or lie wholly in the padding.
pub fn max_pool(images: &Tensor, size: [usize; 2], geometry: Geometry) -> Result<Tensor> {
    if images.dtype() != DType::F32 {
        candle_core::bail!("max_pool: the images must be f32, not {:?}", images.dtype());
    }
    let (_, height, width, channels) = images.dims4()?;
    let windows = Windows::new([height, width], size, geometry)?;
    let padding = geometry.padding;
    if padding[0] >= size[0]
        || padding[1] >= size[1]
        || size[0] * size[1] > usize::from(u8::MAX)
        || channels == 0
    {
        candle_core::bail!(
            "max_pool: windows of {size:?} pixels over images {:?}, padded by {padding:?}: a window must have more pixels \
             than the padding, 255 at most, and images a channel",
            images.dims()
        );
    }
    if !is_fused(images.device()) {
        return composed::max_pool(images, &windows);
    }
    images.contiguous()?.apply_op1(MaxPool { windows, chosen: Mutex::default() })
}

struct MaxPool {
    windows: Windows,
    /// `[N, OH, OW, C]`: which pixel of the window was greatest, for the gradient.
    chosen: Mutex<Vec<u8>>,
}

impl CustomOp1 for MaxPool {
    fn name(&self) -> &'static str {
        "max-pool"
    }

    fn cpu_fwd(&self, images: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (count, _, _, channels) = layout.shape().dims4()?;
        let [height, width] = self.windows.output;
        let mut out = vec![0f32; count * self.windows.count() * channels];
        let mut chosen = vec![0u8; out.len()];
        let images = contiguous(images, layout)?;
        let (from, to) = (self.windows.pixels() * channels, self.windows.count() * channels);
        let jobs = images.chunks(from).zip(out.chunks_mut(to).zip(chosen.chunks_mut(to)));
        share_out(jobs, count * from >= PARALLEL_NUMBERS, |(image, (out, chosen))| {
            pool(image, channels, &self.windows, out, chosen);
        });
        *self.chosen.lock().unwrap_or_else(PoisonError::into_inner) = chosen;
        Ok((CpuStorage::F32(out), (count, height, width, channels).into()))
    }

    fn bwd(&self, images: &Tensor, _result: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        if !images.track_op() {
            return Ok(None);
        }
        let channels = images.dim(3)?;
        let chosen = self.chosen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut d_images = vec![0f32; images.elem_count()];
        let (from, to) = (self.windows.pixels() * channels, self.windows.count() * channels);
        with_slice(&grad.contiguous()?, |grad: &[f32]| {
            let worthwhile = d_images.len() >= PARALLEL_NUMBERS;
            let jobs = grad.chunks(to).zip(chosen.chunks(to)).zip(d_images.chunks_mut(from));
            share_out(jobs, worthwhile, |((grad, chosen), d_image)| {
                unpool(grad, chosen, channels, &self.windows, d_image);
            });
        })?;
        Tensor::from_vec(d_images, images.shape(), images.device()).map(Some)
    }
}

dispatch! {
    /// Pools one image.
    fn pool(image: &[f32], channels: usize, windows: &Windows, out: &mut [f32], chosen: &mut [u8]) = pool_body;

    /// Adds the gradients of one image's windows to the pixels that were greatest.
    fn unpool(grad: &[f32], chosen: &[u8], channels: usize, windows: &Windows, d_image: &mut [f32]) = unpool_body;
}

#[inline(always)]
fn pool_body<S: Isa>(image: &[f32], channels: usize, windows: &Windows, out: &mut [f32], chosen: &mut [u8]) {
    let mut outs = out.chunks_exact_mut(channels).zip(chosen.chunks_exact_mut(channels));
    for row in 0..windows.output[0] {
        for column in 0..windows.output[1] {
            let Some((out, chosen)) = outs.next() else { return };
            out.fill(f32::NEG_INFINITY);
            let mut found = false;
            for y in 0..windows.kernel[0] {
                for x in 0..windows.kernel[1] {
                    let tap = (y * windows.kernel[1] + x) as u8;
                    let Some((y, x)) = windows.pixel(0, row, y).zip(windows.pixel(1, column, x)) else {
                        continue;
                    };
                    let pixel = &image[(y * windows.input[1] + x) * channels..][..channels];
                    if !found {
                        out.copy_from_slice(pixel);
                        chosen.fill(tap);
                        found = true;
                        continue;
                    }
                    for ((best, chosen), value) in out.iter_mut().zip(chosen.iter_mut()).zip(pixel) {
                        let better = *value > *best || value.is_nan();
                        *best = if better { *value } else { *best };
                        *chosen = if better { tap } else { *chosen };
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn unpool_body<S: Isa>(grad: &[f32], chosen: &[u8], channels: usize, windows: &Windows, d_image: &mut [f32]) {
    let mut outs = grad.chunks_exact(channels).zip(chosen.chunks_exact(channels));
    for row in 0..windows.output[0] {
        for column in 0..windows.output[1] {
            let Some((grad, chosen)) = outs.next() else { return };
            for y in 0..windows.kernel[0] {
                for x in 0..windows.kernel[1] {
                    let tap = (y * windows.kernel[1] + x) as u8;
                    let Some((y, x)) = windows.pixel(0, row, y).zip(windows.pixel(1, column, x)) else {
                        continue;
                    };
                    let pixel = &mut d_image[(y * windows.input[1] + x) * channels..][..channels];
                    for ((sum, grad), chosen) in pixel.iter_mut().zip(grad).zip(chosen) {
                        *sum += if *chosen == tap { *grad } else { 0.0 };
                    }
                }
            }
        }
    }
}
