//! Which server, and connecting to it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use tokio_postgres::config::Host;
use tokio_postgres::{Client, Config, Connection, Socket};

use super::error::{explain, unreachable};
use super::tls::{Encrypted, Parameters, Tls};
use crate::error::{Error, Result};

/// How long a connection may take where the URL has no `connect_timeout`.
const CONNECT_WAIT: Duration = Duration::from_secs(5);

/// How long what was sent may stay unacknowledged by the network, and how long a silent connection
/// is believed in; then it counts as lost. Without, a cut cable is noticed after a quarter of an hour.
const SILENCE_MAX: Duration = Duration::from_secs(15);
const PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// A PostgreSQL server with a database and a schema, as a URL names them.
pub(crate) struct Server {
    config: Config,
    tls: Tls,
    /// Where the tables are; `None` leaves it to the server, which says `public`.
    schema: Option<String>,
}

/// What holds for all statements of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Session {
    /// How long a statement waits for what another transaction has locked.
    pub(crate) lock_wait: Duration,
    /// How long a transaction may stand still before the server ends it. Its process may be
    /// stopped or cut off, and what it has locked concerns others.
    pub(crate) idle_max: Duration,
    /// Whether it can't write.
    pub(crate) read_only: bool,
}

impl Server {
    /// Reads `postgres://user:password@host:port/database`. Besides the parameters of
    /// `tokio-postgres` it knows `schema`, and those of libpq for TLS.
    ///
    /// # Errors
    /// When it, or a file that it names, can't be read. The error shows nothing of the URL, which may
    /// hold a password.
    pub(crate) fn parse(url: &str) -> Result<Self> {
        let (address, parameters) = url.split_once('?').unwrap_or((url, ""));
        let mut schema = None;
        let mut tls = Parameters::default();
        let mut rest = Vec::new();
        for parameter in parameters.split('&').filter(|text| !text.is_empty()) {
            match parameter.split_once('=') {
                Some(("schema", name)) => schema = Some(checked_schema(name)?),
                Some((name, value)) if tls.take(name, value)? => {}
                _ => rest.push(parameter),
            }
        }
        let url = format!("{address}?{}", rest.join("&"));
        let mut config = Config::from_str(&url).map_err(|_| unreadable())?;
        if is_misread(&config) {
            return Err(unreadable());
        }
        let tls = tls.resolve()?;
        config.ssl_mode(tls.mode());
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_WAIT);
        }
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(SILENCE_MAX);
        }
        config.keepalives_idle(PROBE_INTERVAL);
        config.keepalives_interval(PROBE_INTERVAL);
        config.keepalives_retries(2);
        if config.get_application_name().is_none() {
            config.application_name("ackwell");
        }
        Ok(Self {
            config,
            tls,
            schema,
        })
    }

    /// A connection, and what drives it: nothing is answered unless that is polled.
    ///
    /// # Errors
    /// When the server is not there or does not let us in: unavailable, whatever it is,
    /// since an operator can mend it while records wait.
    pub(crate) async fn connect(&self) -> Result<(Client, Connection<Socket, Encrypted>)> {
        let connected = self.config.connect(self.tls.clone()).await;
        connected.map_err(|error| unreachable(&self.to_string(), error))
    }

    /// Sets up what holds for all statements of a connection.
    pub(crate) async fn prepare(&self, client: &Client, session: &Session) -> Result<()> {
        let mut sql = format!(
            "SET lock_timeout = {}; SET idle_in_transaction_session_timeout = {};",
            session.lock_wait.as_millis(),
            session.idle_max.as_millis()
        );
        if session.read_only {
            sql.push_str("SET default_transaction_read_only = on;");
        }
        if let Some(schema) = &self.schema {
            sql.push_str(&format!("SET search_path = \"{schema}\";"));
        }
        let ready = client.batch_execute(&sql).await;
        ready.map_err(|error| explain("setting up a connection", error))
    }

    /// The schema, quoted, if the URL names one.
    pub(crate) fn schema(&self) -> Option<String> {
        self.schema.as_ref().map(|name| format!("\"{name}\""))
    }

    /// The schema's name, as it is said to those who listen.
    pub(crate) fn schema_name(&self) -> &str {
        self.schema.as_deref().unwrap_or("public")
    }

    /// A short name for health and logs.
    pub(crate) fn name(&self) -> &str {
        let database = self.config.get_dbname().unwrap_or("postgres");
        self.schema.as_deref().unwrap_or(database)
    }
}

fn unreadable() -> Error {
    Error::usage(
        "opening DATABASE_URL: it can't be read; write \
         postgres://user:password@host:port/database?schema=name, with other characters than letters and \
         digits in user and password as %40 (@), %2F (/), %3A (:), %3F (?), %23 (#), %25 (%)",
    )
}

/// A schema's name goes into statements; so it is kept plain.
fn checked_schema(name: &str) -> Result<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !name.is_empty() && name.len() <= 63 && name.chars().all(plain) {
        return Ok(name.to_owned());
    }
    Err(Error::usage(
        "opening DATABASE_URL: schema is no name of at most 63 letters, digits, _ and -",
    ))
}

/// Whether parts of a password that were not escaped were taken for something else.
fn is_misread(config: &Config) -> bool {
    let host_is_odd = |host: &Host| match host {
        Host::Tcp(name) => name.chars().any(|c| "@/?#%".contains(c)),
        Host::Unix(_) => false,
    };
    config.get_hosts().is_empty()
        || config.get_hosts().iter().any(host_is_odd)
        || config.get_dbname().is_some_and(|name| name.contains('@'))
}

/// Hosts, ports, database and schema; never user and password.
impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports = self.config.get_ports();
        for (place, host) in self.config.get_hosts().iter().enumerate() {
            let port = ports.get(place).or(ports.first()).unwrap_or(&5432);
            let comma = if place == 0 { "" } else { "," };
            match host {
                Host::Tcp(name) => write!(f, "{comma}{name}:{port}")?,
                Host::Unix(path) => write!(f, "{comma}{}:{port}", path.display())?,
            }
        }
        write!(f, "/{}", self.config.get_dbname().unwrap_or("postgres"))?;
        match &self.schema {
            Some(schema) => write!(f, ", schema {schema}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_not_be_read_is_refused_and_its_password_not_shown() {
        for url in [
            "postgres://ackwell:se@cret@db/shop",
            "postgres://ackwell:se#cret@db:x/shop",
            "postgres:///shop",
        ] {
            let error = Server::parse(url)
                .err()
                .map(|error| format!("{error} {error:?}"));
            let error = error.unwrap_or_else(|| panic!("{url} is taken"));
            assert!(!error.contains("cret"), "{error}");
        }
    }

    #[test]
    fn a_schema_is_a_plain_name() {
        assert!(Server::parse("postgres://db/shop?schema=a%22;drop").is_err());
        assert!(Server::parse("postgres://db/shop?schema=").is_err());
        let server = Server::parse("postgres://db/shop?connect_timeout=3&schema=order-2").unwrap();
        assert_eq!(server.schema().unwrap(), "\"order-2\"");
        assert_eq!(server.name(), "order-2");
    }
}
