//! The matrix product that convolutions are made of, whose left factor stays where it is in the image.
//!
//! `C[i, :] = start + sum_p A[i, p] B[p, :]`, where row `i` of `A` begins at an offset of its own and all rows follow the
//! same path from there: segments of equally spaced numbers. A window of an image is such a row, for the pixels of one of
//! its lines lie together; so is, for the gradient of a weight, everything that weight was multiplied with.

use crate::kernels::simd::{Simd, dispatch};

/// A stretch of depth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    /// Where it begins in the left factor, from the row's offset.
    pub(super) left: usize,
    /// The row of the right factor that it begins with.
    pub(super) right: usize,
}

/// The left factor.
#[derive(Debug, Clone, Copy)]
pub(super) struct Left<'a> {
    pub(super) data: &'a [f32],
    /// Where each row begins.
    pub(super) rows: &'a [usize],
    pub(super) segments: &'a [Segment],
    /// Numbers of a segment.
    pub(super) length: usize,
    /// From one number of a segment to the next.
    pub(super) step: usize,
}

/// What the sums start from, and what becomes of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends<'a> {
    /// A number for each column, or none.
    pub(super) bias: &'a [f32],
    /// Whether the product is added to what it is written over.
    pub(super) add: bool,
    /// Whether negative results become 0.
    pub(super) rectify: bool,
}

/// A number of columns as it is stored in a right factor: whole vectors.
pub(super) fn whole_columns(columns: usize) -> usize {
    columns.next_multiple_of(crate::kernels::matmul::lanes())
}

dispatch! {
    /// Computes a product of `columns` columns. `right` is `[depth, whole_columns(columns)]`, padded by anything finite; row
    /// `i` of the product goes to `out[to[i]..][..columns]`.
    ///
    /// # Panics
    /// If a slice is too short.
    pub(super) fn product(left: Left<'_>, right: &[f32], columns: usize, ends: Ends<'_>, to: &[usize], out: &mut [f32]) = product_body;
}

