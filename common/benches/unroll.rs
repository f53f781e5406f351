//! What an unroll's way over the wire costs in arithmetic and copies: message and protobuf on the actor's side,
//! protobuf and all checks on the learner's (bytes: of the encoded message).
//!
//! `cargo bench -p impresario-common --bench unroll`.

#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use impresario_common::space::{ElementType, Space};
use impresario_common::unroll::{Unroll, UnrollLayout};
use impresario_common::wire::v1;
use prost::Message;

/// The binaries' allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// As in the default run.
const COPIES: usize = 32;

/// Observations: four numbers, or an image of 84 x 84 bytes.
const OBSERVATIONS: [&str; 2] = ["cartpole", "pixels"];

fn main() {
    divan::main();
}

fn layout(observations: &str) -> UnrollLayout {
    let observation = match observations {
        "cartpole" => Space::boxed(&[-1.0; 4], &[1.0; 4]),
        _ => Space::Box {
            low: vec![0.0; 84 * 84],
            high: vec![255.0; 84 * 84],
            shape: vec![84, 84, 1],
            dtype: ElementType::U8,
        },
    };
    UnrollLayout::of_spaces(20, observation, Space::Discrete { n: 2 })
}

#[divan::bench(args = OBSERVATIONS)]
fn encode(bencher: Bencher<'_, '_>, observations: &str) {
    let layout = layout(observations);
    let unroll = Unroll::zeros(&layout, COPIES);
    let bytes = unroll.to_wire(&layout).encoded_len();
    bencher
        .counter(BytesCount::new(bytes))
        .bench_local(|| black_box(&unroll).to_wire(&layout).encode_to_vec());
}

#[divan::bench(args = OBSERVATIONS)]
fn decode(bencher: Bencher<'_, '_>, observations: &str) {
    let layout = layout(observations);
    let encoding = bytes::Bytes::from(Unroll::zeros(&layout, COPIES).to_wire(&layout).encode_to_vec());
    bencher.counter(BytesCount::new(encoding.len())).bench_local(|| {
        let message = v1::Unroll::decode(black_box(encoding.clone())).unwrap();
        Unroll::from_wire(message, &layout, COPIES).unwrap()
    });
}
