//! What can go wrong in a service, and what becomes of the record or request then.

use ackwell::{Class, Classify};
use uuid::Uuid;

use crate::payment::gateway::GatewayError;

/// An error of the order system.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The database said no; it knows whether trying again helps.
    #[error(transparent)]
    Database(#[from] ackwell_sql::Error),
    /// A row that this program did not write so.
    #[error("stored data is damaged: {0}")]
    Damaged(String),
    /// The payment gateway did not answer; it knows whether asking again helps.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    /// Another instance has decided the same a moment before; looking again shows what.
    #[error("order {0} was decided by another instance meanwhile")]
    Overtaken(Uuid),
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
            Self::Gateway(error) => error.class(),
            Self::Overtaken(_) => Class::Transient,
            Self::Damaged(_) | Self::Impossible(_) => Class::Permanent,
        }
    }
}
