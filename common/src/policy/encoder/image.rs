//! Which observations are images, and how their numbers lie.
//!
//! A box of two dimensions is `[H, W]`, one channel. Of one with three, channels come last (`[H, W, C]`, as cameras and
//! screens give them) unless the first dimension is smaller than the last: `[4, 84, 84]` are four planes of 84 x 84 pixels.
//! `policy.image_layout` settles it where the sizes mislead.

use crate::config::ImageLayout;
use crate::kernels::PixelOrder;
use crate::space::{ElementType, Space};

/// Pixels either way from which on a box counts as an image by itself.
const LEAST_SIDE: usize = 5;

/// The sizes of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Image {
    /// H: rows of pixels.
    pub height: usize,
    /// W: pixels of a row.
    pub width: usize,
    /// C: numbers of a pixel.
    pub channels: usize,
    /// How the numbers of an observation lie.
    pub order: PixelOrder,
}

impl Image {
    /// The image that observations from `space` can be taken for, if they have two or three dimensions.
    pub fn of(space: &Space, layout: ImageLayout) -> Option<Self> {
        let Space::Box { shape, .. } = space else { return None };
        let image = |height, width, channels, order| Self { height, width, channels, order };
        let image = match (shape.as_slice(), layout) {
            (&[height, width], _) => image(height, width, 1, PixelOrder::Interleaved),
            (&[first, second, third], ImageLayout::ChannelsFirst) => {
                image(second, third, first, PixelOrder::Planar)
            }
            (&[first, second, third], ImageLayout::Auto) if first < third => {
                image(second, third, first, PixelOrder::Planar)
            }
            (&[first, second, third], _) => image(first, second, third, PixelOrder::Interleaved),
            _ => return None,
        };
        (!space.is_empty()).then_some(image)
    }

    /// Whether observations from `space`, whose image this is, are pictures in all likelihood: of three dimensions, or bytes
    /// of two, and not tiny. A table of real numbers is none.
    pub fn is_likely(&self, space: &Space) -> bool {
        let pictures = space.shape().len() == 3 || space.dtype() == ElementType::U8;
        pictures && self.height.min(self.width) >= LEAST_SIDE
    }

    /// Shape of `images` of them, as their numbers lie.
    pub fn shape(&self, images: usize) -> [usize; 4] {
        let Self { height, width, channels, order } = *self;
        match order {
            PixelOrder::Planar => [images, channels, height, width],
            PixelOrder::Interleaved => [images, height, width, channels],
        }
    }

    /// `[H, W]`.
    pub fn size(&self) -> [usize; 2] {
        [self.height, self.width]
    }
}

impl std::fmt::Display for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let order = match self.order {
            PixelOrder::Planar => "planes",
            PixelOrder::Interleaved => "channels",
        };
        write!(f, "{} x {} pixels in {} {order}", self.height, self.width, self.channels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(shape: &[usize], dtype: ElementType) -> Space {
        let len = shape.iter().product();
        Space::Box { low: vec![0.0; len], high: vec![1.0; len], shape: shape.into(), dtype }
    }

    #[test]
    fn the_smaller_of_first_and_last_dimension_counts_channels_unless_told_otherwise() {
        use PixelOrder::{Interleaved, Planar};
        let of = |shape: &[usize], layout| {
            let image = Image::of(&space(shape, ElementType::U8), layout)?;
            Some((image.height, image.width, image.channels, image.order))
        };
        let auto = |shape: &[usize]| of(shape, ImageLayout::Auto);
        assert_eq!(auto(&[210, 160, 3]), Some((210, 160, 3, Interleaved)));
        assert_eq!(auto(&[4, 84, 84]), Some((84, 84, 4, Planar)));
        assert_eq!(auto(&[10, 10, 7]), Some((10, 10, 7, Interleaved)));
        assert_eq!(auto(&[10, 10, 10]), Some((10, 10, 10, Interleaved)), "in doubt channels come last");
        assert_eq!(auto(&[84, 84]), Some((84, 84, 1, Interleaved)));
        assert_eq!(of(&[10, 10, 16], ImageLayout::Auto), Some((10, 16, 10, Planar)), "sizes mislead");
        assert_eq!(of(&[10, 10, 16], ImageLayout::ChannelsLast), Some((10, 10, 16, Interleaved)));
        assert_eq!(of(&[9, 8, 7], ImageLayout::ChannelsFirst), Some((8, 7, 9, Planar)));
        assert_eq!(auto(&[16]), None);
        assert_eq!(auto(&[2, 3, 4, 5]), None);
        assert_eq!(auto(&[0, 8, 8]), None);
        assert_eq!(Image::of(&Space::Discrete { n: 4 }, ImageLayout::Auto), None);
    }

    #[test]
    fn tables_of_real_numbers_and_tiny_boxes_are_no_pictures() {
        let likely = |shape: &[usize], dtype| {
            let space = space(shape, dtype);
            Image::of(&space, ImageLayout::Auto).is_some_and(|image| image.is_likely(&space))
        };
        assert!(likely(&[84, 84], ElementType::U8) && likely(&[7, 7, 3], ElementType::F32));
        assert!(!likely(&[84, 84], ElementType::F32));
        assert!(!likely(&[4, 4, 3], ElementType::U8));
    }
}
