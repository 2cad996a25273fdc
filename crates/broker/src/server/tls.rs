//! TLS: from the files of a listener to what shakes hands.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::error::Kind;
use crate::{Error, Tls};

/// Reads the files.
///
/// # Errors
/// When one cannot be read, is not what it should be, or the key is another certificate's.
pub(crate) fn acceptor(tls: &Tls) -> Result<TlsAcceptor, Error> {
    let provider = Arc::new(ring::default_provider());
    let chain = certificates(&tls.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&tls.key)
        .map_err(|error| unread(&tls.key, "private key", error))?;
    let clients = match &tls.client_authorities {
        Some(authorities) => client_verifier(authorities, &provider)?,
        None => WebPkiClientVerifier::no_client_auth(),
    };
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::new(Kind::Config, "setting up TLS").caused_by(error))?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)
        .map_err(|error| {
            let (certificate, key) = (tls.certificate.display(), tls.key.display());
            let what =
                format!("the certificate {certificate} and the key {key} do not work together");
            Error::new(Kind::Config, what).caused_by(error)
        })?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let chain: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| unread(path, "certificate", error))?;
    match chain.is_empty() {
        true => Err(unread(path, "certificate", pem::Error::NoItemsFound)),
        false => Ok(chain),
    }
}

fn client_verifier(
    path: &Path,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    let mut authorities = RootCertStore::empty();
    let unusable = |what: &str| format!("client authorities in {}: {what}", path.display());
    for certificate in certificates(path)? {
        authorities.add(certificate).map_err(|error| {
            Error::new(Kind::Config, unusable("a certificate is malformed")).caused_by(error)
        })?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), Arc::clone(provider))
        .build()
        .map_err(|error| Error::new(Kind::Config, unusable("unusable")).caused_by(error))
}

fn unread(path: &Path, what: &str, error: pem::Error) -> Error {
    let path = path.display();
    match error {
        pem::Error::Io(error) => {
            let kind = match error.kind() {
                io::ErrorKind::NotFound => Kind::Config,
                _ => Kind::Io,
            };
            Error::new(kind, format!("reading the {what} {path}")).caused_by(error)
        }
        pem::Error::NoItemsFound => Error::new(
            Kind::Config,
            format!("{path} holds no {what} in PEM (\"-----BEGIN ..\")"),
        ),
        other => {
            Error::new(Kind::Config, format!("{path} is not well-formed PEM")).caused_by(other)
        }
    }
}
