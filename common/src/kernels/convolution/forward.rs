//! Convolution of images, image by image.

use super::geometry::Windows;
use super::{Images, PixelOrder};
use crate::kernels::linear_into;
use crate::kernels::{Activation, threads};

/// Convolves images into `out` `[N, OH, OW, O]`, with the weight `[O, KH, KW, C]`.
pub(super) fn forward(
    images: Images<'_>,
    channels: usize,
    windows: &Windows,
    weight: &[f32],
    bias: &[f32],
    activation: Activation,
    out: &mut [f32],
) {
    let size = windows.count() * bias.len();
    let count = out.len() / size;
    let share = count.div_ceil(threads()).max(1);
    std::thread::scope(|scope| {
        for (part, out) in out.chunks_mut(share * size).enumerate() {
            let mut work = move || {
                let mut patches = vec![];
                for (at, out) in out.chunks_mut(size).enumerate() {
                    gather(images, part * share + at, channels, windows, &mut patches);
                    linear_into(&patches, windows.count(), weight, bias, activation, out);
                }
            };
            if share >= count {
                work();
            } else {
                scope.spawn(work);
            }
        }
    });
}

/// The windows of image `image`, `[OH OW, KH KW C]`.
pub(super) fn gather(
    images: Images<'_>,
    image: usize,
    channels: usize,
    windows: &Windows,
    patches: &mut Vec<f32>,
) {
    let size = windows.pixels() * channels;
    patches.clear();
    for row in 0..windows.output[0] {
        for column in 0..windows.output[1] {
            for y in 0..windows.kernel[0] {
                for x in 0..windows.kernel[1] {
                    let Some((y, x)) = windows.pixel(0, row, y).zip(windows.pixel(1, column, x)) else {
                        patches.resize(patches.len() + channels, 0.0);
                        continue;
                    };
                    let pixel = y * windows.input[1] + x;
                    match images {
                        Images::Floats(numbers) => {
                            patches
                                .extend_from_slice(&numbers[image * size + pixel * channels..][..channels]);
                        }
                        Images::Bytes { bytes, order: PixelOrder::Interleaved, scale } => {
                            let bytes = &bytes[image * size + pixel * channels..][..channels];
                            patches.extend(bytes.iter().map(|byte| f32::from(*byte) * scale));
                        }
                        Images::Bytes { bytes, order: PixelOrder::Planar, scale } => {
                            let planes = bytes[image * size..][..size].chunks_exact(windows.pixels());
                            patches.extend(planes.map(|plane| f32::from(plane[pixel]) * scale));
                        }
                    }
                }
            }
        }
    }
}
