//! What whoever calls a learner (an actor, `impresario health`) is started with, and what it comes to: an endpoint that trusts
//! the right certificates, and a token in every call.

use std::fmt;
use std::path::PathBuf;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity, Uri};
use tonic::{Request, Status};

use super::token::TokenFlag;
use super::{SecurityError, pem};

/// Flags of whoever calls a learner.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ClientFlags {
    /// File with the certificates (PEM) of the authorities that may have signed the learner's certificate; goes with an
    /// https:// address
    #[arg(long, value_name = "FILE", help_heading = "Security")]
    pub tls_ca: Option<PathBuf>,

    /// File with this side's certificate (PEM), for a learner that asks for one (--tls-client-ca there)
    #[arg(long, value_name = "FILE", requires = "tls_key", help_heading = "Security")]
    pub tls_cert: Option<PathBuf>,

    /// File with the private key (PEM) of --tls-cert
    #[arg(long, value_name = "FILE", requires = "tls_cert", help_heading = "Security")]
    pub tls_key: Option<PathBuf>,

    /// Name that the learner's certificate must be for, instead of the host in the address
    #[arg(long, value_name = "NAME", requires = "tls_ca", help_heading = "Security")]
    pub tls_domain: Option<String>,

    /// The token.
    #[command(flatten)]
    pub token: TokenFlag,
}

/// What the flags come to.
#[derive(Clone, Default)]
pub struct ClientSecurity {
    tls: Option<ClientTlsConfig>,
    bearer: Bearer,
}

impl fmt::Debug for ClientSecurity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The TLS configuration holds a private key.
        f.debug_struct("ClientSecurity").field("tls", &self.tls.is_some()).finish_non_exhaustive()
    }
}

impl ClientFlags {
    /// Reads what the flags name, for the learner at `uri`.
    ///
    /// # Errors
    /// If a file cannot be used, or the flags and the address do not go together.
    pub fn load(&self, uri: &Uri) -> Result<ClientSecurity, SecurityError> {
        let token = self.token.load()?;
        let bearer = Bearer(token.map(|token| token.authorization()));
        let tls = match (uri.scheme_str(), &self.tls_ca) {
            (Some("https"), Some(ca)) => Some(self.tls(ca, uri)?),
            (Some("https"), None) => {
                return Err(SecurityError::Flags(
                    "https:// needs --tls-ca FILE, the certificate of the authority that signed the learner's".into(),
                ));
            }
            (_, None) if self.tls_cert.is_none() => None,
            _ => {
                return Err(SecurityError::Flags(
                    "--tls-ca and --tls-cert go with an https:// address".into(),
                ));
            }
        };
        Ok(ClientSecurity { tls, bearer })
    }

    fn tls(&self, ca: &std::path::Path, uri: &Uri) -> Result<ClientTlsConfig, SecurityError> {
        let trusted = Certificate::from_pem(pem::certificates_text("--tls-ca", ca)?);
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let name = self.tls_domain.as_deref().unwrap_or(host);
        let mut tls = ClientTlsConfig::new().ca_certificate(trusted).domain_name(name);
        if let (Some(cert), Some(key)) = (&self.tls_cert, &self.tls_key) {
            let certificate = pem::certificates_text("--tls-cert", cert)?;
            tls = tls.identity(Identity::from_pem(certificate, pem::key_text("--tls-key", key)?));
        }
        Ok(tls)
    }
}

impl ClientSecurity {
    /// `endpoint`, with TLS if that was asked for.
    ///
    /// # Errors
    /// If certificate and key do not belong together, or the name is none.
    pub fn secure(&self, endpoint: Endpoint) -> Result<Endpoint, SecurityError> {
        match &self.tls {
            None => Ok(endpoint),
            Some(tls) => endpoint.tls_config(tls.clone()).map_err(|error| {
                let why = super::trouble::chain(&error);
                SecurityError::Flags(format!("--tls-ca, --tls-cert, --tls-key or --tls-domain: {why}"))
            }),
        }
    }

    /// What puts the token into every call.
    pub fn bearer(&self) -> Bearer {
        self.bearer.clone()
    }
}

/// Puts the token, if there is one, into every call.
#[derive(Debug, Clone, Default)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(authorization) = &self.0 {
            request.metadata_mut().insert("authorization", authorization.clone());
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_and_address_that_do_not_go_together_are_refused_with_what_to_change() {
        let load =
            |flags: &ClientFlags, url: &str| flags.load(&url.parse().unwrap()).unwrap_err().to_string();
        let none = ClientFlags::default();
        assert!(load(&none, "https://host:1").contains("--tls-ca FILE"));
        let trusting = ClientFlags { tls_ca: Some("ca.pem".into()), ..ClientFlags::default() };
        assert!(load(&trusting, "http://host:1").contains("https:// address"));
        assert!(load(&trusting, "https://host:1").contains("cannot read --tls-ca ca.pem"));
    }

    #[test]
    fn no_secret_is_shown() {
        let token = super::super::Token::parse("0123456789abcdef").unwrap();
        let security = ClientSecurity { tls: None, bearer: Bearer(Some(token.authorization())) };
        let shown = format!("{security:?} {:?}", security.bearer());
        assert!(!shown.contains("0123"), "{shown}");
    }
}
