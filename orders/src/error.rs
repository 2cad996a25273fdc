//! What can go wrong in a service, and what becomes of the record or request then.

use ackwell::{Class, Classify};

/// An error of the order system.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The database said no; it knows whether trying again helps.
    #[error(transparent)]
    Database(#[from] ackwell_sql::Error),
    /// A row that this program did not write so.
    #[error("stored data is damaged: {0}")]
    Damaged(String),
    /// An event that says something impossible. It says so next time, too.
    #[error("{0}")]
    Impossible(String),
}

impl Error {
    /// Text in the database that is not what this program writes.
    pub(crate) fn damaged(what: impl std::fmt::Display) -> Self {
        Self::Damaged(what.to_string())
    }
}

impl Classify for Error {
    fn class(&self) -> Class {
        match self {
            Self::Database(error) => error.class(),
            Self::Damaged(_) | Self::Impossible(_) => Class::Permanent,
        }
    }
}
