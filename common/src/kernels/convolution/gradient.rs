//! Gradients of a convolution, in blocks of images.
//!
//! That of the weight is a product whose depth runs over windows: each number of a window, times the gradient of the sums. That
//! of the images is itself a convolution, of the gradient of the sums: pixels whose row and column leave the
//! same remainders by the stride are covered by the same numbers of the weight, so each such phase is one of stride 1.

use super::Images;
use super::forward::{PARALLEL_WORK, group, repeated};
use super::geometry::Windows;
use super::images::Walk;
use super::product::{Ends, Left, Segment, product, whole_columns};
use crate::kernels::threads::{Scratch, share_out};
use crate::kernels::{Activation, Isa, dispatch};

/// Images whose weight gradients are summed one after another; the sums of blocks are added in order, so
/// that the number of threads changes nothing.
const BLOCK: usize = 16;

/// Numbers of the sums' gradient that stay in the first-level cache beside what they are multiplied with.
const CACHED: usize = 6000;

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
    let outputs = d_bias.len();
    let (size, input_size) = (windows.count() * outputs, windows.pixels() * channels);
    let walk = Walk::new(images, channels, windows);
    let sums = Sums::new(windows, outputs, d_images.is_some());
    let group = group(windows);
    let block = BLOCK.next_multiple_of(group);
    let phases = if d_images.is_some() { phases(windows, channels, &sums, weight, group) } else { vec![] };
    let to: Vec<usize> = (0..walk.taps.len()).map(|tap| tap * outputs).collect();

    let blocks = y.chunks(block * size).zip(grad.chunks(block * size)).enumerate();
    let mut d_images: Vec<Option<&mut [f32]>> = match d_images {
        Some(d_images) => d_images.chunks_mut(block * input_size).map(Some).collect(),
        None => blocks.clone().map(|_| None).collect(),
    };
    let parameters = walk.taps.len() * outputs + outputs;
    let mut partial = Scratch::zeros(blocks.len() * parameters);
    let jobs = blocks.zip(d_images.iter_mut().zip(partial.chunks_exact_mut(parameters)));
    let worthwhile = 2 * y.len() * walk.taps.len() >= PARALLEL_WORK;
    share_out(jobs, worthwhile, |((at, (y, grad)), (d_images, partial))| {
        let (of_weight, of_bias) = partial.split_at_mut(walk.taps.len() * outputs);
        let mut scratch = Scratch::new(walk.scratch(group));
        let mut dz = Scratch::zeros(sums.size * group);
        for (part, (y, grad)) in y.chunks(group * size).zip(grad.chunks(group * size)).enumerate() {
            let count = y.len() / size;
            let first = at * block + part * group;
            sums.gradient(y, grad, activation, &mut dz, of_bias);
            let data = walk.prepare(images, first, count, windows, &mut scratch);
            for segments in sums.segments(&walk, count).chunks((CACHED / sums.row(windows)).max(1)) {
                let left =
                    Left { data, rows: &walk.taps, segments, length: windows.output[1], step: walk.steps[0] };
                let ends = Ends { bias: &[], add: true, rectify: false };
                product(left, &dz, outputs, ends, &to, of_weight);
            }
            if let Some(d_images) = d_images {
                let d_images = &mut d_images[part * group * input_size..][..count * input_size];
                for phase in &phases {
                    phase.apply(&dz, count, channels, d_images);
                }
                if let Images::Rectified(images) = images {
                    rectified_gradient(&images[first * input_size..][..count * input_size], d_images);
                }
            }
        }
    });
    let mut total = Scratch::zeros(parameters);
    for partial in partial.chunks_exact(parameters) {
        total.iter_mut().zip(partial).for_each(|(sum, x)| *sum += x);
    }
    let (of_weight, of_bias) = total.split_at(walk.taps.len() * outputs);
    d_bias.copy_from_slice(of_bias);
    for (output, d_weight) in d_weight.chunks_exact_mut(walk.order.len()).enumerate() {
        for (row, at) in walk.order.iter().enumerate() {
            d_weight[*at] = of_weight[row * outputs + output];
        }
    }
}

