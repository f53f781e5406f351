//! What every binary does around its work: thread limits at the start, an exit code at the end.

use std::process::ExitCode;

/// Exit code for wrong usage or configuration (`EX_USAGE` of sysexits).
pub const EXIT_USAGE: u8 = 64;

/// Limits the threads of candle's pools to `threads`. Without it every matrix product would look up the number of
/// cores anew, and elementwise operations would start a spinning pool of their own.
///
/// Call it before the first tensor is made and before any thread is started.
pub fn limit_threads(threads: usize) {
    let threads = threads.max(1).to_string();
    for name in ["RAYON_NUM_THREADS", "CANDLE_NUM_THREADS"] {
        // SAFETY: callers are single-threaded at this point, so nobody reads the environment meanwhile.
        unsafe { std::env::set_var(name, &threads) };
    }
}

/// Turns a command's result into the process's exit code, printing an error with its causes. A configuration
/// error is wrong usage.
pub fn exit(result: anyhow::Result<ExitCode>) -> ExitCode {
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            match error.downcast_ref::<crate::config::ConfigError>() {
                Some(_) => ExitCode::from(EXIT_USAGE),
                None => ExitCode::FAILURE,
            }
        }
    }
}
