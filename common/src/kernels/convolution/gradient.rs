//! Gradients of a convolution, in blocks of images.
//!
//! That of the weight is a product whose depth runs over windows: each number of a window, times the gradient of the sums. That
//! of the images is itself a convolution, of the gradient of the sums: pixels whose row and column leave the
//! same remainders by the stride are covered by the same numbers of the weight, so each such phase is one of stride 1.

use std::ops::Range;

use super::forward::repeated;
use super::geometry::Windows;
use super::images::{Form, Images, Walk};
use super::product::{Ends, Left, Segment, product, whole_columns};
use super::run::add;
use crate::kernels::threads::{Scratch, share_out};
use crate::kernels::{Activation, Isa, dispatch};

/// Numbers of the sums' gradient that stay in the first-level cache beside what they are multiplied with.
const CACHED: usize = 6000;

/// Windows of a group of images, where there are as many: pixels of a group that are covered alike then fill whole tiles, even
/// where an image has but one of them.
const WINDOWS: usize = 1000;

/// Images of a group at most.
const GROUP: usize = 12;

/// Numbers from which on adding them up is worth the start of threads.
const PARALLEL_NUMBERS: usize = 1 << 19;

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
        let sums = Sums::new(windows, outputs);
        let group = (WINDOWS / windows.count()).clamp(1, GROUP);
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
            for segments in segments.chunks((CACHED / self.sums.row()).max(1)) {
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
    let len = total.len();
    let pieces = total.chunks_mut(CACHED).enumerate();
    share_out(pieces, parts.len() >= PARALLEL_NUMBERS, |(at, piece)| {
        piece.fill(0.0);
        for part in parts.chunks_exact(len) {
            add(&part[at * CACHED..][..piece.len()], piece);
        }
    });
}

/// How the gradient of the sums is laid out: `[G, OH, OW, outputs in whole vectors]`.
struct Sums {
    outputs: usize,
    /// Outputs in whole vectors.
    whole: usize,
    /// Rows and columns of windows.
    windows: [usize; 2],
    /// Numbers of an image.
    size: usize,
}

impl Sums {
    fn new(windows: &Windows, outputs: usize) -> Self {
        let whole = whole_columns(outputs);
        Self { outputs, whole, windows: windows.output, size: windows.count() * whole }
    }

    /// Numbers of a row of windows.
    fn row(&self) -> usize {
        self.windows[1] * self.whole
    }

    /// Computes the gradient of the sums for some images, and adds it up into `of_bias`.
    fn gradient(&self, y: &[f32], grad: &[f32], activation: Activation, dz: &mut [f32], of_bias: &mut [f32]) {
        let images = y.len() / (self.windows[0] * self.windows[1] * self.outputs);
        sums_gradient(y, grad, activation, &mut dz[..images * self.size], of_bias);
    }

    /// The path of the weight's gradient through `count` images: a segment for each row of windows.
    fn segments(&self, walk: &Walk, count: usize) -> Vec<Segment> {
        let segment = |image: usize, row: usize| Segment {
            left: image * walk.size + row * walk.steps[1],
            right: (image * self.windows[0] + row) * self.windows[1],
        };
        (0..count).flat_map(|image| (0..self.windows[0]).map(move |row| segment(image, row))).collect()
    }
}

/// Pixels whose row and column leave the same remainders by the stride, which the same numbers of the weight cover.
struct Phase {
    /// Those numbers, as a right factor `[rows * columns * O, C]`.
    right: Scratch,
    /// By the windows that there are of those that would cover a pixel.
    parts: Vec<Covered>,
}

/// Pixels that are covered by windows of the same rows and columns, counted from the first one that would cover them.
struct Covered {
    /// For each such pixel of a group of images: where the gradient of its windows is, and where the pixel is.
    rows: Vec<usize>,
    to: Vec<usize>,
    /// A segment for each row of windows.
    segments: Vec<Segment>,
    length: usize,
}

