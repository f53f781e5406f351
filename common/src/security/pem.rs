//! Certificates and keys from files in PEM, with errors that name flag and file and never show a key.

use std::path::Path;

use tokio_rustls::rustls::pki_types::pem::{Error, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::SecurityError;

fn read(flag: &'static str, path: &Path) -> Result<Vec<u8>, SecurityError> {
    std::fs::read(path).map_err(|source| SecurityError::Read { flag, path: path.into(), source })
}

/// The certificates in `text`, at least one.
fn parse_certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err("holds no certificate in PEM".into()),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(format!("is not valid PEM: {error}")),
    }
}

/// The private key in `text`.
fn parse_key(text: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(text).map_err(|error| match error {
        Error::NoItemsFound => "holds no private key in PEM".into(),
        error => format!("is not valid PEM: {error}"),
    })
}

/// The certificates in the file at `path`, which `flag` names, at least one.
///
/// # Errors
/// If the file cannot be read or holds none.
pub fn certificates(flag: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, SecurityError> {
    parse_certificates(&read(flag, path)?).map_err(|problem| SecurityError::Content {
        flag,
        path: path.into(),
        problem,
    })
}

/// The private key in the file at `path`, which `flag` names.
///
/// # Errors
/// If the file cannot be read or holds none.
pub fn private_key(flag: &'static str, path: &Path) -> Result<PrivateKeyDer<'static>, SecurityError> {
    parse_key(&read(flag, path)?).map_err(|problem| SecurityError::Content {
        flag,
        path: path.into(),
        problem,
    })
}

/// The text of a file with certificates, after a look whether it holds any.
pub(super) fn certificates_text(flag: &'static str, path: &Path) -> Result<Vec<u8>, SecurityError> {
    let text = read(flag, path)?;
    let content = |problem| SecurityError::Content { flag, path: path.into(), problem };
    parse_certificates(&text).map_err(content)?;
    Ok(text)
}

/// The text of a file with a private key, after a look whether it holds one.
pub(super) fn key_text(flag: &'static str, path: &Path) -> Result<Vec<u8>, SecurityError> {
    let text = read(flag, path)?;
    let content = |problem| SecurityError::Content { flag, path: path.into(), problem };
    parse_key(&text).map_err(content)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_certificate_or_key_is_named_and_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.pem");
        let says = |text: &str, certificate: &str, key: &str| {
            std::fs::write(&path, text).unwrap();
            let errors = [
                (certificates("--tls-ca", &path).unwrap_err().to_string(), certificate),
                (private_key("--tls-ca", &path).unwrap_err().to_string(), key),
            ];
            for (error, expected) in errors {
                assert!(error.contains("--tls-ca") && error.contains("file.pem"), "{error}");
                assert!(error.contains(expected) && !error.contains("c2VjcmV0"), "{error}");
            }
        };
        says("secret: c2VjcmV0", "holds no certificate", "holds no private key");
        let broken = "-----BEGIN CERTIFICATE-----\nc2VjcmV0!!\n-----END CERTIFICATE-----\n";
        says(broken, "is not valid PEM", "PEM");
        std::fs::remove_file(&path).unwrap();
        let error = certificates("--tls-ca", &path).unwrap_err().to_string();
        assert!(error.contains("cannot read --tls-ca"), "{error}");
    }
}
