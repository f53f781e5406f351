//! `impresario health`: asks a learner whether it serves, for Docker's HEALTHCHECK, scripts and people.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use impresario_common::process::Usage;
use impresario_common::security::{ClientFlags, trouble};
use tonic::transport::{Endpoint, Uri};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// The service that is asked about.
const SERVICE: &str = "impresario.v1.Learner";

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
            let channel = endpoint.connect().await.map_err(|e| told(&e))?;
            let mut client = HealthClient::with_interceptor(channel, security.bearer());
            let request = HealthCheckRequest { service: SERVICE.into() };
            let answer = client.check(request).await.map_err(|e| told(&e))?;
            anyhow::Ok(answer.into_inner().status())
        };
        let answer = runtime.block_on(async {
            tokio::time::timeout(limit, asking).await.unwrap_or_else(|_| {
                bail!("no answer within {} s", self.timeout);
            })
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

/// What went wrong, in words that say what to change where that is known.
fn told(error: &(dyn std::error::Error + 'static)) -> anyhow::Error {
    anyhow::Error::msg(trouble::explain(error).unwrap_or_else(|| trouble::chain(error)))
}
