//! Tracing set-up shared by the binaries: what is logged, in which form, and where it goes.
//!
//! `RUST_LOG` chooses what is logged (default: `info`), `--log-format` how.

use std::io;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Pretty,
    /// One JSON object a line, for log collectors.
    Json,
}

impl LogFormat {
    /// The name that `--log-format` takes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pretty => "pretty",
            Self::Json => "json",
        }
    }
}

/// Flags about logging, for every command.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct LogFlags {
    /// Form of the log on standard error; RUST_LOG chooses what is logged (default: info)
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
}

/// A logger that cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `RUST_LOG` holds something else than filter directives.
    #[error("RUST_LOG is not valid: {0}; write for example RUST_LOG=info or RUST_LOG=impresario_actor=debug")]
    Filter(#[from] tracing_subscriber::filter::FromEnvError),
    /// The process has a logger already.
    #[error("logging was set up twice: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Logs to standard error from now on.
///
/// # Errors
/// If `RUST_LOG` is not valid, or logging was set up before.
pub fn init(flags: LogFlags) -> Result<(), TelemetryError> {
    init_with_writer(flags, io::stderr)
}

/// As [`init`], but to `writer`: for a program that shows progress bars and must hide them for a line.
///
/// # Errors
/// As [`init`].
pub fn init_with_writer<W>(flags: LogFlags, writer: W) -> Result<(), TelemetryError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    use tracing_subscriber::util::SubscriberInitExt;

    let filter = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).from_env()?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    match flags.log_format {
        LogFormat::Json => builder.json().flatten_event(true).finish().try_init()?,
        LogFormat::Pretty => {
            let colours =
                std::env::var_os("NO_COLOR").is_none() && io::IsTerminal::is_terminal(&io::stderr());
            builder.with_ansi(colours).with_target(false).finish().try_init()?;
        }
    }
    Ok(())
}