/// How the gradient of the sums is laid out: `[G, rows, columns, outputs in whole vectors]`, with zeros around the windows
/// where windows would be that cover a pixel but do not exist.
struct Sums {
    /// Rows and columns before the first window.
    before: [usize; 2],
    columns: usize,
    outputs: usize,
    /// Outputs in whole vectors.
    whole: usize,
    windows: [usize; 2],
    /// Numbers of an image.
    size: usize,
}

impl Sums {
    fn new(windows: &Windows, outputs: usize, of_images: bool) -> Self {
        let whole = whole_columns(outputs);
        // Windows that cover a pixel, and those past the last window which the last pixel asks for.
        let around = |axis: usize| {
            let (stride, padding) = (windows.geometry.stride[axis], windows.geometry.padding[axis]);
            let last = (windows.input[axis] - 1 + padding) / stride;
            (windows.kernel[axis].div_ceil(stride) - 1, (last + 1).saturating_sub(windows.output[axis]))
        };
        let [(top, bottom), (left, right)] =
            if of_images { [around(0), around(1)] } else { [(0, 0), (0, 0)] };
        let columns = left + windows.output[1] + right;
        Self {
            before: [top, left],
            columns,
            outputs,
            whole,
            windows: windows.output,
            size: (top + windows.output[0] + bottom) * columns * whole,
        }
    }

    /// Numbers of a row of windows.
    fn row(&self, windows: &Windows) -> usize {
        windows.output[1] * self.whole
    }

    /// The pixel of the first window of a row, counted through all images.
    fn place(&self, image: usize, row: usize) -> usize {
        image * (self.size / self.whole) + (self.before[0] + row) * self.columns + self.before[1]
    }

    /// Computes the gradient of the sums for some images, and adds it up into `of_bias`; what lies around stays as it is.
    fn gradient(&self, y: &[f32], grad: &[f32], activation: Activation, dz: &mut [f32], of_bias: &mut [f32]) {
        let row = self.windows[1] * self.outputs;
        for (at, (y, grad)) in y.chunks_exact(row).zip(grad.chunks_exact(row)).enumerate() {
            let place = self.place(at / self.windows[0], at % self.windows[0]) * self.whole;
            sums_gradient(y, grad, activation, &mut dz[place..][..self.windows[1] * self.whole], of_bias);
        }
    }

    /// The path of the weight's gradient through `count` images: a segment for each row of windows.
    fn segments(&self, walk: &Walk, count: usize) -> Vec<Segment> {
        let segment = |image: usize, row: usize| Segment {
            left: image * walk.size + row * walk.steps[1],
            right: self.place(image, row),
        };
        (0..count).flat_map(|image| (0..self.windows[0]).map(move |row| segment(image, row))).collect()
    }
}

/// Pixels whose gradients are made in the same way.
struct Phase {
    right: Scratch,
    /// For each pixel of a group of images: where the first window is that covers it, and where the pixel is.
    rows: Vec<usize>,
    to: Vec<usize>,
    segments: Vec<Segment>,
    length: usize,
}

impl Phase {
    /// Writes the gradients of this phase's pixels of `count` images.
    fn apply(&self, dz: &[f32], count: usize, channels: usize, d_images: &mut [f32]) {
        // Rows are in the order of images: leave out those of images that are not there.
        let rows = self.to.partition_point(|to| *to < d_images.len());
        debug_assert!(count > 0);
        let left = Left {
            data: dz,
            rows: &self.rows[..rows],
            segments: &self.segments,
            length: self.length,
            step: 1,
        };
        let ends = Ends { bias: &[], add: false, rectify: false };
        product(left, &self.right, channels, ends, &self.to[..rows], d_images);
    }
}

