//! TLS to a server: whom to believe, by the URL's `sslmode` and `sslrootcert`, as libpq does.
//!
//! Encryption without a check of the certificate hides what is said from those who listen, and not from
//! those who answer in the server's place. That is what `prefer`, the default, and `require` promise, and no more;
//! over networks of others it is `verify-full` that is wanted.

mod binding;
mod stream;
mod trust;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio_postgres::Socket;
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{CertificateError, ClientConfig, Error as TlsError};

use crate::error::{Error, Result};
pub(super) use stream::Encrypted;
use trust::{Authorities, Trust};

/// The name of the protocol inside, by which a port that serves several tells them apart.
const PROTOCOL: &[u8] = b"postgresql";

/// The URL's parameters that concern TLS.
#[derive(Debug, Default)]
pub(super) struct Parameters {
    mode: Option<Mode>,
    authorities: Option<String>,
    certificate: Option<String>,
    key: Option<String>,
}

/// How much of a server is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Disable,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl Parameters {
    /// Takes a parameter of the URL; answers whether it is one of these.
    pub(super) fn take(&mut self, name: &str, value: &str) -> Result<bool> {
        let path = match name {
            "sslmode" => {
                self.mode = Some(Mode::parse(value)?);
                return Ok(true);
            }
            "sslrootcert" => &mut self.authorities,
            "sslcert" => &mut self.certificate,
            "sslkey" => &mut self.key,
            _ => return Ok(false),
        };
        *path = Some(decoded(value).ok_or_else(|| {
            wrong(format!(
                "{name} is no path; write % as %25 and & as %26 in it"
            ))
        })?);
        Ok(true)
    }

    /// Reads the files that are named.
    ///
    /// # Errors
    /// When the parameters do not fit together, or a file can't be read.
    pub(super) fn resolve(self) -> Result<Tls> {
        let mode = self.mode()?;
        let provider = Arc::new(ring::default_provider());
        let authorities = self.authorities.as_deref().map(Authorities::read);
        let authorities = authorities.transpose()?;
        let trust = match mode {
            Mode::Disable | Mode::Prefer => Trust::anybody(&provider),
            Mode::Require | Mode::VerifyCa | Mode::VerifyFull => match authorities {
                Some(read) => read.trust(mode == Mode::VerifyFull, &provider)?,
                None => Trust::anybody(&provider),
            },
        };
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong("setting up TLS").because(error))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(trust));
        let mut config = match (&self.certificate, &self.key) {
            (None, None) => config.with_no_client_auth(),
            (Some(certificate), Some(key)) => {
                let chain = certificates("sslcert", certificate)?;
                let key = PrivateKeyDer::from_pem_file(key)
                    .map_err(|error| unread("sslkey", "a private key", error))?;
                config.with_client_auth_cert(chain, key).map_err(|error| {
                    wrong("sslcert and sslkey do not belong together").because(error)
                })?
            }
            _ => return Err(wrong("sslcert and sslkey go together; name both")),
        };
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(Tls {
            mode,
            connector: TlsConnector::from(Arc::new(config)),
        })
    }

    /// The mode that was meant, as libpq reads them.
    fn mode(&self) -> Result<Mode> {
        let system = self.authorities.as_deref() == Some(trust::SYSTEM);
        match (self.mode, &self.authorities) {
            (None, Some(_)) if system => Ok(Mode::VerifyFull),
            (Some(mode), Some(_)) if system && mode != Mode::VerifyFull => Err(wrong(
                "with sslrootcert=system anybody has a valid certificate, so its name must be checked; \
                 write sslmode=verify-full",
            )),
            (Some(Mode::VerifyCa | Mode::VerifyFull), None) => Err(wrong(
                "sslmode asks for a certificate that is verified, and nobody is named who may have signed it; \
                 add sslrootcert=/path/to/authority.crt, or sslrootcert=system for those that the system \
                 believes",
            )),
            (Some(Mode::Require), Some(_)) => Ok(Mode::VerifyCa),
            (mode, _) => Ok(mode.unwrap_or(Mode::Prefer)),
        }
    }
}

impl Mode {
    fn parse(text: &str) -> Result<Self> {
        Ok(match text {
            "disable" => Self::Disable,
            "prefer" => Self::Prefer,
            "require" => Self::Require,
            "verify-ca" => Self::VerifyCa,
            "verify-full" => Self::VerifyFull,
            _ => {
                return Err(wrong(
                    "sslmode is none of disable, prefer, require, verify-ca, verify-full",
                ));
            }
        })
    }
}

/// How a server is spoken to; makes connections for the driver.
#[derive(Clone)]
pub(super) struct Tls {
    mode: Mode,
    connector: TlsConnector,
}

impl Tls {
    /// What the driver has to ask the server for.
    pub(super) fn mode(&self) -> SslMode {
        match self.mode {
            Mode::Disable => SslMode::Disable,
            Mode::Prefer => SslMode::Prefer,
            Mode::Require | Mode::VerifyCa | Mode::VerifyFull => SslMode::Require,
        }
    }
}

impl MakeTlsConnect<Socket> for Tls {
    type Stream = Encrypted;
    type TlsConnect = Handshake;
    type Error = NotBelieved;

    fn make_tls_connect(&mut self, host: &str) -> Result<Handshake, NotBelieved> {
        Ok(Handshake {
            connector: self.connector.clone(),
            host: host.to_owned(),
        })
    }
}

