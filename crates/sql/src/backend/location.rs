//! Where a database is, by its URL.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Server;
use crate::error::{Error, Result};

/// Which database a URL means.
#[derive(Clone)]
pub(crate) enum Location {
    /// A SQLite file.
    File(PathBuf),
    /// A PostgreSQL server, database and schema.
    Server(Arc<Server>),
}

impl Location {
    /// Reads `sqlite:path` or `postgres://user:password@host:port/database`.
    pub(crate) fn parse(url: &str) -> Result<Self> {
        if let Some(path) = url.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return match path {
                "" | ":memory:" => Err(Error::usage(format!(
                    "opening {url:?}: a database needs a file that outlives the program; \
                     write sqlite:path/to/file.db"
                ))),
                path => Ok(Self::File(PathBuf::from(path))),
            };
        }
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            return Ok(Self::Server(Arc::new(Server::parse(url)?)));
        }
        Err(Error::usage(
            "opening DATABASE_URL: it begins with neither sqlite: nor postgres://; write \
             sqlite:path/to/file.db or postgres://user:password@host:port/database",
        ))
    }

    /// The file, where it is one.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Server(_) => None,
        }
    }

    /// The server, where it is one.
    pub(crate) fn server(&self) -> Option<&Arc<Server>> {
        match self {
            Self::File(_) => None,
            Self::Server(server) => Some(server),
        }
    }

    /// A short name: the file's, without its ending, or the schema's.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::File(path) => {
                let stem = path.file_stem().unwrap_or_default();
                stem.to_string_lossy().into_owned()
            }
            Self::Server(server) => server.name().to_owned(),
        }
    }
}

/// Without user and password.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Server(server) => server.fmt(f),
        }
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(url: &str) -> PathBuf {
        Location::parse(url).unwrap().path().unwrap().to_owned()
    }

    #[test]
    fn a_url_names_a_file() {
        for url in ["sqlite:data/orders.db", "sqlite://data/orders.db"] {
            assert_eq!(file(url), Path::new("data/orders.db"));
        }
        assert_eq!(file("sqlite:///srv/x.db"), Path::new("/srv/x.db"));
    }

    #[test]
    fn a_url_names_a_server() {
        let url = "postgres://ackwell:secret@db:5433/shop?schema=orders";
        let location = Location::parse(url).unwrap();
        assert_eq!(location.to_string(), "db:5433/shop, schema orders");
        assert_eq!(location.name(), "orders");
        assert!(!format!("{location:?}").contains("secret"));
    }

    #[test]
    fn a_database_in_memory_is_refused() {
        assert!(Location::parse("sqlite::memory:").is_err());
        assert!(Location::parse("sqlite:").is_err());
        assert!(Location::parse("orders.db").is_err());
    }
}
