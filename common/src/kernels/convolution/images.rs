//! Images as the product reads them: floats, with the padding around them, and where its windows are.

use super::PixelOrder;
use super::geometry::Windows;
use super::product::Segment;
use super::run::rectify;
use crate::kernels::{Isa, dispatch};

/// The memory of images.
#[derive(Clone, Copy)]
pub(super) enum Images<'a> {
    Floats(&'a [f32]),
    /// Of which negative ones count as 0.
    Rectified(&'a [f32]),
    Bytes {
        bytes: &'a [u8],
        order: PixelOrder,
        scale: f32,
    },
}

impl<'a> Images<'a> {
    /// `count` numbers from number `first` on: whole images.
    pub(super) fn part(self, first: usize, count: usize) -> Self {
        match self {
            Self::Floats(numbers) => Self::Floats(&numbers[first..][..count]),
            Self::Rectified(numbers) => Self::Rectified(&numbers[first..][..count]),
            Self::Bytes { bytes, order, scale } => {
                Self::Bytes { bytes: &bytes[first..][..count], order, scale }
            }
        }
    }

    /// Their numbers as they lie; bytes have none.
    pub(super) fn floats(self) -> &'a [f32] {
        match self {
            Self::Floats(numbers) | Self::Rectified(numbers) => numbers,
            Self::Bytes { .. } => &[],
        }
    }
}

/// How images lie, as far as a convolution's walk depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Channels last, read where they are unless padding must be put around them.
    Floats,
    /// Channels last, after something was done to each number.
    Prepared,
    /// A plane for each channel.
    Planes,
}

/// How a convolution walks over prepared images.
pub(super) struct Walk {
    /// Numbers of an image.
    pub(super) numbers: usize,
    /// Numbers of a prepared image.
    pub(super) size: usize,
    /// `[OH OW]`: where in it each window begins.
    pub(super) windows: Vec<usize>,
    /// The rows of a window.
    pub(super) rows: Vec<Segment>,
    /// Numbers of such a row.
    pub(super) row: usize,
    /// From one window to the next in a row of windows, and from one row of windows to the next.
    pub(super) steps: [usize; 2],
    /// `[K]`: where in a window each number lies, in the order in which the product meets them.
    pub(super) taps: Vec<usize>,
    /// `[K]`: the same numbers' places in a weight `[KH, KW, C]`.
    pub(super) order: Vec<usize>,
    /// Images are read where they are.
    direct: bool,
}

impl Walk {
    pub(super) fn new(form: Form, channels: usize, windows: &Windows) -> Self {
        let [kernel_height, kernel_width] = windows.kernel;
        let [height, width] = windows.padded();
        let [down, right] = windows.geometry.stride;
        let planar = form == Form::Planes;
        let (planes, depth) = if planar { (channels, 1) } else { (1, channels) };
        let row = kernel_width * depth;
        let mut rows = vec![];
        let mut order = vec![];
        for plane in 0..planes {
            for y in 0..kernel_height {
                rows.push(Segment { left: (plane * height + y) * width * depth, right: rows.len() * row });
                order.extend((0..row).map(|at| match planar {
                    true => (y * kernel_width + at) * channels + plane,
                    false => y * row + at,
                }));
            }
        }
        let steps = [right * depth, down * width * depth];
        let [out_height, out_width] = windows.output;
        Self {
            numbers: windows.pixels() * channels,
            size: height * width * channels,
            windows: (0..out_height * out_width)
                .map(|at| at / out_width * steps[1] + at % out_width * steps[0])
                .collect(),
            taps: rows.iter().flat_map(|segment| (0..row).map(move |at| segment.left + at)).collect(),
            rows,
            row,
            steps,
            order,
            direct: form == Form::Floats && windows.geometry.padding == [0, 0],
        }
    }

    /// Numbers of scratch memory that [`Self::prepare`] needs for `count` images.
    pub(super) fn scratch(&self, count: usize) -> usize {
        if self.direct { 0 } else { self.size * count }
    }

    /// `count` images from image `first` on, prepared.
    pub(super) fn prepare<'a>(
        &self,
        images: Images<'a>,
        first: usize,
        count: usize,
        windows: &Windows,
        scratch: &'a mut [f32],
    ) -> &'a [f32] {
        if let (Images::Floats(numbers), true) = (images, self.direct) {
            return &numbers[first * self.size..][..count * self.size];
        }
        for (at, out) in scratch[..count * self.size].chunks_exact_mut(self.size).enumerate() {
            if windows.geometry.padding != [0, 0] {
                out.fill(0.0);
            }
            place(images, first + at, windows, out);
        }
        &scratch[..count * self.size]
    }
}

/// Writes image `image` into `out`, whose padding it leaves alone.
fn place(images: Images<'_>, image: usize, windows: &Windows, out: &mut [f32]) {
    let ([height, width], [padded_height, padded_width]) = (windows.input, windows.padded());
    let [top, left] = windows.geometry.padding;
    let channels = out.len() / (padded_height * padded_width);
    let size = height * width * channels;
    if (top, left) == (0, 0) {
        return write(images, image * size, out);
    }
    // A plane of its own for each channel, or one for all.
    let (planes, depth) = match images {
        Images::Bytes { order: PixelOrder::Planar, .. } => (channels, 1),
        _ => (1, channels),
    };
    for plane in 0..planes {
        for y in 0..height {
            let from = image * size + (plane * height + y) * width * depth;
            let to = ((plane * padded_height + top + y) * padded_width + left) * depth;
            write(images, from, &mut out[to..][..width * depth]);
        }
    }
}

/// Fills `out` with the numbers of `images` from `from` on.
fn write(images: Images<'_>, from: usize, out: &mut [f32]) {
    match images {
        Images::Floats(numbers) => out.copy_from_slice(&numbers[from..][..out.len()]),
        Images::Rectified(numbers) => rectify(&numbers[from..][..out.len()], out),
        Images::Bytes { bytes, scale, .. } => widen(&bytes[from..][..out.len()], scale, out),
    }
}

dispatch! {
    fn widen(bytes: &[u8], scale: f32, out: &mut [f32]) = widen_body;
}

#[inline(always)]
fn widen_body<S: Isa>(bytes: &[u8], scale: f32, out: &mut [f32]) {
    for (out, byte) in out.iter_mut().zip(bytes) {
        *out = f32::from(*byte) * scale;
    }
}
