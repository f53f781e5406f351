//! The binary `impresario`: the library with the environments of this house.

use std::process::ExitCode;

use impresario_actor::env::registry::Registry;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    impresario::main_with(Registry::native())
}
