//! Which tensors the kernels serve themselves: those on the CPU. Others take candle's own operations.

use std::cell::Cell;

use candle_core::Device;

thread_local! {
    static COMPOSED: Cell<bool> = const { Cell::new(false) };
}

/// Whether operations on tensors of `device` are the kernels of this crate.
pub fn is_fused(device: &Device) -> bool {
    device.is_cpu() && !COMPOSED.get()
}

/// Runs `work` with candle's own operations in place of the kernels, on this thread, as on another device: so that what
/// runs there can be checked where there is no such device.
pub fn composed<R>(work: impl FnOnce() -> R) -> R {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            COMPOSED.set(self.0);
        }
    }
    let _restore = Restore(COMPOSED.replace(true));
    work()
}
