//! The screen that a game draws itself on: cells of an observation, by column, row and channel.

use super::SIDE;

/// An observation `[10, 10, C]` in the making.
#[derive(Debug)]
pub struct Screen<'a> {
    cells: &'a mut [u8],
    channels: usize,
}

impl<'a> Screen<'a> {
    /// An empty screen of `channels` planes in the room of an observation.
    ///
    /// # Panics
    /// If the room is for another number of cells, which a vector rules out before it steps.
    #[inline]
    pub fn clear(cells: &'a mut [u8], channels: usize) -> Self {
        assert_eq!(
            cells.len(),
            SIDE * SIDE * channels,
            "an observation has a cell for each place and channel"
        );
        cells.fill(0);
        Self { cells, channels }
    }

    /// Puts a thing into a cell; one that lies beside the screen is not seen.
    #[inline]
    pub fn put(&mut self, x: i32, y: i32, channel: usize) {
        let inside = |at: i32| usize::try_from(at).ok().filter(|&at| at < SIDE);
        if let (Some(x), Some(y)) = (inside(x), inside(y)) {
            self.cells[(y * SIDE + x) * self.channels + channel] = 1;
        }
    }

    /// Puts a thing into every cell that is set in `rows`: bit x of `rows[y]` is the cell in column x and row y.
    #[inline]
    pub fn put_rows(&mut self, rows: &[u16; SIDE], channel: usize) {
        for (y, &row) in rows.iter().enumerate() {
            let mut left = row;
            while left != 0 {
                let x = left.trailing_zeros() as usize;
                self.cells[(y * SIDE + x) * self.channels + channel] = 1;
                left &= left - 1;
            }
        }
    }
}
