//! One relay at a time works on a database.
//!
//! Two would be no loss: each sends in an order that is right, so that the first appearance of an
//! event never comes before that of one it follows, and consumers know the second by its id. But the second
//! appearance may come late, behind newer events of its key, and that surprises whoever keeps no
//! inbox. So others stand by, and whoever loses the lease forgets what it has not sent.

mod file;
mod server;

use crate::database::Database;
use crate::error::{Error, Result};

/// Held while a relay works; dropped, it passes on.
#[derive(Debug)]
pub(super) enum Lease {
    /// On a file.
    File {
        /// The operating system's.
        _lock: file::Lock,
    },
    /// On a server.
    Server(Box<server::Held>),
}

/// Whether a relay is at work on the database, in any process.
pub(super) async fn is_held(database: &Database) -> Result<bool> {
    match database.location().path() {
        // Taken for a moment, in which a relay that asks for it is told to ask again.
        Some(path) => Ok(file::Lock::try_new(path)?.is_none()),
        None => server::is_held(database).await,
    }
}

/// A place in the queue for the lease.
#[derive(Debug, Default)]
pub(super) struct Candidate {
    /// The session that asks, on a server.
    session: Option<server::Candidate>,
}

impl Candidate {
    /// The lease, or `None` while another relay has it.
    pub(super) async fn attempt(&mut self, database: &Database) -> Result<Option<Lease>> {
        if let Some(path) = database.location().path() {
            let lock = file::Lock::try_new(path)?;
            return Ok(lock.map(|_lock| Lease::File { _lock }));
        }
        let session = match self.session.take() {
            Some(session) => session,
            None => server::Candidate::connect(database).await?,
        };
        match session.attempt().await? {
            Ok(held) => Ok(Some(Lease::Server(Box::new(held)))),
            Err(session) => {
                self.session = Some(session);
                Ok(None)
            }
        }
    }
}

impl Lease {
    /// Returns when the lease is lost, and says why. A file's can't be.
    pub(super) async fn lost(&mut self) -> Error {
        match self {
            Self::File { .. } => std::future::pending().await,
            Self::Server(held) => held.lost().await,
        }
    }
}
