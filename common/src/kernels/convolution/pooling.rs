//! Max pooling of an image, and its gradient.

use super::geometry::Windows;
use crate::kernels::{Isa, dispatch};

dispatch! {
    /// Pools one image `[H, W, C]` into `out` `[OH, OW, C]`; `chosen` tells which pixel of a window was greatest.
    pub(super) fn pool(image: &[f32], channels: usize, windows: &Windows, out: &mut [f32], chosen: &mut [u8]) = pool_body;

    /// Gives the gradients of one image's windows to the pixels that were greatest; overwrites `d_image`.
    pub(super) fn unpool(grad: &[f32], chosen: &[u8], channels: usize, windows: &Windows, d_image: &mut [f32]) = unpool_body;
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
    d_image.fill(0.0);
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
