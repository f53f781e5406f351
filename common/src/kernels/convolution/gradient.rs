//! Gradients of a convolution, in blocks of images.
//!
//! That of the weight is a product whose depth runs over windows: each number of a window, times the gradient of the sums. That
//! of the images is itself a convolution, of the gradient of the sums: pixels whose row and column leave the
//! same remainders by the stride are covered by the same numbers of the weight, so each such phase is one of stride 1.

use super::forward::{group, repeated};
use super::geometry::Windows;
use super::images::{Form, Images, Walk};
use super::product::{Ends, Left, Segment, product, whole_columns};
use crate::kernels::threads::Scratch;
use crate::kernels::{Activation, Isa, dispatch};

/// Numbers of the sums' gradient that stay in the first-level cache beside what they are multiplied with.
const CACHED: usize = 6000;

/// The gradients of a convolution, with its weight laid out for the processor.
pub(super) struct Gradient {
    windows: Windows,
    channels: usize,
    outputs: usize,
    activation: Activation,
    walk: Walk,
    sums: Sums,
    /// Images of a product.
    group: usize,
    /// The path of the weight's gradient through a group: a segment for each row of windows.
    segments: Vec<Segment>,
    /// Where the gradient of each number of the weight goes.
    to: Vec<usize>,
    /// How the gradients of pixels are made, if they are wanted.
    phases: Option<Vec<Phase>>,
}

impl Gradient {
    /// The gradients for images in `form` with the weight `[O, KH, KW, C]`; those of the images if `of_images`.
    pub(super) fn new(
        form: Form,
        channels: usize,
        windows: &Windows,
        weight: &[f32],
        outputs: usize,
        activation: Activation,
        of_images: bool,
    ) -> Self {
        let walk = Walk::new(form, channels, windows);
        let sums = Sums::new(windows, outputs, of_images);
        let group = group(windows);
        Self {
            windows: *windows,
            channels,
            outputs,
            activation,
            segments: sums.segments(&walk, group),
            to: (0..walk.taps.len()).map(|tap| tap * outputs).collect(),
            phases: of_images.then(|| phases(windows, channels, &sums, weight, group)),
            walk,
            sums,
            group,
        }
    }

    /// Numbers that [`Self::add`] adds to.
    pub(super) fn parameters(&self) -> usize {
        (self.walk.taps.len() + 1) * self.outputs
    }

    /// Adds the gradients of weight and bias by some images to `partial`, given those of the output, `grad`: both it and `y`
    /// are `[N, OH, OW, O]`. Overwrites `d_images` `[N, H, W, C]`, where wanted, with those of the images.
    pub(super) fn add(
        &self,
        images: Images<'_>,
        y: &[f32],
        grad: &[f32],
        mut d_images: Option<&mut [f32]>,
        partial: &mut [f32],
    ) {
        let (windows, walk, group) = (&self.windows, &self.walk, self.group);
        let size = windows.count() * self.outputs;
        let (of_weight, of_bias) = partial.split_at_mut(walk.taps.len() * self.outputs);
        let most = group.min(grad.len() / size);
        let mut scratch = Scratch::new(walk.scratch(most));
        let mut dz = Scratch::zeros(self.sums.size * most);
        for (part, (y, grad)) in y.chunks(group * size).zip(grad.chunks(group * size)).enumerate() {
            let (first, count) = (part * group, y.len() / size);
            self.sums.gradient(y, grad, self.activation, &mut dz, of_bias);
            let data = walk.prepare(images, first, count, windows, &mut scratch);
            let segments = &self.segments[..count * windows.output[0]];
            for segments in segments.chunks((CACHED / self.sums.row(windows)).max(1)) {
                let left =
                    Left { data, rows: &walk.taps, segments, length: windows.output[1], step: walk.steps[0] };
                let ends = Ends { bias: &[], add: true, rectify: false };
                product(left, &dz, self.outputs, ends, &self.to, of_weight);
            }
            let (Some(d_images), Some(phases)) = (&mut d_images, &self.phases) else { continue };
            let of_group = first * walk.numbers..(first + count) * walk.numbers;
            let d_images = &mut d_images[of_group.clone()];
            if phases.len() < windows.geometry.stride.iter().product() {
                d_images.fill(0.0);
            }
            for phase in phases {
                phase.apply(&dz, self.channels, d_images);
            }
            if let Images::Rectified(images) = images {
                rectified_gradient(&images[of_group], d_images);
            }
        }
    }

    /// What was added up, in the order of the parameters: writes `d_weight` `[O, KH, KW, C]` and `d_bias` `[O]`.
    pub(super) fn finish(&self, partial: &[f32], d_weight: &mut [f32], d_bias: &mut [f32]) {
        let (of_weight, of_bias) = partial.split_at(self.walk.taps.len() * self.outputs);
        d_bias.copy_from_slice(of_bias);
        for (output, d_weight) in d_weight.chunks_exact_mut(self.walk.order.len()).enumerate() {
            for (row, at) in self.walk.order.iter().enumerate() {
                d_weight[*at] = of_weight[row * self.outputs + output];
            }
        }
    }
}

/// Overwrites `total` by the sums of `parts`, which lie one after another, in their order.
pub(super) fn total(parts: &[f32], total: &mut [f32]) {
    total.fill(0.0);
    for part in parts.chunks_exact(total.len()) {
        total.iter_mut().zip(part).for_each(|(sum, x)| *sum += x);
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
    /// Writes the gradients of this phase's pixels of as many images as `d_images` has.
    fn apply(&self, dz: &[f32], channels: usize, d_images: &mut [f32]) {
        // Rows are in the order of images: leave out those of images that are not there.
        let rows = self.to.partition_point(|to| *to < d_images.len());
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
    pub(super) fn rectified_gradient(numbers: &[f32], grad: &mut [f32]) = rectified_gradient_body;
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
