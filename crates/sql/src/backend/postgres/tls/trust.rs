//! Which server's certificate is believed.

use std::path::PathBuf;
use std::sync::Arc;

use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::client::{WebPkiServerVerifier, verify_server_name};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
};

use super::{certificates, wrong};
use crate::error::Result;

/// The value of `sslrootcert` that means the authorities of the system.
pub(super) const SYSTEM: &str = "system";

/// Where systems keep them: Debian, Fedora, openSUSE, Alpine and macOS.
const SYSTEMS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Certificates of those who sign servers' certificates.
pub(super) struct Authorities(Vec<CertificateDer<'static>>);

impl Authorities {
    /// Those of a file, or of the system.
    pub(super) fn read(path: &str) -> Result<Self> {
        if path != SYSTEM {
            return certificates("sslrootcert", path).map(Self);
        }
        let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
        let mut files = named.into_iter().chain(SYSTEMS.map(PathBuf::from));
        let file = files.find(|file| file.exists()).ok_or_else(|| {
            wrong("sslrootcert=system: this system keeps none; name a file, or set SSL_CERT_FILE")
        })?;
        certificates("sslrootcert", &file.to_string_lossy()).map(Self)
    }

    /// Believes those whose certificates these have signed.
    pub(super) fn trust(self, names: bool, provider: &Arc<CryptoProvider>) -> Result<Trust> {
        let mut store = RootCertStore::empty();
        // Systems keep some that are older than the rules.
        let (added, _) = store.add_parsable_certificates(self.0.iter().cloned());
        if added == 0 {
            return Err(wrong("sslrootcert names no certificate that can be read"));
        }
        let chain =
            WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(provider))
                .build()
                .map_err(|error| wrong("sslrootcert can't be used").because(error))?;
        Ok(Trust {
            checked: Some(Checked {
                chain,
                pinned: self.0,
                names,
            }),
            provider: Arc::clone(provider),
        })
    }
}

/// Checks a server's certificate, or does not.
#[derive(Debug)]
pub(super) struct Trust {
    checked: Option<Checked>,
    provider: Arc<CryptoProvider>,
}

#[derive(Debug)]
struct Checked {
    chain: Arc<WebPkiServerVerifier>,
    /// The same authorities: a server that has signed its own certificate is its own.
    pinned: Vec<CertificateDer<'static>>,
    names: bool,
}

impl Trust {
    /// Believes whoever answers.
    pub(super) fn anybody(provider: &Arc<CryptoProvider>) -> Self {
        Self {
            checked: None,
            provider: Arc::clone(provider),
        }
    }
}

impl Checked {
    fn verify(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<(), TlsError> {
        use CertificateError::{NotValidForName, NotValidForNameContext};
        // As an authority's, which is how tools make those that sign themselves, it would not do as a server's.
        if self.pinned.contains(certificate) {
            return match self.names {
                true => verify_server_name(&ParsedCertificate::try_from(certificate)?, name),
                false => Ok(()),
            };
        }
        let verified = self
            .chain
            .verify_server_cert(certificate, intermediates, name, ocsp, now);
        match verified {
            // The name comes last.
            Err(TlsError::InvalidCertificate(NotValidForName | NotValidForNameContext { .. }))
                if !self.names =>
            {
                Ok(())
            }
            verified => verified.map(drop),
        }
    }
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        if let Some(checked) = &self.checked {
            checked.verify(certificate, intermediates, name, ocsp, now)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
    use tokio_rustls::rustls::crypto::ring;

    use super::*;

    /// As `openssl req -x509` makes them: an authority that is a server.
    fn self_signed() -> CertificateDer<'static> {
        let mut params = CertificateParams::new(["db.example".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    fn trust(authority: &CertificateDer<'static>, names: bool) -> Trust {
        let provider = Arc::new(ring::default_provider());
        let authorities = Authorities(vec![authority.clone()]);
        authorities.trust(names, &provider).unwrap()
    }

    fn believes(trust: &Trust, certificate: &CertificateDer<'_>, name: &str) -> bool {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        trust
            .verify_server_cert(certificate, &[], &name, &[], UnixTime::now())
            .is_ok()
    }

    #[test]
    fn a_server_that_has_signed_its_own_certificate_is_believed_if_that_is_named() {
        let own = self_signed();
        assert!(believes(&trust(&own, true), &own, "db.example"));
        assert!(!believes(&trust(&own, true), &own, "other.example"));
        assert!(believes(&trust(&own, false), &own, "other.example"));
        assert!(!believes(&trust(&own, false), &self_signed(), "db.example"));
    }

    #[test]
    fn without_authorities_anybody_is_believed() {
        let provider = Arc::new(ring::default_provider());
        assert!(believes(
            &Trust::anybody(&provider),
            &self_signed(),
            "db.example"
        ));
    }
}
