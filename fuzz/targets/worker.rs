//! What a Python worker says that its environment is.
#![no_main]

#[path = "../../tests/support/parsers.rs"]
#[allow(dead_code, reason = "each target uses its own part")]
mod parsers;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = parsers::worker(bytes);
});
