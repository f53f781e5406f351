//! Gradients of a convolution, in blocks of images.

use super::Images;
use super::forward::gather;
use super::geometry::Windows;
use crate::kernels::linear_backward;
use crate::kernels::{Activation, threads};

/// Images whose weight gradients are summed one after another; the sums of blocks are added in order, so
/// that the number of threads changes nothing.
const BLOCK: usize = 32;

/// The gradients, given those of the output, `grad`: both it and `y` are `[N, OH, OW, O]`. Writes `d_weight`
/// `[O, KH, KW, C]`, `d_bias` `[O]` and, where wanted, `d_images` `[N, H, W, C]`, which is zero before.
#[allow(clippy::too_many_arguments, reason = "a layer's inputs, output and gradients")]
pub(super) fn backward(
    images: Images<'_>,
    channels: usize,
    windows: &Windows,
    weight: &[f32],
    y: &[f32],
    grad: &[f32],
    activation: Activation,
    d_images: Option<&mut [f32]>,
    d_weight: &mut [f32],
    d_bias: &mut [f32],
) {
    let (size, input_size) = (windows.count() * d_bias.len(), windows.pixels() * channels);
    let blocks = y.chunks(BLOCK * size).zip(grad.chunks(BLOCK * size)).enumerate();
    let mut d_images: Vec<Option<&mut [f32]>> = match d_images {
        Some(d_images) => d_images.chunks_mut(BLOCK * input_size).map(Some).collect(),
        None => blocks.clone().map(|_| None).collect(),
    };
    let mut sums: Vec<(Vec<f32>, Vec<f32>)> =
        blocks.clone().map(|_| (vec![0.0; d_weight.len()], vec![0.0; d_bias.len()])).collect();
    let mut jobs: Vec<_> = blocks.zip(&mut d_images).zip(&mut sums).collect();
    let share = jobs.len().div_ceil(threads()).max(1);
    let alone = share >= jobs.len();
    std::thread::scope(|scope| {
        for jobs in jobs.chunks_mut(share) {
            let work = move || {
                for (((block, (y, grad)), d_images), (d_weight, d_bias)) in jobs {
                    let d_images = d_images.as_deref_mut();
                    block_gradient(
                        images, *block, channels, windows, weight, y, grad, activation, d_images, d_weight,
                        d_bias,
                    );
                }
            };
            if alone {
                work();
            } else {
                scope.spawn(work);
            }
        }
    });
    for (of_weight, of_bias) in &sums {
        d_weight.iter_mut().zip(of_weight).for_each(|(sum, x)| *sum += x);
        d_bias.iter_mut().zip(of_bias).for_each(|(sum, x)| *sum += x);
    }
}

#[allow(clippy::too_many_arguments, reason = "a layer's inputs, output and gradients")]
fn block_gradient(
    images: Images<'_>,
    block: usize,
    channels: usize,
    windows: &Windows,
    weight: &[f32],
    y: &[f32],
    grad: &[f32],
    activation: Activation,
    mut d_images: Option<&mut [f32]>,
    d_weight: &mut [f32],
    d_bias: &mut [f32],
) {
    let (size, input_size) = (windows.count() * d_bias.len(), windows.pixels() * channels);
    let (mut patches, mut d_patches) = (vec![], vec![]);
    let (mut of_weight, mut of_bias) = (vec![0.0; d_weight.len()], vec![0.0; d_bias.len()]);
    for (at, (y, grad)) in y.chunks(size).zip(grad.chunks(size)).enumerate() {
        gather(images, block * BLOCK + at, channels, windows, &mut patches);
        let wanted = d_images.as_deref_mut().map(|d| &mut d[at * input_size..][..input_size]);
        d_patches.resize(patches.len(), 0.0);
        linear_backward(
            &patches,
            windows.count(),
            weight,
            y,
            grad,
            activation,
            wanted.is_some().then_some(&mut d_patches[..]),
            &mut of_weight,
            &mut of_bias,
        );
        d_weight.iter_mut().zip(&of_weight).for_each(|(sum, x)| *sum += x);
        d_bias.iter_mut().zip(&of_bias).for_each(|(sum, x)| *sum += x);
        if let Some(d_image) = wanted {
            scatter(&d_patches, channels, windows, d_image);
        }
    }
}

/// Adds the gradients of windows `[OH OW, KH KW C]` to the pixels they cover.
fn scatter(d_patches: &[f32], channels: usize, windows: &Windows, d_image: &mut [f32]) {
    let mut patches = d_patches.chunks_exact(channels);
    for row in 0..windows.output[0] {
        for column in 0..windows.output[1] {
            for y in 0..windows.kernel[0] {
                for x in 0..windows.kernel[1] {
                    let patch = patches.next().unwrap_or(&[]);
                    let Some((y, x)) = windows.pixel(0, row, y).zip(windows.pixel(1, column, x)) else {
                        continue;
                    };
                    let pixel = &mut d_image[(y * windows.input[1] + x) * channels..][..channels];
                    pixel.iter_mut().zip(patch).for_each(|(sum, x)| *sum += x);
                }
            }
        }
    }
}
