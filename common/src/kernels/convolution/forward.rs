//! Convolution of images, a few at a time.

use super::Images;
use super::geometry::Windows;
use super::images::Walk;
use super::product::{Ends, Left, product, whole_columns};
use crate::kernels::threads::{Scratch, share_out};
use crate::kernels::{Activation, tanh};

/// Windows that make up a product at least, where there are as many: its last tile is then a small part of it.
const WINDOWS: usize = 192;

/// Floating-point operations from which on a convolution is worth the start of threads.
pub(super) const PARALLEL_WORK: usize = 1 << 24;

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
    let (outputs, size) = (bias.len(), windows.count() * bias.len());
    let walk = Walk::new(images, channels, windows);
    let right = packed(weight, outputs, &walk.order);
    let group = group(windows);
    let rows = repeated(&walk.windows, group, walk.size);
    let to: Vec<usize> = (0..rows.len()).map(|row| row * outputs).collect();
    let worthwhile = 2 * out.len() * walk.order.len() >= PARALLEL_WORK;
    share_out(out.chunks_mut(group * size).enumerate(), worthwhile, |(at, out)| {
        let count = out.len() / size;
        let mut scratch = Scratch::new(walk.scratch(count));
        let left = Left {
            data: walk.prepare(images, at * group, count, windows, &mut scratch),
            rows: &rows[..count * windows.count()],
            segments: &walk.rows,
            length: walk.row,
            step: 1,
        };
        let ends = Ends { bias, add: false, rectify: activation == Activation::Relu };
        product(left, &right, outputs, ends, &to[..count * windows.count()], out);
        if activation == Activation::Tanh {
            tanh(out);
        }
    });
}

/// Images of a product.
pub(super) fn group(windows: &Windows) -> usize {
    WINDOWS.div_ceil(windows.count())
}

/// `offsets` for each of `count` images that are `size` numbers apart.
pub(super) fn repeated(offsets: &[usize], count: usize, size: usize) -> Vec<usize> {
    (0..count).flat_map(|image| offsets.iter().map(move |offset| image * size + offset)).collect()
}

/// The weight `[O, K]` as a right factor `[K, O]`, whose row `k` is what lies at `order[k]`.
fn packed(weight: &[f32], outputs: usize, order: &[usize]) -> Scratch {
    let columns = whole_columns(outputs);
    let mut right = Scratch::zeros(order.len() * columns);
    for (output, weight) in weight.chunks_exact(order.len()).enumerate() {
        for (row, at) in order.iter().enumerate() {
            right[row * columns + output] = weight[*at];
        }
    }
    right
}
