//! Reads beside the writing transactions, on connections that cannot write.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::backend::{Connection, Location, Postgres, Session, at_once, open_reader};
use crate::error::{Error, Result};
use crate::row::Row;
use crate::value::Value;

/// A bounded pool of reading connections, opened when first needed.
pub(crate) struct Readers {
    location: Location,
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
    session: Session,
}

impl Readers {
    pub(crate) fn new(location: Location, connections: usize, session: Session) -> Self {
        let permits = Arc::new(Semaphore::new(connections));
        Self {
            location,
            idle: Mutex::default(),
            permits,
            session,
        }
    }

    /// Runs a query; waits for a free connection.
    pub(crate) async fn query(
        self: &Arc<Self>,
        sql: &str,
        params: &[Value<'_>],
    ) -> Result<Vec<Row>> {
        let wait = self.session.lock_wait;
        let permit = tokio::time::timeout(wait, Arc::clone(&self.permits).acquire_owned());
        let Ok(Ok(permit)) = permit.await else {
            return Err(Error::unavailable(format!(
                "waiting for a reading connection: all were busy for {wait:?}"
            )));
        };
        match self.location {
            Location::File(_) => self.query_file(permit, sql, params).await,
            Location::Server(_) => self.query_server(sql, params).await,
        }
    }

    /// On a blocking thread.
    async fn query_file(
        self: &Arc<Self>,
        permit: OwnedSemaphorePermit,
        sql: &str,
        params: &[Value<'_>],
    ) -> Result<Vec<Row>> {
        let readers = Arc::clone(self);
        let sql = sql.to_owned();
        let params: Vec<_> = params.iter().cloned().map(Value::into_owned).collect();
        let work = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let mut connection = readers.connection()?;
            let rows = at_once(connection.query(&sql, &params));
            readers.idle().push(connection);
            rows
        });
        work.await
            .map_err(|gone| Error::unavailable("reading").because(gone))?
    }

    /// A connection that was lost while it was idle is made anew, once.
    async fn query_server(&self, sql: &str, params: &[Value<'_>]) -> Result<Vec<Row>> {
        let mut connection = self.connection()?;
        let was_linked = connection.is_linked();
        let mut rows = connection.query(sql, params).await;
        if was_linked && !connection.is_linked() {
            rows = connection.query(sql, params).await;
        }
        self.idle().push(connection);
        rows
    }

    fn connection(&self) -> Result<Connection> {
        let idle = self.idle().pop();
        if let Some(connection) = idle {
            return Ok(connection);
        }
        Ok(match &self.location {
            Location::File(path) => Connection::Sqlite(open_reader(path, self.session.lock_wait)?),
            Location::Server(server) => {
                let postgres = Postgres::new(Arc::clone(server), self.session);
                Connection::Postgres(Box::new(postgres))
            }
        })
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
