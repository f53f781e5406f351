//! [`Picture`]: what an environment draws of its state, for people to look at.

/// A colour: red, green, blue.
pub type Colour = [u8; 3];

/// Pixels, row by row from the top.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    width: usize,
    height: usize,
    /// `[height, width, 3]`.
    pixels: Vec<u8>,
    /// Seconds for which it is to be seen.
    seconds: f64,
}

impl Picture {
    /// An empty picture of one colour, to be seen for `seconds`.
    pub fn new(width: usize, height: usize, colour: Colour, seconds: f64) -> Self {
        Self { width, height, pixels: colour.repeat(width * height), seconds }
    }

    /// A picture of `pixels`, `[height, width, 3]`, to be seen for `seconds`.
    ///
    /// # Panics
    /// If there are more or fewer pixels.
    pub fn of_pixels(width: usize, height: usize, pixels: Vec<u8>, seconds: f64) -> Self {
        assert_eq!(pixels.len(), 3 * width * height, "three bytes for each pixel of {width} x {height}");
        Self { width, height, pixels, seconds }
    }

    /// Pixels in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Red, green and blue of each pixel, row by row.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// Seconds for which it is to be seen.
    pub fn seconds(&self) -> f64 {
        self.seconds
    }

    /// Paints every pixel whose centre satisfies `inside`; x goes right and y down, in pixels. Only those in the rectangle from
    /// `from` to `to` are asked.
    fn paint(&mut self, from: [f64; 2], to: [f64; 2], colour: Colour, inside: impl Fn(f64, f64) -> bool) {
        // A negative number becomes 0, one that is none, too.
        let range = |low: f64, high: f64, end: usize| (low.floor() as usize)..(high.ceil() as usize).min(end);
        for row in range(from[1], to[1], self.height) {
            for column in range(from[0], to[0], self.width) {
                if inside(column as f64 + 0.5, row as f64 + 0.5) {
                    let at = 3 * (row * self.width + column);
                    self.pixels[at..at + 3].copy_from_slice(&colour);
                }
            }
        }
    }

    /// Paints the rectangle between two corners, the upper left and the lower right one.
    pub fn rectangle(&mut self, from: [f64; 2], to: [f64; 2], colour: Colour) {
        self.paint(from, to, colour, |x, y| (from[0]..to[0]).contains(&x) && (from[1]..to[1]).contains(&y));
    }

    /// Paints a line with round ends, all points no farther than `radius` from it; a disc where both ends are one.
    pub fn line(&mut self, a: [f64; 2], b: [f64; 2], radius: f64, colour: Colour) {
        let from = [a[0].min(b[0]) - radius, a[1].min(b[1]) - radius];
        let to = [a[0].max(b[0]) + radius, a[1].max(b[1]) + radius];
        let way = [b[0] - a[0], b[1] - a[1]];
        let squared = way[0] * way[0] + way[1] * way[1];
        self.paint(from, to, colour, |x, y| {
            let offset = [x - a[0], y - a[1]];
            let share = (offset[0] * way[0] + offset[1] * way[1]) / squared;
            // Both ends are one: the share is no number.
            let share = if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) };
            (offset[0] - share * way[0]).hypot(offset[1] - share * way[1]) <= radius
        });
    }
}

/// Colours as different as `count` of them can be, the `i`-th: around the circle of hues.
pub fn hue(i: usize, count: usize) -> Colour {
    let turn = i as f64 / count as f64;
    [0.0, 2.0, 4.0].map(|offset| {
        let wave = ((6.0 * turn + offset).rem_euclid(6.0) - 3.0).abs() - 1.0;
        (64.0 + 191.0 * wave.clamp(0.0, 1.0)) as u8
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RED: Colour = [255, 0, 0];

    fn count(picture: &Picture, colour: Colour) -> usize {
        picture.pixels().chunks_exact(3).filter(|pixel| **pixel == colour).count()
    }

    #[test]
    fn a_rectangle_covers_its_pixels_and_what_lies_outside_is_cut_off() {
        let mut picture = Picture::new(8, 6, [0; 3], 0.1);
        picture.rectangle([1.0, 2.0], [4.0, 4.0], RED);
        assert_eq!(count(&picture, RED), 6);
        assert_eq!(picture.pixels()[3 * (2 * 8 + 1)..][..3], RED);
        picture.rectangle([-5.0, -5.0], [50.0, 1.0], RED);
        assert_eq!(count(&picture, RED), 6 + 8);
        picture.rectangle([20.0, 20.0], [30.0, 30.0], RED);
        picture.line([f64::NAN, 0.0], [f64::NAN, 0.0], 2.0, RED);
        assert_eq!(count(&picture, RED), 6 + 8);
    }

    #[test]
    fn a_line_is_as_thick_as_it_should_be() {
        let mut picture = Picture::new(100, 100, [0; 3], 0.1);
        picture.line([50.0, 50.0], [50.0, 50.0], 20.0, RED);
        let disc = std::f64::consts::PI * 400.0;
        assert!((count(&picture, RED) as f64 - disc).abs() < 0.02 * disc);
        let mut picture = Picture::new(100, 100, [0; 3], 0.1);
        picture.line([20.0, 30.0], [83.0, 57.0], 3.0, RED);
        let line = 6.0 * 63f64.hypot(27.0) + std::f64::consts::PI * 9.0;
        assert!((count(&picture, RED) as f64 - line).abs() < 0.05 * line);
    }

    #[test]
    fn hues_differ() {
        let hues: Vec<Colour> = (0..10).map(|i| hue(i, 10)).collect();
        for (i, a) in hues.iter().enumerate() {
            for b in &hues[..i] {
                let apart: i32 = a.iter().zip(b).map(|(&x, &y)| (i32::from(x) - i32::from(y)).abs()).sum();
                assert!(apart > 60, "{a:?} and {b:?}");
            }
        }
    }
}
