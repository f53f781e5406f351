//! Matrix products of the sizes small networks have: thousands of rows, tens to hundreds of columns.
//!
//! `C[m, n] = init + A[m, k] B[k, n]`, where `A` may be read along either axis (so that `X W^T`, `dZ W` and
//! `dZ^T X` are all the same loop) and the rows of `B` and `C` are contiguous. A tile of `C` is held in
//! registers while the loop runs down `k`; each step broadcasts a column of `A` against a row of `B`.

use std::cell::RefCell;
use std::ops::Range;

use super::simd::{Simd, dispatch};
use super::threads::share_out;

/// Rows of a tile. With AVX-512, 6 x 4 vectors make 24 accumulators, 4 operands and a broadcast: 29 of 32 registers.
const TILE_ROWS: usize = 6;

/// Depth of a block: a block of `B`, 256 rows of 64 columns, fills the second-level cache's fast part and
/// the tile's rows of `A` stay in the first-level cache.
const DEPTH_BLOCK: usize = 256;

/// Floating-point operations from which on a product is worth the start of threads (about half a millisecond's work).
const PARALLEL_WORK: usize = 1 << 26;

/// Numbers from which on laying them out is worth the start of threads.
const PARALLEL_PACKING: usize = 1 << 18;

/// Panels from which on the left factor is laid out tile by tile for them.
const TILING_PANELS: usize = 4;

/// Tiles that a thread lays out at a time.
const TILES_A_JOB: usize = 32;

/// Pieces of work for each thread: where one of them is held up, the others do more.
const JOBS_A_THREAD: usize = 4;

/// The left factor `A`: element `(i, p)` is `data[i * row_stride + p * depth_stride]`.
#[derive(Clone, Copy)]
pub(super) struct Left<'a> {
    pub(super) data: &'a [f32],
    pub(super) row_stride: usize,
    pub(super) depth_stride: usize,
}

/// The right factor `B`, `[k, n]`.
#[derive(Clone, Copy)]
pub(super) enum Right<'a> {
    /// Row `p` is `data[p * n..][..n]`.
    Rows(&'a [f32]),
    /// As [`pack_transposed`] lays it out.
    Packed(&'a [f32]),
}

/// What the product is added to.
#[derive(Clone, Copy)]
pub(super) enum Init<'a> {
    /// Nothing.
    Zero,
    /// The same row of `n` numbers for every row of `C`.
    Row(&'a [f32]),
    /// What `C` holds.
    Accumulate,
}

/// `C = init + A B`: `m x n`, depth `k`; uses [`threads`](super::threads) threads where that pays.
///
/// # Panics
/// If a slice is too short for its shape.
pub(super) fn matmul(
    m: usize,
    n: usize,
    k: usize,
    left: Left<'_>,
    right: Right<'_>,
    init: Init<'_>,
    out: &mut [f32],
) {
    assert!(out.len() >= m * n, "product is too short");
    let product = Product { m, n, k, left, tiles: None, right, init, out: out.as_mut_ptr() };
    if 2 * m * n * k < PARALLEL_WORK {
        return product_part(product, 0..m, 0..n);
    }
    let (threads, panel) = (super::threads(), panel_width());
    let panels = n.div_ceil(panel);
    let mut tiles = TILES.take();
    let product = match panels >= TILING_PANELS && m >= 4 * TILE_ROWS {
        true => Product { tiles: Some(lay_out_tiles(m, k, left, &mut tiles)), ..product },
        false => product,
    };
    // Whole panels, which no two threads then copy; rows only where there are too few of them.
    let wanted = JOBS_A_THREAD * threads;
    let width = panels.div_ceil(wanted) * panel;
    let height = m.div_ceil(wanted.div_ceil(panels)).next_multiple_of(TILE_ROWS);
    let jobs: Vec<_> = (0..m)
        .step_by(height)
        .flat_map(|row| (0..n).step_by(width).map(move |column| (row, column)))
        .map(|(row, column)| (row..m.min(row + height), column..n.min(column + width)))
        .collect();
    share_out(jobs.into_iter(), threads > 1, |(rows, columns)| product_part(product, rows, columns));
    TILES.set(tiles);
}

/// Lays out the left factor `[m, k]` tile by tile, so that a tile's numbers are met in the order in which they lie. Whatever is multiplied by
/// many panels is read once with its strides then, instead of once a panel.
fn lay_out_tiles<'a>(m: usize, k: usize, left: Left<'_>, tiles: &'a mut Vec<f32>) -> &'a [f32] {
    assert!(left.data.len() >= extent(m, left.row_stride, k, left.depth_stride), "left factor is too short");
    let rows = m.next_multiple_of(TILE_ROWS);
    tiles.resize(rows * k, 0.0);
    let blocks = tiles.chunks_mut((rows * DEPTH_BLOCK).max(1)).enumerate();
    let jobs: Vec<_> = blocks
        .flat_map(|(block, tiles)| {
            let depth = block * DEPTH_BLOCK..k.min((block + 1) * DEPTH_BLOCK);
            let few = tiles.chunks_mut(TILES_A_JOB * TILE_ROWS * depth.len()).enumerate();
            few.map(move |(few, tiles)| (few * TILES_A_JOB * TILE_ROWS, depth.clone(), tiles))
        })
        .collect();
    share_out(jobs.into_iter(), true, |(row, depth, tiles)| lay_out(left, row..m, depth, tiles));
    tiles
}

/// A product, of which threads compute parts.
#[derive(Clone, Copy)]
struct Product<'a> {
    m: usize,
    n: usize,
    k: usize,
    left: Left<'a>,
    /// The left factor as [`lay_out_tiles`] lays it out, where that pays: for each block of depth, and in it for each tile, the rows' numbers of
    /// one depth after those of another.
    tiles: Option<&'a [f32]>,
    right: Right<'a>,
    init: Init<'a>,
    /// `[m, n]`.
    out: *mut f32,
}

