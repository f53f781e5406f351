//! Convolution of images, a few at a time.

use super::geometry::Windows;
use super::images::{Form, Images, Walk};
use super::product::{Ends, Left, product, whole_columns};
use crate::kernels::threads::Scratch;
use crate::kernels::{Activation, tanh};

/// Windows that make up a product at least, where there are as many: its last tile is then a small part of it.
const WINDOWS: usize = 192;

/// Floating-point operations from which on a convolution is worth the start of threads.
pub(super) const PARALLEL_WORK: usize = 1 << 24;

/// A convolution whose weight is laid out for the processor.
pub(super) struct Forward {
    windows: Windows,
    walk: Walk,
    /// The weight as a right factor `[K, O]`.
    right: Scratch,
    bias: Scratch,
    activation: Activation,
    /// Images of a product.
    group: usize,
    /// For each window of a group: where it begins, and where its sums go.
    rows: Vec<usize>,
    to: Vec<usize>,
}

impl Forward {
    /// The convolution of images in `form` with the weight `[O, KH, KW, C]` and the bias `[O]`.
    pub(super) fn new(
        form: Form,
        channels: usize,
        windows: &Windows,
        weight: &[f32],
        bias: &[f32],
        activation: Activation,
    ) -> Self {
        let walk = Walk::new(form, channels, windows);
        let group = group(windows);
        let rows = repeated(&walk.windows, group, walk.size);
        let mut own_bias = Scratch::new(bias.len());
        own_bias.copy_from_slice(bias);
        Self {
            windows: *windows,
            right: packed(weight, bias.len(), &walk.order),
            walk,
            bias: own_bias,
            activation,
            group,
            to: (0..rows.len()).map(|row| row * bias.len()).collect(),
            rows,
        }
    }

    /// Numbers that an image gives.
    fn size(&self) -> usize {
        self.windows.count() * self.bias.len()
    }

    /// Convolves as many images as `out` `[N, OH, OW, O]` has room for, on this thread.
    pub(super) fn apply(&self, images: Images<'_>, out: &mut [f32]) {
        let (outputs, size) = (self.bias.len(), self.size());
        let mut scratch = Scratch::new(self.walk.scratch(self.group.min(out.len() / size)));
        for (at, out) in out.chunks_mut(self.group * size).enumerate() {
            let count = out.len() / size;
            let rows = count * self.windows.count();
            let left = Left {
                data: self.walk.prepare(images, at * self.group, count, &self.windows, &mut scratch),
                rows: &self.rows[..rows],
                segments: &self.walk.rows,
                length: self.walk.row,
                step: 1,
            };
            let ends = Ends { bias: &self.bias, add: false, rectify: self.activation == Activation::Relu };
            product(left, &self.right, outputs, ends, &self.to[..rows], out);
            if self.activation == Activation::Tanh {
                tanh(out);
            }
        }
    }
}

/// Images of a product.
fn group(windows: &Windows) -> usize {
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
