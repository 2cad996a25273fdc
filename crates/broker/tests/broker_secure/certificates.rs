//! An authority, a broker's certificate and a client's, in files that last as long as the test.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use ackwell_broker::Tls;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

pub(crate) struct Certificates {
    folder: TempDir,
}

impl Certificates {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut authority = CertificateParams::new(Vec::new()).expect("names");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority =
            CertifiedIssuer::self_signed(authority, KeyPair::generate().expect("a key"))
                .expect("an authority");
        let write = |name: &str, text: &str| {
            fs::write(folder.path().join(name), text).expect("written");
        };
        write("authority.pem", &authority.pem());
        for (name, subject) in [("broker", "localhost"), ("client", "orders")] {
            let key = KeyPair::generate().expect("a key");
            let params = CertificateParams::new(vec![subject.to_owned()]).expect("names");
            let certificate = params.signed_by(&key, &authority).expect("signed");
            write(&format!("{name}.pem"), &certificate.pem());
            write(&format!("{name}.key"), &key.serialize_pem());
        }
        Self { folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn tls(&self) -> Tls {
        Tls::new(self.path("broker.pem"), self.path("broker.key"))
    }

    /// A client that trusts the authority and shows a certificate if it is told to.
    pub(crate) fn client(&self, with_certificate: bool) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_file(self.path("authority.pem"));
        roots.add(authority.expect("PEM")).expect("a certificate");
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        Arc::new(match with_certificate {
            false => config.with_no_client_auth(),
            true => {
                let certificate = CertificateDer::from_pem_file(self.path("client.pem"));
                let key = PrivateKeyDer::from_pem_file(self.path("client.key"));
                config
                    .with_client_auth_cert(vec![certificate.expect("PEM")], key.expect("PEM"))
                    .expect("they fit")
            }
        })
    }
}