// SAFETY: `matmul` borrows what `out` points to for as long as there are threads, and gives each of them elements of its own.
unsafe impl Send for Product<'_> {}
// SAFETY: as above.
unsafe impl Sync for Product<'_> {}

/// Lays out the transpose of `weight` `[n, k]` as [`Right::Packed`] wants it: panels of a tile's width, each `[k, width]`, the last
/// one's width rounded up to whole vectors and filled up with zeros.
pub(super) fn pack_transposed(weight: &[f32], n: usize, k: usize, packed: &mut Vec<f32>) {
    packed.resize(n.next_multiple_of(lanes()) * k, 0.0);
    let panel = panel_width() * k.max(1);
    let panels = weight[..n * k].chunks(panel).zip(packed.chunks_mut(panel));
    share_out(panels, n * k >= PARALLEL_PACKING, |(rows, packed)| pack_panel(rows, k, packed));
}

dispatch! {
    fn product_part(product: Product<'_>, rows: Range<usize>, columns: Range<usize>) = product_part_body;

    /// Lays out tiles of the left factor: those from the first of `rows` on for which there is room, over some depth.
    fn lay_out(left: Left<'_>, rows: Range<usize>, depth: Range<usize>, tiles: &mut [f32]) = lay_out_body;

    /// Lays out the transpose of `rows` `[width, k]`.
    fn pack_panel(rows: &[f32], k: usize, packed: &mut [f32]) = pack_panel_body;

    /// Lays out `rows` `[k, n]` as [`Right::Packed`] wants it, for a factor that serves several products.
    pub(super) fn pack_rows(rows: &[f32], n: usize, k: usize, packed: &mut Vec<f32>) = pack_rows_body;

    /// Numbers in a vector of the instruction set in use, which the packed layout depends on.
    pub(super) fn lanes() -> usize = lanes_body;

    /// Columns of a panel.
    fn panel_width() -> usize = panel_width_body;
}

#[inline(always)]
fn panel_width_body<S: Simd>() -> usize {
    S::LANES * S::TILE_VECTORS
}

#[inline(always)]
fn lanes_body<S: Simd>() -> usize {
    S::LANES
}

#[inline(always)]
fn lay_out_body<S: Simd>(left: Left<'_>, rows: Range<usize>, depth: Range<usize>, tiles: &mut [f32]) {
    for (tile, out) in tiles.chunks_exact_mut(TILE_ROWS * depth.len()).enumerate() {
        let first = rows.start + tile * TILE_ROWS;
        let (out, _) = out.as_chunks_mut::<TILE_ROWS>();
        if rows.end - first < TILE_ROWS || left.row_stride == 1 {
            let there = TILE_ROWS.min(rows.end - first);
            for (p, out) in depth.clone().zip(out) {
                for (r, out) in out[..there].iter_mut().enumerate() {
                    *out = left.data[(first + r) * left.row_stride + p * left.depth_stride];
                }
            }
            continue;
        }
        let len = (depth.len() - 1) * left.depth_stride + 1;
        let rows: [&[f32]; TILE_ROWS] = std::array::from_fn(|r| {
            &left.data[(first + r) * left.row_stride + depth.start * left.depth_stride..][..len]
        });
        if left.depth_stride == 1 {
            for (p, out) in out.iter_mut().enumerate() {
                *out = std::array::from_fn(|r| rows[r][p]);
            }
        } else {
            for (p, out) in out.iter_mut().enumerate() {
                *out = std::array::from_fn(|r| rows[r][p * left.depth_stride]);
            }
        }
    }
}

/// Columns of which a panel is transposed at a time: a line of each row is read once, and what is written stays in the cache.
const PACKING_BLOCK: usize = 16;

#[inline(always)]
fn pack_panel_body<S: Simd>(rows: &[f32], k: usize, packed: &mut [f32]) {
    let width = packed.len() / k;
    let there = rows.len() / k;
    // Columns that a vector of numbers, one from each row, fills.
    let whole = if S::LANES * k <= i32::MAX as usize { there / S::LANES * S::LANES } else { 0 };
    for (block, packed) in packed.chunks_mut(PACKING_BLOCK * width).enumerate() {
        let first = block * PACKING_BLOCK;
        for column in (0..whole).step_by(S::LANES) {
            for (at, packed) in packed.chunks_exact_mut(width).enumerate() {
                // SAFETY: below `dispatch!`; `LANES` rows from `column` on are there, and as many columns.
                unsafe {
                    let numbers = S::gather(rows.as_ptr().add(column * k + first + at), k);
                    S::store(packed[column..column + S::LANES].as_mut_ptr(), numbers);
                }
            }
        }
        for (column, row) in rows.chunks_exact(k).enumerate().skip(whole) {
            for (packed, value) in packed.chunks_exact_mut(width).zip(&row[first..]) {
                packed[column] = *value;
            }
        }
        packed.chunks_exact_mut(width).for_each(|packed| packed[there..].fill(0.0));
    }
}

#[inline(always)]
fn pack_rows_body<S: Simd>(rows: &[f32], n: usize, k: usize, packed: &mut Vec<f32>) {
    let panel = S::LANES * S::TILE_VECTORS;
    packed.clear();
    packed.resize(n.next_multiple_of(S::LANES) * k, 0.0);
    for (column, packed) in (0..n).step_by(panel).zip(packed.chunks_mut(panel * k.max(1))) {
        let whole = packed.len() / k;
        let width = panel.min(n - column);
        for (to, from) in packed.chunks_exact_mut(whole).zip(rows.chunks_exact(n)) {
            to[..width].copy_from_slice(&from[column..column + width]);
        }
    }
}

thread_local! {
    /// A left factor laid out tile by tile, kept for the next product.
    static TILES: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
    /// A block of `B` copied so that its rows lie together, kept for the next product.
    static PANEL: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// The longest index a strided view of `rows x columns` reaches, plus one.
fn extent(rows: usize, row_stride: usize, columns: usize, column_stride: usize) -> usize {
    if rows == 0 || columns == 0 { 0 } else { (rows - 1) * row_stride + (columns - 1) * column_stride + 1 }
}

/// Computes some rows and columns of `product`; the first column begins a panel.
#[inline(always)]
fn product_part_body<S: Simd>(product: Product<'_>, rows: Range<usize>, columns: Range<usize>) {
    let Product { n, k, left, tiles, right, init, .. } = product;
    assert!(rows.end <= product.m && columns.end <= n, "a part reaches beyond its product");
    assert!(
        left.data.len() >= extent(rows.end, left.row_stride, k, left.depth_stride),
        "left factor is too short"
    );
    if let Init::Row(row) = init {
        assert!(row.len() >= n, "initial row is too short");
    }
    match right {
        Right::Rows(data) => assert!(data.len() >= k * n, "right factor is too short"),
        Right::Packed(data) => {
            assert!(data.len() >= k * n.next_multiple_of(S::LANES), "packed factor is too short")
        }
    }
    let whole_rows = product.m.next_multiple_of(TILE_ROWS);
    if let Some(tiles) = tiles {
        assert!(
            tiles.len() >= whole_rows * k && rows.start.is_multiple_of(TILE_ROWS),
            "tiles do not fit the product"
        );
    }
    let m = rows.len();
    let out = product.out.wrapping_add(rows.start * n);
    let panel = S::LANES * S::TILE_VECTORS;
    let pack = matches!(right, Right::Rows(_)) && n > panel && m > 4 * TILE_ROWS;
    // Taken out rather than borrowed: the body of a closure would be compiled without the target features.
    let mut packed = if pack { PANEL.take() } else { Vec::new() };
    let mut depth = 0;
    loop {
        let block = (k - depth).min(DEPTH_BLOCK);
        let init = if depth == 0 { init } else { Init::Accumulate };
        for column in columns.clone().step_by(panel) {
            let width = (n - column).min(panel);
            let left = match tiles {
                Some(tiles) => Rows {
                    start: tiles.as_ptr().wrapping_add(depth * whole_rows + rows.start * block),
                    step: block,
                    row: 1,
                    depth: TILE_ROWS,
                },
                None => Rows {
                    start: left
                        .data
                        .as_ptr()
                        .wrapping_add(rows.start * left.row_stride + depth * left.depth_stride),
                    step: left.row_stride,
                    row: left.row_stride,
                    depth: left.depth_stride,
                },
            };
            let panel = Panel {
                m,
                block,
                width,
                n,
                left,
                tiled: tiles.is_some(),
                out: out.wrapping_add(column),
                init: match init {
                    Init::Zero => Start::Zero,
                    Init::Row(row) => Start::Row(row.as_ptr().wrapping_add(column)),
                    Init::Accumulate => Start::Accumulate,
                },
            };
            // Where the panel's rows of `B` are, how far apart, and how many numbers of each may be read.
            let (right, right_row, readable) = match right {
                Right::Packed(data) => {
                    let width = width.next_multiple_of(S::LANES);
                    (data.as_ptr().wrapping_add(column * k + depth * width), width, width)
                }
                Right::Rows(data) if pack => {
                    let whole = width.next_multiple_of(S::LANES);
                    packed.resize(block * whole, 0.0);
                    for (to, from) in packed.chunks_exact_mut(whole).zip(data[depth * n..].chunks(n)) {
                        to[..width].copy_from_slice(&from[column..column + width]);
                        to[width..].fill(0.0);
                    }
                    (packed.as_ptr(), whole, whole)
                }
                Right::Rows(data) => (data.as_ptr().wrapping_add(depth * n + column), n, width),
            };
            // The only call, for it is inlined with all its tiles, which take long to compile.
            // SAFETY: the assertions above and `matmul`'s cover every index a panel reaches: rows of `left` below `m`, depths
            // below `k`, columns below `n`, and a packed panel's whole vectors.
            unsafe { panel.product::<S>(right, right_row, readable) }
        }
        depth += block;
        if depth >= k {
            break;
        }
    }
    if pack {
        PANEL.set(packed);
    }
}

/// [`Init`] at a panel's first column.
#[derive(Clone, Copy)]
enum Start {
    Zero,
    Row(*const f32),
    Accumulate,
}

/// Where the numbers of the left factor are.
#[derive(Clone, Copy)]
struct Rows {
    start: *const f32,
    /// From a row to the next, for the first row of a tile.
    step: usize,
    /// From a row of a tile to the next, and from one depth to the next.
    row: usize,
    depth: usize,
}

/// A panel of `C`: all rows, `width` columns, and the block of depth being added.
#[derive(Clone, Copy)]
struct Panel {
    m: usize,
    block: usize,
    width: usize,
    n: usize,
    left: Rows,
    /// Whether the left factor lies tile by tile.
    tiled: bool,
    out: *mut f32,
    init: Start,
}

impl Panel {
    /// Adds the product of the panel, tile by tile; `readable` numbers may be read from each row of `right`.
    ///
    /// # Safety
    /// The pointers must cover the panel; only below `dispatch!`.
    #[inline(always)]
    unsafe fn product<S: Simd>(self, right: *const f32, right_row: usize, readable: usize) {
        macro_rules! rows {
            ($vectors:literal, from $first:expr) => {{
                let mut row = $first;
                while row < self.m {
                    // SAFETY: the caller vouches for the panel; `row` and the rows after it are below `m`.
                    unsafe {
                        match self.m - row {
                            1 => self.tile::<S, 1, $vectors>(row, right, right_row, readable),
                            2 => self.tile::<S, 2, $vectors>(row, right, right_row, readable),
                            3 => self.tile::<S, 3, $vectors>(row, right, right_row, readable),
                            4 => self.tile::<S, 4, $vectors>(row, right, right_row, readable),
                            5 => self.tile::<S, 5, $vectors>(row, right, right_row, readable),
                            _ => self.tile::<S, TILE_ROWS, $vectors>(row, right, right_row, readable),
                        }
                    }
                    row += TILE_ROWS;
                }
            }};
        }
        match self.width.div_ceil(S::LANES) {
            1 => {
                // Six sums would wait for each other: a narrow tile is twice as high.
                let mut row = 0;
                while !self.tiled && self.m - row >= 2 * TILE_ROWS {
                    // SAFETY: the caller vouches for the panel; the tile's rows are below `m`.
                    unsafe { self.tile::<S, { 2 * TILE_ROWS }, 1>(row, right, right_row, readable) }
                    row += 2 * TILE_ROWS;
                }
                rows!(1, from row)
            }
            2 => rows!(2, from 0),
            3 if S::TILE_VECTORS > 2 => rows!(3, from 0),
            _ if S::TILE_VECTORS > 3 => rows!(4, from 0),
            _ => unreachable!("a panel is at most a tile wide"),
        }
    }

    /// One tile: `ROWS` rows from `row` on, `VECTORS` vectors of columns.
    ///
    /// # Safety
    /// As [`Self::product`]; `row + ROWS <= m`.
    #[inline(always)]
    unsafe fn tile<S: Simd, const ROWS: usize, const VECTORS: usize>(
        self,
        row: usize,
        right: *const f32,
        right_row: usize,
        readable: usize,
    ) {
        // Numbers of the last vector that belong to the panel, and that may be read from `right`.
        let last = self.width - (VECTORS - 1) * S::LANES;
        let last_readable = readable - (VECTORS - 1) * S::LANES;
        // SAFETY: rows below `m`, depths below `block` and columns below `width` (`readable` for `right`) are
        // what the caller vouches for; masked reads and writes touch no lane beyond them.
        unsafe {
            let out = self.out.add(row * self.n);
            let mut sums = [[S::zero(); VECTORS]; ROWS];
            match self.init {
                Start::Zero => {}
                Start::Row(start) => {
                    for v in 0..VECTORS {
                        let from = start.add(v * S::LANES);
                        let value = if v + 1 < VECTORS || last == S::LANES {
                            S::load(from)
                        } else {
                            S::load_first(from, last)
                        };
                        for sums in &mut sums {
                            sums[v] = value;
                        }
                    }
                }
                Start::Accumulate => {
                    for (r, sums) in sums.iter_mut().enumerate() {
                        for (v, sum) in sums.iter_mut().enumerate() {
                            let from = out.add(r * self.n + v * S::LANES);
                            *sum = if v + 1 < VECTORS || last == S::LANES {
                                S::load(from)
                            } else {
                                S::load_first(from, last)
                            };
                        }
                    }
                }
            }
            let mut left = self.left.start.add(row * self.left.step);
            let mut right = right;
            macro_rules! step {
                ($load_last:expr) => {{
                    let mut factors = [S::zero(); VECTORS];
                    for (v, factor) in factors.iter_mut().enumerate() {
                        let from = right.add(v * S::LANES);
                        *factor = if v + 1 < VECTORS { S::load(from) } else { $load_last(from) };
                    }
                    for r in 0..ROWS {
                        let a = S::splat(*left.add(r * self.left.row));
                        for v in 0..VECTORS {
                            sums[r][v] = S::fma(a, factors[v], sums[r][v]);
                        }
                    }
                    left = left.wrapping_add(self.left.depth);
                    right = right.wrapping_add(right_row);
                }};
            }
            if last_readable >= S::LANES {
                for _ in 0..self.block {
                    step!(|from| S::load(from));
                }
            } else {
                for _ in 0..self.block {
                    step!(|from| S::load_first(from, last_readable));
                }
            }
            for (r, sums) in sums.iter().enumerate() {
                for (v, sum) in sums.iter().enumerate() {
                    let to = out.add(r * self.n + v * S::LANES);
                    if v + 1 < VECTORS || last == S::LANES {
                        S::store(to, *sum);
                    } else {
                        S::store_first(to, *sum, last);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::simd::tests::at_every_level;

    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 7 + seed * 13) % 31) as f32 / 8.0 - 1.9).collect()
    }

    /// `(m, n, k)`: tiles that fit, remainders in every direction, several panels and blocks of depth.
    const SHAPES: [(usize, usize, usize); 14] = [
        (1, 1, 1),
        (6, 64, 64),
        (7, 3, 5),
        (13, 65, 64),
        (30, 130, 300),
        (5, 17, 600),
        (32, 1, 33),
        (2, 48, 9),
        (31, 33, 1),
        (64, 64, 513),
        (4, 8, 0),
        (0, 5, 3),
        (25, 16, 2),
        (12, 9, 256),
    ];

    #[test]
    fn products_match_the_definition_for_every_shape_and_layout() {
        at_every_level(|level| {
            for (m, n, k) in SHAPES {
                let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
                let (start, row) = (numbers(m * n, 3), numbers(n, 4));
                let a_transposed: Vec<f32> = (0..k * m).map(|at| a[at % m * k + at / m]).collect();
                let b_transposed: Vec<f32> = (0..k * n).map(|at| b[at % k * n + at / k]).collect();
                let mut packed = Vec::new();
                pack_transposed(&b_transposed, n, k, &mut packed);
                let mut packed_rows = Vec::new();
                pack_rows(&b, n, k, &mut packed_rows);
                assert_eq!(packed, packed_rows, "{level:?} {n}x{k}");
                for left in [
                    Left { data: &a, row_stride: k, depth_stride: 1 },
                    Left { data: &a_transposed, row_stride: 1, depth_stride: m },
                ] {
                    for right in [Right::Rows(&b), Right::Packed(&packed)] {
                        for init in [Init::Zero, Init::Row(&row), Init::Accumulate] {
                            let mut out = start.clone();
                            matmul(m, n, k, left, right, init, &mut out);
                            for i in 0..m {
                                for j in 0..n {
                                    let product: f64 = (0..k)
                                        .map(|p| f64::from(a[i * k + p]) * f64::from(b[p * n + j]))
                                        .sum();
                                    let exact = product
                                        + f64::from(match init {
                                            Init::Zero => 0.0,
                                            Init::Row(row) => row[j],
                                            Init::Accumulate => start[i * n + j],
                                        });
                                    let error = (f64::from(out[i * n + j]) - exact).abs();
                                    assert!(
                                        error < 1e-5 * (k + 1) as f64,
                                        "{level:?} {m}x{n}x{k} at ({i}, {j})"
                                    );
                                }
                            }
                        }
                    }
                }
            }
        });
    }

    #[test]
    fn large_products_match_the_definition_and_threads_change_nothing_but_the_time() {
        // Tiles of the left factor, panels and blocks of depth that do not come out even.
        let (m, n, k) = (130, 330, 800);
        assert!(2 * m * n * k > PARALLEL_WORK && n > TILING_PANELS * panel_width());
        let (a, b, row) = (numbers(m * k, 1), numbers(k * n, 2), numbers(n, 3));
        let a_transposed: Vec<f32> = (0..k * m).map(|at| a[at % m * k + at / m]).collect();
        let b_transposed: Vec<f32> = (0..n * k).map(|at| b[at % k * n + at / k]).collect();
        let mut packed = Vec::new();
        pack_transposed(&b_transposed, n, k, &mut packed);
        let mut products: Vec<Vec<f32>> = vec![];
        for left in [
            Left { data: &a, row_stride: k, depth_stride: 1 },
            Left { data: &a_transposed, row_stride: 1, depth_stride: m },
        ] {
            for right in [Right::Rows(&b), Right::Packed(&packed)] {
                for threads in [1, 3] {
                    crate::kernels::set_threads(threads);
                    let mut out = vec![0.0; m * n];
                    matmul(m, n, k, left, right, Init::Row(&row), &mut out);
                    crate::kernels::set_threads(1);
                    products.push(out);
                }
            }
        }
        for at in 0..m * n {
            let terms = (0..k).map(|p| f64::from(a[at / n * k + p]) * f64::from(b[p * n + at % n]));
            let exact = f64::from(row[at % n]) + terms.sum::<f64>();
            assert!((f64::from(products[0][at]) - exact).abs() < 1e-5 * k as f64, "at {at}");
        }
        for other in &products[1..] {
            assert_eq!(*other, products[0]);
        }
    }

    #[test]
    #[should_panic(expected = "right factor is too short")]
    fn a_short_slice_is_refused() {
        let a = [0.0; 6];
        matmul(
            2,
            2,
            3,
            Left { data: &a, row_stride: 3, depth_stride: 1 },
            Right::Rows(&a[..5]),
            Init::Zero,
            &mut [0.0; 4],
        );
    }
}
