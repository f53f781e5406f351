//! What went wrong between two sides whose security does not fit, in words that say what to change. TLS itself tells by alerts
//! and error types deep inside an error's causes; a learner that is spoken to in the wrong way answers with
//! [`SPEAKS_TLS`] or [`SPEAKS_PLAINLY`].

use std::error::Error;
use std::io;

use tokio_rustls::rustls::{self, CertificateError, InvalidMessage};

/// What a learner with TLS answers to plain HTTP/2.
pub const SPEAKS_TLS: &str = "this learner speaks TLS only: write https:// and give --tls-ca";

/// What a learner without TLS answers to whoever begins with TLS.
pub const SPEAKS_PLAINLY: &str =
    "this learner does not speak TLS: write http://, or start it with --tls-cert and --tls-key";

/// What a learner answers to a connection for which it has no room.
pub const FULL: &str = "this learner has as many connections as limits.connections permits";

/// What is wrong, if it is something that another try does not change.
pub fn explain(error: &(dyn Error + 'static)) -> Option<String> {
    let text = chain(error);
    if text.contains(SPEAKS_TLS) {
        return Some(SPEAKS_TLS.into());
    }
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(tls) = tls_error(error) {
            return explain_tls(tls);
        }
        cause = error.source();
    }
    explain_alert(alert_in(&text)?)
}

/// An error and what caused it, in one line.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// The error of TLS that `error` is, or wraps without naming it as its source.
fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    if let Some(tls) = error.downcast_ref::<rustls::Error>() {
        return Some(tls);
    }
    let inner = error.downcast_ref::<io::Error>()?.get_ref()?;
    tls_error(inner)
}

fn explain_tls(error: &rustls::Error) -> Option<String> {
    use CertificateError as Bad;
    let text = match error {
        rustls::Error::InvalidCertificate(bad) => match bad {
            Bad::UnknownIssuer | Bad::BadSignature => {
                "the learner's certificate is not signed by an authority in --tls-ca".into()
            }
            Bad::Expired | Bad::ExpiredContext { .. } => {
                format!("the learner's certificate has expired ({bad}): give the learner a new one")
            }
            Bad::NotValidYet | Bad::NotValidYetContext { .. } => {
                format!("the learner's certificate is not valid yet ({bad}): is this machine's clock right?")
            }
            Bad::NotValidForName | Bad::NotValidForNameContext { .. } => format!(
                "the learner's certificate is for another name ({bad}): use that in the address, or give --tls-domain"
            ),
            bad => format!("the learner's certificate cannot be trusted: {bad}"),
        },
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => SPEAKS_PLAINLY.into(),
        rustls::Error::AlertReceived(alert) => return explain_alert(&format!("{alert:?}")),
        rustls::Error::NoApplicationProtocol | rustls::Error::PeerIncompatible(_) => {
            format!("what listens there speaks TLS, but not as a learner does: {error}")
        }
        _ => return None,
    };
    Some(text)
}

/// The alert by which the other side ended TLS, called `name`.
fn explain_alert(name: &str) -> Option<String> {
    let text = match name {
        "CertificateRequired" => "the learner asks for a certificate: give --tls-cert and --tls-key".into(),
        "UnknownCA" | "BadCertificate" | "DecryptError" => {
            "the learner does not trust the certificate in --tls-cert: it is not signed by an authority in its \
             --tls-client-ca"
                .into()
        }
        "CertificateExpired" => "the certificate in --tls-cert has expired: get a new one".into(),
        // The other side is ending; another try may do.
        "InternalError" | "UserCanceled" | "CloseNotify" => return None,
        name => format!("the learner ended the TLS handshake: {name}"),
    };
    Some(text)
}

/// The alert's name, where only an error's text has it: HTTP/2 keeps no more of what ended a connection.
fn alert_in(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("received fatal alert: ")?;
    rest.split(|c: char| !c.is_ascii_alphanumeric()).next().filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use tokio_rustls::rustls::AlertDescription;

    use super::*;

    #[test]
    fn errors_of_tls_are_found_however_deep_and_say_what_to_change() {
        let wrapped = |error: rustls::Error| io::Error::other(io::Error::other(error));
        for (error, expected) in [
            (CertificateError::UnknownIssuer.into(), "--tls-ca"),
            (CertificateError::Expired.into(), "has expired"),
            (CertificateError::NotValidForName.into(), "--tls-domain"),
            (InvalidMessage::InvalidContentType.into(), "does not speak TLS"),
            (rustls::Error::AlertReceived(AlertDescription::CertificateRequired), "--tls-cert"),
            (rustls::Error::AlertReceived(AlertDescription::UnknownCA), "--tls-client-ca"),
            (rustls::Error::AlertReceived(AlertDescription::CertificateExpired), "has expired"),
        ] {
            let said = explain(&wrapped(error)).unwrap_or_default();
            assert!(said.contains(expected), "{said}");
        }
        // HTTP/2 keeps the text alone.
        let alert = rustls::Error::AlertReceived(AlertDescription::CertificateRequired).to_string();
        let said = explain(&io::Error::other(format!("connection error: {alert}"))).unwrap_or_default();
        assert!(said.contains("asks for a certificate"), "{said}");
        let goaway = io::Error::other(format!("connection error (b\"{SPEAKS_TLS}\")"));
        assert_eq!(explain(&goaway).as_deref(), Some(SPEAKS_TLS));
        assert_eq!(explain(&io::Error::from(io::ErrorKind::ConnectionReset)), None);
        assert_eq!(explain(&io::Error::from(io::ErrorKind::UnexpectedEof)), None);
    }
}
