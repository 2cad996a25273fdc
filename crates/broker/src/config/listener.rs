//! Where clients come in: an address each, with what is asked of those who use it.

use std::fmt::{self, Display};
use std::path::PathBuf;
use std::str::FromStr;

/// One address to listen on. Plain and open until told otherwise.
///
/// Clients are told the advertised address of the listener that they came by, so a broker can serve
/// neighbours on loopback and others through TLS at the same time (Kafka's `listeners` and
/// `advertised.listeners`).
///
/// ```
/// use ackwell_broker::{Config, Listener, Mechanism, Tls};
///
/// let mut config = Config::new("./ackwell-data/broker");
/// let mut outside = Listener::new("external", "0.0.0.0:9094");
/// outside.advertised = Some("broker.example.com:9094".to_owned());
/// outside.tls = Some(Tls::new("server.pem", "server.key"));
/// outside.sasl = vec![Mechanism::ScramSha512];
/// config.listeners = vec![Listener::new("internal", "127.0.0.1:9092"), outside];
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Listener {
    /// A name for logs, unique in the broker.
    pub name: String,

    /// Address to listen on, `host:port`. Port 0 picks a free one.
    pub listen: String,

    /// Address that clients are told to connect to, `host:port`. Default: the address that they
    /// came by, which is wrong behind a tunnel, a container's port or a load balancer. With TLS it
    /// should be a name that the certificate has.
    pub advertised: Option<String>,

    /// Encryption. Default none.
    pub tls: Option<Tls>,

    /// How clients may log in. Default empty: nobody is asked, and everybody is `ANONYMOUS`.
    pub sasl: Vec<Mechanism>,
}

impl Listener {
    /// A plain, open listener.
    pub fn new(name: impl Into<String>, listen: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            listen: listen.into(),
            advertised: None,
            tls: None,
            sasl: Vec::new(),
        }
    }

    /// Kafka's name for what is spoken here, as in `security.protocol`.
    pub(crate) fn protocol(&self) -> &'static str {
        match (self.tls.is_some(), self.sasl.is_empty()) {
            (false, true) => "PLAINTEXT",
            (false, false) => "SASL_PLAINTEXT",
            (true, true) => "SSL",
            (true, false) => "SASL_SSL",
        }
    }
}

/// The files of a listener with TLS 1.2 and 1.3, all in PEM. Read once, at the start.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Tls {
    /// The broker's certificate, then those between it and the authority.
    pub certificate: PathBuf,

    /// The certificate's private key (PKCS#8, PKCS#1 or SEC1).
    pub key: PathBuf,

    /// Authorities whose clients are let in; without a certificate from one of them a client is
    /// refused. Default none: clients need no certificate. A certificate lets in and names nobody:
    /// who it is, SASL says.
    pub client_authorities: Option<PathBuf>,
}

impl Tls {
    /// TLS with this certificate and key; clients need none.
    pub fn new(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self {
            certificate: certificate.into(),
            key: key.into(),
            client_authorities: None,
        }
    }
}

/// A way to log in (SASL).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Mechanism {
    /// The password as it is (RFC 4616): only within TLS, or where nobody listens in.
    Plain,
    /// Proof that both sides know the password, which itself is not sent (RFC 5802, RFC 7677).
    ScramSha256,
    /// The same with SHA-512.
    ScramSha512,
}

impl Mechanism {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Plain, Self::ScramSha256, Self::ScramSha512];

    /// The name on the wire, as in `sasl.mechanism`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

impl Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Mechanism {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter();
        known
            .clone()
            .find(|mechanism| mechanism.name() == name)
            .ok_or_else(|| {
                let names: Vec<_> = known.map(Self::name).collect();
                format!("there is no mechanism {name}, only {}", names.join(", "))
            })
    }
}
