//! All that an actor reads of a Python worker: answers, failures, shared memory.
#![no_main]

#[path = "../../tests/support/parsers.rs"]
#[allow(dead_code, reason = "each target uses its own part")]
mod parsers;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = parsers::worker(bytes);
});
