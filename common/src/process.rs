//! What every binary does around its work: thread limits at the start, an exit code at the end.

use std::process::ExitCode;

/// Exit code for wrong usage or configuration (`EX_USAGE` of sysexits).
pub const EXIT_USAGE: u8 = 64;

/// The command line as `P` describes it; or what to exit with, when help was asked for or the line is wrong.
///
/// # Errors
/// If there is nothing to run.
pub fn parse<P: clap::Parser>() -> Result<P, ExitCode> {
    P::try_parse().map_err(|message| {
        // A closed terminal is no reason to end with another code.
        let _ = message.print();
        if message.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS }
    })
}

/// A mistake of the user's on the command line, told in full.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

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

/// Turns a command's result into the process's exit code, printing an error with its causes. A mistake in
/// the configuration or on the command line gives [`EXIT_USAGE`].
pub fn exit(result: anyhow::Result<ExitCode>) -> ExitCode {
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            let usage = error.is::<crate::config::ConfigError>() || error.is::<Usage>();
            if usage { ExitCode::from(EXIT_USAGE) } else { ExitCode::FAILURE }
        }
    }
}
