//! The settings of a broker in a TOML file, for one that runs as a process of its own.
//!
//! Keys are the names of [`Config`]'s fields. A key that does not exist is refused: a limit that
//! is misspelt would otherwise be no limit. Passwords don't stand in the file, which is copied,
//! shown and kept in repositories; it says where they are.

mod parts;
mod value;

use std::io;
use std::path::{Path, PathBuf};

use super::{Config, User};
use crate::Error;
use crate::error::Kind;
use parts::{File, Secret, UserPart};

impl Config {
    /// Reads settings from a TOML file; what it does not name has its default. Paths in it are
    /// relative to the file's folder; without `folder` the data is in `./ackwell-data/broker` of
    /// the working directory.
    ///
    /// ```toml
    /// folder = "/var/lib/ackwell"
    /// flush = "always"                 # or "interval:200" (milliseconds), or "never"
    /// retention = "7d"                 # ms, s, m, h, d, or "forever"
    ///
    /// [limits]
    /// connections_max = 500
    ///
    /// [[listeners]]
    /// name = "internal"
    /// listen = "127.0.0.1:9092"
    ///
    /// [[listeners]]
    /// name = "external"
    /// listen = "0.0.0.0:9094"
    /// advertised = "broker.example.com:9094"
    /// tls = { certificate = "broker.pem", key = "broker.key" }
    /// sasl = ["SCRAM-SHA-512"]
    ///
    /// [[users]]
    /// name = "orders"
    /// password = { env = "ORDERS_PASSWORD" }      # or { file = "orders.password" }
    ///
    /// [access]                         # without this section, everybody may do everything
    /// super_users = ["admin", "ANONYMOUS"]
    ///
    /// [[access.rules]]
    /// user = "orders"
    /// may = ["read", "write"]          # and "admin"
    /// topics = ["orders", "orders.*"]
    /// groups = ["orders*"]
    /// ```
    ///
    /// # Errors
    /// When the file or a password can't be read; with the line of what can't be understood.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|error| unread(path, error))?;
        let source = Source {
            name: path.display().to_string(),
            base: path.parent().unwrap_or(Path::new("")),
            environment: &|name| std::env::var(name).ok(),
        };
        source.config(&text)
    }
}

/// Where a text is from, and where what it refers to is.
struct Source<'a> {
    name: String,
    base: &'a Path,
    environment: &'a dyn Fn(&str) -> Option<String>,
}

impl Source<'_> {
    fn config(&self, text: &str) -> Result<Config, Error> {
        let mut file: File = toml::from_str(text).map_err(|error| self.misread(text, &error))?;
        let folder = match file.folder.take() {
            Some(folder) => self.base.join(folder),
            None => PathBuf::from("./ackwell-data/broker"),
        };
        let mut config = Config::new(folder);
        for user in std::mem::take(&mut file.users) {
            config.users.push(self.user(user)?);
        }
        file.apply(&mut config, self.base);
        Ok(config)
    }

    fn user(&self, part: UserPart) -> Result<User, Error> {
        let UserPart { name, password } = part;
        let secret = match password {
            Secret::Env(variable) => (self.environment)(&variable).ok_or_else(|| {
                self.wrong(&format!(
                    "user {name}: the environment variable {variable} is not set"
                ))
            })?,
            Secret::File(path) => {
                let path = self.base.join(path);
                let text = std::fs::read_to_string(&path).map_err(|error| unread(&path, error))?;
                // Editors end a file with a line break.
                text.trim_end_matches(['\r', '\n']).to_owned()
            }
        };
        Ok(User::new(name, secret))
    }

    /// Says the line and not what stands there: it may be a password in the wrong place.
    fn misread(&self, text: &str, error: &toml::de::Error) -> Error {
        let before = error.span().and_then(|span| text.get(..span.start));
        let message = error.message();
        match before {
            Some(before) => {
                let line = before.matches('\n').count() + 1;
                self.wrong(&format!("line {line}: {message}"))
            }
            None => self.wrong(message),
        }
    }

    fn wrong(&self, what: &str) -> Error {
        Error::new(Kind::Config, format!("{}: {what}", self.name))
    }
}