impl Phase {
    /// Writes the gradients of this phase's pixels of as many images as `d_images` has.
    fn apply(&self, dz: &[f32], channels: usize, d_images: &mut [f32]) {
        for Covered { rows, to, segments, length } in &self.parts {
            // Rows are in the order of images: leave out those of images that are not there.
            let count = to.partition_point(|to| *to < d_images.len());
            let left = Left { data: dz, rows: &rows[..count], segments, length: *length, step: 1 };
            let ends = Ends { bias: &[], add: false, rectify: false };
            product(left, &self.right, channels, ends, &to[..count], d_images);
        }
    }
}

/// The phases that have any window, with their parts of the weight, for groups of `group` images.
fn phases(windows: &Windows, channels: usize, sums: &Sums, weight: &[f32], group: usize) -> Vec<Phase> {
    let stride = windows.geometry.stride;
    let [kernel_height, kernel_width] = windows.kernel;
    let whole = whole_columns(channels);
    let mut phases = vec![];
    for a in 0..stride[0].min(kernel_height) {
        for b in 0..stride[1].min(kernel_width) {
            // Windows that would cover a pixel of this phase, in either direction.
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
            let vertical = lines(windows, 0, a, rows);
            let horizontal = lines(windows, 1, b, columns);
            let parts = vertical.iter().flat_map(|down| {
                horizontal
                    .iter()
                    .map(move |across| Covered::new(windows, channels, sums, group, columns, [down, across]))
            });
            phases.push(Phase { right, parts: parts.collect() });
        }
    }
    phases
}

/// Rows, or columns, of pixels that windows at the same places cover.
struct Lines {
    /// Which of the windows that would cover a pixel there are.
    there: Range<usize>,
    /// Each pixel with the first window that covers it.
    pixels: Vec<(usize, usize)>,
}

/// The pixels along `axis` that leave `remainder`, which `count` windows would cover, by those that do.
fn lines(windows: &Windows, axis: usize, remainder: usize, count: usize) -> Vec<Lines> {
    let (stride, padding) = (windows.geometry.stride[axis], windows.geometry.padding[axis]);
    let mut lines: Vec<Lines> = vec![];
    for pixel in (0..windows.input[axis]).filter(|pixel| (pixel + padding) % stride == remainder) {
        // The last window that would cover it; the first one is `count - 1` before that, perhaps before all others.
        let last = (pixel + padding) / stride;
        let (first, end) = ((last + 1).saturating_sub(count), (last + 1).min(windows.output[axis]));
        let (first, there) = match first < end {
            true => (first, first + count - (last + 1)..end + count - (last + 1)),
            false => (0, 0..0),
        };
        match lines.iter_mut().find(|lines| lines.there == there) {
            Some(lines) => lines.pixels.push((pixel, first)),
            None => lines.push(Lines { there, pixels: vec![(pixel, first)] }),
        }
    }
    lines
}

impl Covered {
    /// The pixels of some rows and columns, of a phase whose pixels `columns` windows would cover side by side.
    fn new(
        windows: &Windows,
        channels: usize,
        sums: &Sums,
        group: usize,
        columns: usize,
        [down, across]: [&Lines; 2],
    ) -> Self {
        let (mut from, mut to) = (vec![], vec![]);
        for (y, row) in &down.pixels {
            for (x, column) in &across.pixels {
                from.push(row * sums.row() + column * sums.whole);
                to.push((y * windows.input[1] + x) * channels);
            }
        }
        let segment = |(at, t): (usize, usize)| Segment {
            left: at * sums.row(),
            right: (t * columns + across.there.start) * sums.whole,
        };
        Self {
            rows: repeated(&from, group, sums.size),
            to: repeated(&to, group, windows.pixels() * channels),
            segments: down.there.clone().enumerate().map(segment).collect(),
            length: across.there.len() * sums.whole,
        }
    }
}

dispatch! {
    /// The gradient of sums, from that of what the activation made of them, and its sums by output.
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