/// The phases that have any window, with their parts of the weight, for groups of `group` images.
fn phases(windows: &Windows, channels: usize, sums: &Sums, weight: &[f32], group: usize) -> Vec<Phase> {
    let [stride, padding] = [windows.geometry.stride, windows.geometry.padding];
    let [kernel_height, kernel_width] = windows.kernel;
    let whole = whole_columns(channels);
    let mut phases = vec![];
    for a in 0..stride[0].min(kernel_height) {
        for b in 0..stride[1].min(kernel_width) {
            // Windows that cover a pixel of this phase, in either direction.
            let [rows, columns] =
                [(kernel_height - a).div_ceil(stride[0]), (kernel_width - b).div_ceil(stride[1])];
            let mut right = Scratch::zeros(rows * columns * sums.whole * whole);
            for (output, weight) in weight.chunks_exact(kernel_height * kernel_width * channels).enumerate() {
                for t in 0..rows {
                    for u in 0..columns {
                        let (y, x) = (a + stride[0] * (rows - 1 - t), b + stride[1] * (columns - 1 - u));
                        let from = &weight[(y * kernel_width + x) * channels..][..channels];
                        let to = ((t * columns + u) * sums.whole + output) * whole;
                        right[to..][..channels].copy_from_slice(from);
                    }
                }
            }
            let pixels = |axis: usize, remainder: usize, count: usize| {
                let (stride, padding, before) = (stride[axis], padding[axis], sums.before[axis]);
                (0..windows.input[axis])
                    .filter(move |pixel| (pixel + padding) % stride == remainder)
                    .map(move |pixel| (pixel, (pixel + padding) / stride + before + 1 - count))
            };
            let (mut from, mut to) = (vec![], vec![]);
            for (y, row) in pixels(0, a, rows) {
                for (x, column) in pixels(1, b, columns) {
                    from.push((row * sums.columns + column) * sums.whole);
                    to.push((y * windows.input[1] + x) * channels);
                }
            }
            let segment =
                |t: usize| Segment { left: t * sums.columns * sums.whole, right: t * columns * sums.whole };
            phases.push(Phase {
                right,
                rows: repeated(&from, group, sums.size),
                to: repeated(&to, group, windows.pixels() * channels),
                segments: (0..rows).map(segment).collect(),
                length: columns * sums.whole,
            });
        }
    }
    phases
}

dispatch! {
    /// The gradient of a row of sums, from that of what the activation made of them, and its sums by output.
    fn sums_gradient(y: &[f32], grad: &[f32], activation: Activation, dz: &mut [f32], of_bias: &mut [f32]) = sums_gradient_body;
    /// Leaves only the gradients of numbers above 0.
    fn rectified_gradient(numbers: &[f32], grad: &mut [f32]) = rectified_gradient_body;
}

#[inline(always)]
fn sums_gradient_body<S: Isa>(
    y: &[f32],
    grad: &[f32],
    activation: Activation,
    dz: &mut [f32],
    of_bias: &mut [f32],
) {
    match activation {
        Activation::Identity => pixels(y, grad, dz, of_bias, |_, grad| grad),
        Activation::Tanh => pixels(y, grad, dz, of_bias, |y, grad| grad * S::mul_add(-y, y, 1.0)),
        Activation::Relu => pixels(y, grad, dz, of_bias, |y, grad| if y > 0.0 { grad } else { 0.0 }),
    }
}

#[inline(always)]
fn pixels(y: &[f32], grad: &[f32], dz: &mut [f32], of_bias: &mut [f32], slope: impl Fn(f32, f32) -> f32) {
    let outputs = of_bias.len();
    let whole = dz.len() / (y.len() / outputs).max(1);
    let each = y.chunks_exact(outputs).zip(grad.chunks_exact(outputs)).zip(dz.chunks_exact_mut(whole));
    for ((y, grad), dz) in each {
        for (((y, grad), dz), sum) in y.iter().zip(grad).zip(dz).zip(of_bias.iter_mut()) {
            *dz = slope(*y, *grad);
            *sum += *dz;
        }
    }
}

#[inline(always)]
fn rectified_gradient_body<S: Isa>(numbers: &[f32], grad: &mut [f32]) {
    for (grad, number) in grad.iter_mut().zip(numbers) {
        *grad = if *number > 0.0 { *grad } else { 0.0 };
    }
}
