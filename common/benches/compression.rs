//! What compressing the observations of an unroll costs, and what it saves: 20 steps of 16 copies, 84 x 84 bytes each.
//!
//! `cargo bench -p impresario-common --bench compression` takes frames of a simple ball game drawn here. Those of a real game come
//! from a file: `benchmarks/dump_frames.py` writes one, and `IMPRESARIO_FRAMES` names it. The first lines say the ratios; bytes
//! are those of the frames.

#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use impresario_common::config::Compression;

/// The binaries' allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SIDE: usize = 84;
const COPIES: usize = 16;

/// `[T + 1, E, 84, 84]`.
const ROWS: usize = 21;

const METHODS: [Compression; 2] = [Compression::Lz4, Compression::Zstd];

fn main() {
    let frames = frames();
    for method in METHODS {
        let compressed = method.compress(&frames).map_or(frames.len(), |bytes| bytes.len());
        println!(
            "{method:?}: {} bytes become {compressed}, {:.1} to 1",
            frames.len(),
            ratio(&frames, compressed)
        );
    }
    divan::main();
}

fn ratio(frames: &[u8], compressed: usize) -> f64 {
    frames.len() as f64 / compressed as f64
}

/// The frames of the file, or of a game in which a ball bounces between two paddles.
fn frames() -> Vec<u8> {
    let len = ROWS * COPIES * SIDE * SIDE;
    if let Ok(path) = std::env::var("IMPRESARIO_FRAMES") {
        let mut frames = std::fs::read(path).unwrap();
        assert!(frames.len() >= len, "{} bytes, at least {len} are needed", frames.len());
        frames.truncate(len);
        return frames;
    }
    let mut frames = vec![87; len];
    for (number, frame) in frames.chunks_exact_mut(SIDE * SIDE).enumerate() {
        let (row, copy) = (number / COPIES, number % COPIES);
        let mut paint = |x: usize, y: usize, width: usize, height: usize, grey: u8| {
            for y in y..y + height {
                frame[y * SIDE + x..y * SIDE + x + width].fill(grey);
            }
        };
        paint(0, 14, SIDE, 2, 236);
        paint(0, 78, SIDE, 2, 236);
        let bounce =
            |at: usize, room: usize| if (at / room).is_multiple_of(2) { at % room } else { room - at % room };
        paint(6, 16 + bounce(7 * copy + 3 * row, 50), 2, 8, 148);
        paint(76, 16 + bounce(5 * copy + 2 * row, 50), 2, 8, 147);
        paint(10 + bounce(11 * copy + 2 * row, 60), 16 + bounce(3 * copy + row, 58), 1, 2, 236);
    }
    frames
}

#[divan::bench(args = METHODS)]
fn compress(bencher: Bencher<'_, '_>, method: Compression) {
    let frames = frames();
    bencher.counter(BytesCount::new(frames.len())).bench_local(|| method.compress(black_box(&frames)));
}

#[divan::bench(args = METHODS)]
fn decompress(bencher: Bencher<'_, '_>, method: Compression) {
    let frames = frames();
    let compressed = method.compress(&frames).unwrap();
    bencher
        .counter(BytesCount::new(frames.len()))
        .bench_local(|| method.decompress(black_box(&compressed), frames.len()).unwrap());
}
