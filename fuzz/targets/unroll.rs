//! An actor's messages as the learner takes them from the wire.
#![no_main]

#[path = "../../tests/support/parsers.rs"]
#[allow(dead_code, reason = "each target uses its own part")]
mod parsers;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = parsers::wire(bytes);
});
