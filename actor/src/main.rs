//! The `actor` binary.

use std::process::ExitCode;

use impresario_actor::env::registry::Registry;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    impresario_actor::main_with(Registry::native())
}