#[inline(always)]
fn product_body<S: Simd>(
    left: Left<'_>,
    right: &[f32],
    columns: usize,
    ends: Ends<'_>,
    to: &[usize],
    out: &mut [f32],
) {
    let stride = columns.next_multiple_of(S::LANES);
    let greatest = |offsets: &[usize]| offsets.iter().copied().max();
    assert_eq!(left.rows.len(), to.len(), "a product has as many rows as its left factor");
    let (Some(last_row), Some(last_to)) = (greatest(left.rows), greatest(to)) else { return };
    if left.length > 0 {
        let last = left.segments.iter().map(|segment| segment.left).max().unwrap_or(0);
        let reach = last_row + last + (left.length - 1) * left.step;
        assert!(left.segments.is_empty() || reach < left.data.len(), "left factor is too short");
        let depth = left.segments.iter().map(|segment| segment.right + left.length).max().unwrap_or(0);
        assert!(right.len() >= depth * stride, "right factor is too short");
    }
    assert!(out.len() >= last_to + columns, "product is too short");
    assert!(ends.bias.is_empty() || ends.bias.len() >= columns, "bias is too short");
    let tiles = Tiles {
        left,
        right: right.as_ptr(),
        stride,
        columns,
        bias: ends.bias,
        add: ends.add,
        rectify: ends.rectify,
        to,
        out: out.as_mut_ptr(),
    };
    let mut column = 0;
    while column < columns {
        let vectors = (stride - column) / S::LANES;
        // SAFETY: the assertions above cover all that rows, segments and offsets reach; columns from `column` on, as many
        // vectors as there are.
        unsafe {
            // Higher tiles of one and two vectors are ones that the compiler no longer holds in registers.
            if vectors >= 4 && S::TILE_VECTORS >= 4 {
                tiles.panel::<S, 6, 4>(column);
                column += 4 * S::LANES;
            } else if vectors >= 2 && S::TILE_VECTORS >= 4 {
                tiles.panel::<S, 8, 2>(column);
                column += 2 * S::LANES;
            } else if vectors >= 2 {
                tiles.panel::<S, 6, 2>(column);
                column += 2 * S::LANES;
            } else {
                tiles.panel::<S, 8, 1>(column);
                column += S::LANES;
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Tiles<'a> {
    left: Left<'a>,
    right: *const f32,
    stride: usize,
    columns: usize,
    bias: &'a [f32],
    add: bool,
    rectify: bool,
    to: &'a [usize],
    out: *mut f32,
}

impl Tiles<'_> {
    /// All rows of the product, `VECTORS` vectors of columns from `column` on.
    ///
    /// # Safety
    /// As [`Self::tile`], for all rows.
    #[inline(always)]
    unsafe fn panel<S: Simd, const ROWS: usize, const VECTORS: usize>(self, column: usize) {
        let mut row = 0;
        while row < self.to.len() {
            // SAFETY: the caller's.
            unsafe { self.tile::<S, ROWS, VECTORS>(row, column) };
            row += ROWS;
        }
    }

    /// One tile: `ROWS` rows from `row` on, or as many as are left.
    ///
    /// # Safety
    /// The pointers must cover what the rows, segments and columns of the tile reach; only below `dispatch!`.
    #[inline(always)]
    unsafe fn tile<S: Simd, const ROWS: usize, const VECTORS: usize>(self, row: usize, column: usize) {
        let rows = self.to.len() - row;
        // Columns of the last vector that belong to the product.
        let last = (self.columns - column - (VECTORS - 1) * S::LANES).min(S::LANES);
        // Rows that are not there are the last one once more, whose sums are not kept.
        let mut from = [self.left.data.as_ptr(); ROWS];
        let mut to = [0; ROWS];
        for r in 0..ROWS {
            let at = row + r.min(rows - 1);
            from[r] = from[r].wrapping_add(self.left.rows[at]);
            to[r] = self.to[at] + column;
        }
        // SAFETY: the caller vouches for every row, depth and column; masked reads and writes touch no lane beyond.
        unsafe {
            let mut sums = [[S::zero(); VECTORS]; ROWS];
            if !self.bias.is_empty() {
                for v in 0..VECTORS {
                    let bias = self.bias.as_ptr().add(column + v * S::LANES);
                    let bias = if v + 1 < VECTORS || last == S::LANES {
                        S::load(bias)
                    } else {
                        S::load_first(bias, last)
                    };
                    for sums in &mut sums {
                        sums[v] = bias;
                    }
                }
            }
            for segment in self.left.segments {
                let mut left = from;
                for left in &mut left {
                    *left = left.wrapping_add(segment.left);
                }
                let mut right = self.right.add(segment.right * self.stride + column);
                let mut at = 0;
                for _ in 0..self.left.length {
                    let mut factors = [S::zero(); VECTORS];
                    for (v, factor) in factors.iter_mut().enumerate() {
                        *factor = S::load(right.add(v * S::LANES));
                    }
                    for r in 0..ROWS {
                        let a = S::splat(*left[r].add(at));
                        for v in 0..VECTORS {
                            sums[r][v] = S::fma(a, factors[v], sums[r][v]);
                        }
                    }
                    at += self.left.step;
                    right = right.wrapping_add(self.stride);
                }
            }
            for (sums, to) in sums.iter().zip(to).take(rows) {
                for (v, sum) in sums.iter().enumerate() {
                    let at = to + v * S::LANES;
                    let whole = v + 1 < VECTORS || last == S::LANES;
                    let mut sum = *sum;
                    if self.add {
                        let more = self.out.add(at);
                        let more = if whole { S::load(more) } else { S::load_first(more, last) };
                        sum = S::add(sum, more);
                    }
                    if self.rectify {
                        sum = S::rectify(sum);
                    }
                    if whole {
                        S::store(self.out.add(at), sum);
                    } else {
                        S::store_first(self.out.add(at), sum, last);
                    }
                }
            }
        }
    }
}
