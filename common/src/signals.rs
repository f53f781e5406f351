//! Being asked to stop: Ctrl-C and SIGTERM.

use tokio::signal::unix::{SignalKind, signal};

/// Listens from now on, and completes when the process is asked to stop. Call it within a runtime, and before
/// anyone can know of the process: a signal that comes earlier kills it.
///
/// # Errors
/// If signals cannot be listened for.
pub fn termination() -> std::io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
