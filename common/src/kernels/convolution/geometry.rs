//! Which pixels of an image the windows of a convolution or pooling cover.

use candle_core::Result;

/// Geometry of a convolution or pooling, in rows and columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Geometry {
    /// Pixels from one window to the next.
    pub stride: [usize; 2],
    /// Pixels added at either side, which count as zero in a convolution and as nothing in a pooling.
    pub padding: [usize; 2],
}

impl Geometry {
    /// The same stride and padding in both directions.
    pub fn square(stride: usize, padding: usize) -> Self {
        Self { stride: [stride; 2], padding: [padding; 2] }
    }

    /// Height and width of what windows of `kernel` pixels give over images of `input` pixels.
    ///
    /// # Errors
    /// If a stride or a window's size is 0, or the padded images are smaller than a window.
    pub fn output(&self, input: [usize; 2], kernel: [usize; 2]) -> Result<[usize; 2]> {
        let along = |axis: usize| {
            let padded = input[axis] + 2 * self.padding[axis];
            let fits = self.stride[axis] > 0 && kernel[axis] > 0 && padded >= kernel[axis];
            fits.then(|| (padded - kernel[axis]) / self.stride[axis] + 1)
        };
        match (along(0), along(1)) {
            (Some(height), Some(width)) => Ok([height, width]),
            _ => candle_core::bail!(
                "windows of {kernel:?} pixels do not fit images of {input:?} pixels with stride {:?} and padding {:?}",
                self.stride,
                self.padding
            ),
        }
    }
}

/// The windows of a convolution or pooling over one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Windows {
    /// Height and width of the image.
    pub(super) input: [usize; 2],
    /// Height and width of a window.
    pub(super) kernel: [usize; 2],
    pub(super) geometry: Geometry,
    /// Rows and columns of windows.
    pub(super) output: [usize; 2],
}

impl Windows {
    /// # Errors
    /// As [`Geometry::output`].
    pub(super) fn new(input: [usize; 2], kernel: [usize; 2], geometry: Geometry) -> Result<Self> {
        Ok(Self { input, kernel, geometry, output: geometry.output(input, kernel)? })
    }

    /// Pixels of the image.
    pub(super) fn pixels(&self) -> usize {
        self.input[0] * self.input[1]
    }

    /// Height and width of the image with the padding around it.
    pub(super) fn padded(&self) -> [usize; 2] {
        [0, 1].map(|axis| self.input[axis] + 2 * self.geometry.padding[axis])
    }

    /// How many windows there are.
    pub(super) fn count(&self) -> usize {
        self.output[0] * self.output[1]
    }

    /// Where in the image, along `axis`, pixel `at` of window `window` is; none in the padding.
    #[inline(always)]
    pub(super) fn pixel(&self, axis: usize, window: usize, at: usize) -> Option<usize> {
        let padded = window * self.geometry.stride[axis] + at;
        padded.checked_sub(self.geometry.padding[axis]).filter(|pixel| *pixel < self.input[axis])
    }
}
