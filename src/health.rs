//! `impresario health`: asks a learner whether it serves, for Docker's HEALTHCHECK, scripts and people.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use impresario_common::process::Usage;
use impresario_common::security::{Bearer, ClientFlags, trouble};
use tonic::transport::{Endpoint, Uri};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// The service that is asked about.
const SERVICE: &str = "impresario.v1.Learner";

/// Times that a connection may be cut before an answer. With TLS 1.3 a side that refuses a certificate says so when the other believes
/// the handshake done, so that a call may find the connection gone before it reads why.
const ATTEMPTS: u32 = 3;

/// Flags of `impresario health`.
#[derive(Debug, clap::Args)]
pub(crate) struct HealthCommand {
    /// Where the learner listens: http://HOST:PORT, or https:// with --tls-ca
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:5005")]
    learner: String,

    /// Seconds that the answer may take
    #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,

    #[command(flatten)]
    security: ClientFlags,
}

impl HealthCommand {
    /// Exit code 0 if the learner says that it serves; an error, hence 1, if it says otherwise or does not answer.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let usage = |problem: String| Usage(problem);
        let uri: Uri =
            self.learner.parse().map_err(|e| usage(format!("--learner {:?}: {e}", self.learner)))?;
        let security = self.security.load(&uri).map_err(|e| usage(e.to_string()))?;
        let limit = Duration::from_secs(self.timeout);
        let endpoint = Endpoint::from(uri).connect_timeout(limit).timeout(limit);
        let endpoint = security.secure(endpoint).map_err(|e| usage(e.to_string()))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let asking = async {
            for _ in 1..ATTEMPTS {
                match ask(&endpoint, security.bearer()).await {
                    Err(Failure::Cut(_)) => {}
                    answered => return answered,
                }
            }
            ask(&endpoint, security.bearer()).await
        };
        let answer = runtime.block_on(async {
            match tokio::time::timeout(limit, asking).await {
                Ok(answer) => answer.map_err(anyhow::Error::from),
                Err(_) => bail!("no answer within {} s", self.timeout),
            }
        });
        match answer.with_context(|| format!("the learner at {}", self.learner))? {
            ServingStatus::Serving => {
                println!("serving");
                Ok(ExitCode::SUCCESS)
            }
            status => bail!("the learner at {} does not serve: {}", self.learner, status.as_str_name()),
        }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// There is no connection, or the two sides do not fit.
    #[error("{0}")]
    Plain(String),
    /// A connection that was there was cut, which can hide why.
    #[error("{0}")]
    Cut(String),
}

async fn ask(endpoint: &Endpoint, bearer: Bearer) -> Result<ServingStatus, Failure> {
    let connected = endpoint.connect().await;
    let channel =
        connected.map_err(|e| Failure::Plain(trouble::explain(&e).unwrap_or_else(|| trouble::chain(&e))))?;
    let mut client = HealthClient::with_interceptor(channel, bearer);
    let answer = client.check(HealthCheckRequest { service: SERVICE.into() }).await;
    match answer {
        Ok(answer) => Ok(answer.into_inner().status()),
        Err(status) => Err(match trouble::explain(&status) {
            Some(problem) => Failure::Plain(problem),
            None => Failure::Cut(trouble::chain(&status)),
        }),
    }
}