/// About to shake hands with the server of this name.
pub(super) struct Handshake {
    connector: TlsConnector,
    host: String,
}

impl TlsConnect<Socket> for Handshake {
    type Stream = Encrypted;
    type Error = NotBelieved;
    type Future = Pin<Box<dyn Future<Output = Result<Encrypted, NotBelieved>> + Send>>;

    fn connect(self, stream: Socket) -> Self::Future {
        Box::pin(async move {
            let name = ServerName::try_from(self.host.clone());
            let name = name.map_err(|_| NotBelieved {
                why: format!("{:?} is no name that a certificate could be for", self.host),
                source: None,
            })?;
            match self.connector.connect(name, stream).await {
                Ok(stream) => Ok(Encrypted::new(stream)),
                Err(error) => Err(NotBelieved::new(&self.host, error)),
            }
        })
    }
}

/// Why there was no handshake, and what mends it.
#[derive(Debug)]
pub(super) struct NotBelieved {
    why: String,
    source: Option<std::io::Error>,
}

impl NotBelieved {
    fn new(host: &str, error: std::io::Error) -> Self {
        use CertificateError::{
            Expired, ExpiredContext, NotValidForName, NotValidForNameContext, UnknownIssuer,
        };
        let certificate = error.get_ref().and_then(|inner| inner.downcast_ref());
        let why = match certificate {
            Some(TlsError::InvalidCertificate(UnknownIssuer)) => {
                "nobody whom sslrootcert names has signed the server's certificate".to_owned()
            }
            Some(TlsError::InvalidCertificate(NotValidForName | NotValidForNameContext { .. })) => {
                format!(
                    "the server's certificate is for other names than {host}; write the name that it is for, \
                     or sslmode=verify-ca if names don't matter"
                )
            }
            Some(TlsError::InvalidCertificate(Expired | ExpiredContext { .. })) => {
                "the server's certificate has expired".to_owned()
            }
            _ => "shaking hands".to_owned(),
        };
        let source = Some(error);
        Self { why, source }
    }
}

impl fmt::Display for NotBelieved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for NotBelieved {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        let source = self.source.as_ref()?;
        Some(source as &(dyn std::error::Error + 'static))
    }
}

fn certificates(parameter: &str, path: &str) -> Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let read = read.and_then(|found| match found.is_empty() {
        true => Err(pem::Error::NoItemsFound),
        false => Ok(found),
    });
    read.map_err(|error| unread(parameter, "certificates", error))
}

/// The path may be secret as little as the URL's other parts; the parameter's name says enough.
fn unread(parameter: &str, what: &str, error: pem::Error) -> Error {
    wrong(format!("{parameter} names no file with {what}")).because(error)
}

fn wrong(what: impl fmt::Display) -> Error {
    Error::usage(format!("opening DATABASE_URL: {what}"))
}

/// Undoes the URL's way of writing bytes as `%2F`.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, tail) = rest.split_at_checked(2)?;
        let digits = str::from_utf8(digits).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = tail;
    }
    String::from_utf8(bytes)
        .ok()
        .filter(|path| !path.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(list: &[(&str, &str)]) -> Result<Parameters> {
        let mut parameters = Parameters::default();
        for (name, value) in list {
            assert!(parameters.take(name, value)?, "{name}");
        }
        Ok(parameters)
    }

    fn mode(list: &[(&str, &str)]) -> Result<Mode> {
        parameters(list)?.mode()
    }

    #[test]
    fn modes_mean_what_they_mean_to_libpq() {
        let root = ("sslrootcert", "/etc/root.crt");
        assert_eq!(mode(&[]).unwrap(), Mode::Prefer);
        assert_eq!(mode(&[("sslmode", "require")]).unwrap(), Mode::Require);
        let named = mode(&[("sslmode", "require"), root]);
        assert_eq!(named.unwrap(), Mode::VerifyCa);
        assert_eq!(
            mode(&[("sslrootcert", "system")]).unwrap(),
            Mode::VerifyFull
        );
    }

    #[test]
    fn modes_that_would_verify_nothing_are_refused() {
        for list in [
            &[("sslmode", "verify-full")][..],
            &[("sslmode", "verify-ca")],
            &[("sslmode", "verify-ca"), ("sslrootcert", "system")],
            &[("sslmode", "require"), ("sslrootcert", "system")],
            &[("sslmode", "yes")],
        ] {
            assert!(mode(list).is_err(), "{list:?}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_named_by_its_parameter() {
        let list = [("sslmode", "verify-full"), ("sslrootcert", "/nowhere/x")];
        let error = parameters(&list).unwrap().resolve().err().unwrap();
        assert!(error.to_string().contains("sslrootcert"), "{error}");
    }

    #[test]
    fn a_certificate_without_its_key_is_refused() {
        let error = parameters(&[("sslcert", "/x")]).unwrap().resolve();
        assert!(error.err().unwrap().to_string().contains("sslkey"));
    }

    #[test]
    fn paths_are_decoded() {
        assert_eq!(decoded("/a%20b/c").unwrap(), "/a b/c");
        assert_eq!(decoded("%2Fx").unwrap(), "/x");
        for wrong in ["", "%", "%2", "%zz", "%ff"] {
            assert_eq!(decoded(wrong), None, "{wrong}");
        }
    }
}