fn unread(path: &Path, error: io::Error) -> Error {
    let reading = format!("reading {}", path.display());
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::InvalidData => {
            Error::new(Kind::Config, reading).caused_by(error)
        }
        _ => Error::io(reading, error),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Flush, Mechanism, Right};

    fn read(text: &str) -> Result<Config, Error> {
        let source = Source {
            name: "broker.toml".to_owned(),
            base: Path::new("/etc/ackwell"),
            environment: &|name| (name == "ORDERS_PASSWORD").then(|| "s3cret".to_owned()),
        };
        source.config(text)
    }

    fn refused(text: &str) -> String {
        let error = read(text).unwrap_err();
        assert!(error.is_config(), "{error}");
        error.to_string()
    }

    #[test]
    fn an_empty_file_gives_the_defaults() {
        let config = read("").unwrap();
        assert_eq!(config.listen, "127.0.0.1:9092");
        assert_eq!(config.folder, Path::new("./ackwell-data/broker"));
        assert_eq!(config.flush, Flush::Always);
    }

    #[test]
    fn what_the_file_names_is_set() {
        let config = read(
            r#"
            folder = "data"
            flush = "interval:200"
            auto_create_topics = true
            default_partitions = 12
            retention = "forever"
            retention_bytes = 1_000_000
            [limits]
            connections_max = 7
            idle_max = "90s"
            [groups]
            members_max = 5
            consumer_heartbeat_interval = "2s"
            consumer_session_timeout = "20s"
            [transactions]
            timeout_max = "1h"
            id_expiration = "1d"
            state_partitions = 2
            [cleaning]
            interval = "1m"
            [[listeners]]
            name = "internal"
            listen = "127.0.0.1:9092"
            [[listeners]]
            name = "external"
            listen = "0.0.0.0:9094"
            advertised = "broker.lan:9094"
            tls = { certificate = "broker.pem", key = "/keys/broker.key" }
            sasl = ["SCRAM-SHA-512", "PLAIN"]
            [[users]]
            name = "orders"
            password = { env = "ORDERS_PASSWORD" }
            [access]
            super_users = ["ANONYMOUS"]
            [[access.rules]]
            user = "orders"
            may = ["read", "write"]
            topics = ["orders*"]
            groups = ["g"]
            transactional_ids = ["t"]
            [[access.rules]]
            user = "*"
            may = ["admin"]
            cluster = true
            "#,
        )
        .unwrap();
        assert_eq!(config.folder, Path::new("/etc/ackwell/data"));
        assert_eq!(config.flush, Flush::Interval(Duration::from_millis(200)));
        assert!(config.auto_create_topics);
        assert_eq!(config.default_partitions, 12);
        assert_eq!(config.retention, None);
        assert_eq!(config.retention_bytes, Some(1_000_000));
        assert_eq!(config.limits.connections_max, 7);
        assert_eq!(config.limits.idle_max, Duration::from_secs(90));
        assert_eq!(config.groups.members_max, 5);
        let seconds = Duration::from_secs;
        assert_eq!(config.groups.consumer_heartbeat_interval, seconds(2));
        assert_eq!(config.groups.consumer_session_timeout, seconds(20));
        assert_eq!(config.transactions.timeout_max, seconds(60 * 60));
        assert_eq!(config.transactions.id_expiration, seconds(24 * 60 * 60));
        assert_eq!(config.transactions.state_partitions, 2);
        assert_eq!(config.cleaning.interval, Duration::from_secs(60));
        let external = &config.listeners[1];
        assert_eq!(external.advertised.as_deref(), Some("broker.lan:9094"));
        let tls = external.tls.as_ref().unwrap();
        assert_eq!(tls.certificate, Path::new("/etc/ackwell/broker.pem"));
        assert_eq!(tls.key, Path::new("/keys/broker.key"));
        assert_eq!(external.sasl, [Mechanism::ScramSha512, Mechanism::Plain]);
        assert_eq!(config.users[0].password, "s3cret".into());
        assert!(config.access.ruled);
        assert_eq!(config.access.super_users, ["ANONYMOUS"]);
        assert_eq!(config.access.rules[0].may, [Right::Read, Right::Write]);
        assert_eq!(config.access.rules[0].topics, ["orders*"]);
        assert!(config.access.rules[1].cluster);
        config.effective_listeners().unwrap();
    }

    #[test]
    fn a_key_that_does_not_exist_is_refused_with_its_line() {
        for (text, line) in [
            ("\nretentoin = \"1d\"", "line 2: unknown field `retentoin`"),
            (
                "[limits]\n\nconnections = 3",
                "line 3: unknown field `connections`",
            ),
            ("[groups]\nx = 1", "line 2"),
            (
                "[[listeners]]\nname = \"a\"\nlisten = \"b\"\nssl = true",
                "line 4",
            ),
            ("[access]\nallow = 1", "line 2"),
            (
                "[[access.rules]]\nuser = \"a\"\nmay = []\ntopic = \"b\"",
                "line 4",
            ),
            ("[unknown]\n", "unknown field `unknown`"),
        ] {
            let told = refused(text);
            assert!(told.starts_with("broker.toml: line "), "{told}");
            assert!(told.contains(line), "{told}");
        }
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_told_with_what_is_right() {
        for (text, mend) in [
            ("retention = \"long\"", "as in 7d"),
            ("retention = 7", "as in 7d"),
            ("flush = \"sometimes\"", "interval:MS"),
            ("[limits]\nconnections_max = -1", "line 2"),
            ("[limits]\nidle_max = \"9 years\"", "as in 7d"),
            ("[limits]\nidle_max = \"99999999999999999999d\"", "as in 7d"),
            (
                "[[listeners]]\nname = \"a\"\nlisten = \"b\"\nsasl = [\"GSSAPI\"]",
                "SCRAM-SHA-256",
            ),
            ("[[listeners]]\nname = \"a\"", "listen"),
            ("[[access.rules]]\nuser = \"a\"\nmay = [\"fly\"]", "admin"),
            ("folder = ", "line 1"),
        ] {
            let told = refused(text);
            assert!(told.contains(mend), "{told}");
        }
    }

    #[test]
    fn a_password_does_not_stand_in_the_file_and_not_in_the_refusal() {
        let told = refused("[[users]]\nname = \"orders\"\npassword = \"s3cret\"");
        assert!(told.contains("line 3"), "{told}");
        assert!(told.contains("{ env = "), "{told}");
        assert!(!told.contains("s3cret"), "{told}");
        let told = refused("[[users]]\nname = \"orders\"\npassword = { env = \"UNSET\" }");
        assert!(told.contains("UNSET is not set"), "{told}");
        let told = refused("[[users]]\nname = \"orders\"\npassword = { file = \"/no/such\" }");
        assert!(told.contains("/no/such"), "{told}");
        for both in [
            "{ env = \"A\", file = \"b\" }",
            "{ }",
            "{ text = \"s3cret\" }",
        ] {
            refused(&format!("[[users]]\nname = \"orders\"\npassword = {both}"));
        }
    }

    #[test]
    fn a_password_from_a_file_has_no_line_break_at_its_end() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("secret"), " s3 cret \r\n").unwrap();
        let path = folder.path().join("broker.toml");
        std::fs::write(
            &path,
            "[[users]]\nname = \"orders\"\npassword = { file = \"secret\" }",
        )
        .unwrap();
        let config = Config::from_file(&path).unwrap();
        assert_eq!(config.users[0].password, " s3 cret ".into());
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = Config::from_file("/no/such/broker.toml").unwrap_err();
        assert!(error.is_config());
        assert!(error.to_string().contains("/no/such/broker.toml"));
    }
}
