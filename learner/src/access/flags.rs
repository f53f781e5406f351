//! What a learner is started with to keep strangers out, and what that comes to.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use impresario_common::process::Usage;
use impresario_common::security::{SecurityError, Token, TokenFlag, pem};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};

/// Flags that keep strangers out.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct AccessFlags {
    /// File with the learner's certificate (PEM), followed by those between it and the authority; actors then use an https://
    /// address
    #[arg(long, value_name = "FILE", requires = "tls_key", help_heading = "Security")]
    pub tls_cert: Option<PathBuf>,

    /// File with the private key (PEM) of --tls-cert
    #[arg(long, value_name = "FILE", requires = "tls_cert", help_heading = "Security")]
    pub tls_key: Option<PathBuf>,

    /// File with the certificates (PEM) of the authorities that sign actors' certificates: with it, whoever calls needs one
    #[arg(long, value_name = "FILE", requires = "tls_cert", help_heading = "Security")]
    pub tls_client_ca: Option<PathBuf>,

    /// The token.
    #[command(flatten)]
    pub token: TokenFlag,

    /// Listens beyond loopback even without TLS and without a token: anyone who reaches the port may read the policy and send
    /// experience
    #[arg(long, help_heading = "Security")]
    pub insecure: bool,
}

/// What the flags come to; by default, anyone may come.
#[derive(Clone, Default)]
pub struct Access {
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) token: Option<Token>,
    /// Whether actors must have certificates.
    asks_for_certificates: bool,
    insecure: bool,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The TLS configuration holds a private key.
        f.debug_struct("Access")
            .field("tls", &self.tls.is_some())
            .field("asks_for_certificates", &self.asks_for_certificates)
            .field("token", &self.token)
            .field("insecure", &self.insecure)
            .finish()
    }
}

impl AccessFlags {
    /// Reads what the flags name.
    ///
    /// # Errors
    /// If a file cannot be used.
    pub fn load(&self) -> Result<Access, SecurityError> {
        let tls = match (&self.tls_cert, &self.tls_key) {
            (Some(cert), Some(key)) => Some(self.tls(cert, key)?),
            _ => None,
        };
        Ok(Access {
            tls,
            token: self.token.load()?,
            asks_for_certificates: self.tls_client_ca.is_some(),
            insecure: self.insecure,
        })
    }

    fn tls(&self, cert: &std::path::Path, key: &std::path::Path) -> Result<TlsAcceptor, SecurityError> {
        const CERT: &str = "--tls-cert";
        let content = |flag, path: &std::path::Path, problem: String| SecurityError::Content {
            flag,
            path: path.into(),
            problem,
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|e| content(CERT, cert, e.to_string()))?;
        let builder = match &self.tls_client_ca {
            None => builder.with_no_client_auth(),
            Some(ca) => {
                const CA: &str = "--tls-client-ca";
                let mut roots = RootCertStore::empty();
                for certificate in pem::certificates(CA, ca)? {
                    roots.add(certificate).map_err(|e| content(CA, ca, e.to_string()))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                    .build()
                    .map_err(|e| content(CA, ca, e.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder
            .with_single_cert(pem::certificates(CERT, cert)?, pem::private_key("--tls-key", key)?)
            .map_err(|e| content(CERT, cert, format!("does not go with --tls-key: {e}")))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

impl Access {
    /// Whether strangers are kept out of `listen`, or there are none.
    ///
    /// # Errors
    /// If the address can be reached from beyond this machine and nothing keeps anyone out.
    pub fn refuse_strangers(&self, listen: SocketAddr) -> Result<(), Usage> {
        if listen.ip().is_loopback() || self.tls.is_some() || self.token.is_some() || self.insecure {
            return Ok(());
        }
        Err(Usage(format!(
            "--listen {listen} can be reached from other machines, and nothing keeps strangers out: give --tls-cert and \
             --tls-key, or a token (--token-file or IMPRESARIO_TOKEN), or say --insecure if you trust everyone who can reach \
             it"
        )))
    }

    /// Logs what remains open at `listen`.
    pub fn warn(&self, listen: SocketAddr) {
        if listen.ip().is_loopback() {
            return;
        }
        match (&self.tls, &self.token) {
            (None, None) => tracing::warn!(
                "--insecure: anyone who can reach {listen} may read the policy and send experience"
            ),
            (None, Some(_)) => tracing::warn!(
                "the token and everything else travel unencrypted: use --tls-cert, or a network that nobody listens to"
            ),
            (Some(_), None) if !self.asks_for_certificates => tracing::warn!(
                "TLS encrypts, but anyone may join: add --tls-client-ca or a token to say who may"
            ),
            _ => {}
        }
    }

    /// Whether strangers are kept out of the metrics' port, which knows the token only, or there are none.
    ///
    /// # Errors
    /// If the address can be reached from beyond this machine and nothing keeps anyone out.
    pub fn refuse_strangers_to_metrics(&self, listen: SocketAddr) -> Result<(), Usage> {
        if listen.ip().is_loopback() || self.token.is_some() || self.insecure {
            return Ok(());
        }
        Err(Usage(format!(
            "--metrics-listen {listen} can be reached from other machines and is asked without TLS: give a token \
             (--token-file or IMPRESARIO_TOKEN), which /metrics then asks for, or say --insecure"
        )))
    }

    /// How an address begins at which this learner is reached.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_listens_beyond_loopback_by_accident() {
        let open = Access::default();
        let told = Access { insecure: true, ..Access::default() };
        let token = Some(Token::parse("0123456789abcdef").unwrap());
        let guarded = Access { token, ..Access::default() };
        for near in ["127.0.0.1:0", "127.8.8.8:1", "[::1]:5005"] {
            open.refuse_strangers(near.parse().unwrap()).unwrap();
            open.refuse_strangers_to_metrics(near.parse().unwrap()).unwrap();
        }
        for far in ["0.0.0.0:5005", "[::]:5005", "10.0.0.1:5005", "[::ffff:127.0.0.1]:5005"] {
            let far = far.parse().unwrap();
            for refused in [open.refuse_strangers(far), open.refuse_strangers_to_metrics(far)] {
                let error = refused.unwrap_err().to_string();
                assert!(error.contains("--token-file") && error.contains("--insecure"), "{error}");
            }
            for open in [&told, &guarded] {
                open.refuse_strangers(far).unwrap();
                open.refuse_strangers_to_metrics(far).unwrap();
            }
        }
        assert!(!format!("{guarded:?}").contains("0123"));
    }
}
