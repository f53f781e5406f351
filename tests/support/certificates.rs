//! Certificates for tests, made on the spot: an authority, and what it signs.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

/// An authority, and the folder where its files go.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
    name: &'static str,
}

/// A certificate's file, and its key's.
pub(crate) struct Signed {
    pub(crate) cert: String,
    pub(crate) key: String,
}

/// Whether a certificate is of use.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Validity {
    Valid,
    Expired,
}

impl Authority {
    /// A new authority whose files begin with `name`.
    pub(crate) fn new(folder: &Path, name: &'static str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate");
        let authority = Self { issuer, folder: folder.into(), name };
        authority.write("ca.pem", &authority.issuer.pem());
        authority
    }

    /// The file with the authority's own certificate.
    pub(crate) fn ca(&self) -> String {
        self.path("ca.pem")
    }

    /// Signs a certificate for `host`, of use to servers and clients.
    pub(crate) fn sign(&self, host: &str, validity: Validity) -> Signed {
        let mut params = CertificateParams::new([host.to_owned()]).expect("a name");
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        if validity == Validity::Expired {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        }
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let state = if validity == Validity::Expired { "expired" } else { "valid" };
        let file = |kind: &str| format!("{host}-{state}-{kind}.pem");
        self.write(&file("cert"), &certificate.pem());
        self.write(&file("key"), &key.serialize_pem());
        Signed { cert: self.path(&file("cert")), key: self.path(&file("key")) }
    }

    fn path(&self, file: &str) -> String {
        let path = self.folder.join(format!("{}-{file}", self.name));
        path.to_str().expect("a path in UTF-8").into()
    }

    fn write(&self, file: &str, text: &str) {
        std::fs::write(self.path(file), text).expect("a file can be written");
    }
}
