//! Reads beside the writing transaction, on connections that cannot write.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::backend::{Backend, Location, open_reader};
use crate::error::{Error, Result};
use crate::row::Row;
use crate::value::Value;

/// A bounded pool of reading connections, opened when first needed.
pub(crate) struct Readers {
    location: Location,
    idle: Mutex<Vec<Box<dyn Backend>>>,
    permits: Arc<Semaphore>,
    wait: Duration,
}

impl Readers {
    pub(crate) fn new(location: Location, connections: usize, wait: Duration) -> Self {
        let permits = Arc::new(Semaphore::new(connections));
        Self {
            location,
            idle: Mutex::default(),
            permits,
            wait,
        }
    }

    /// Runs a query on a blocking thread; waits for a free connection.
    pub(crate) async fn query(
        self: &Arc<Self>,
        sql: &str,
        params: &[Value<'_>],
    ) -> Result<Vec<Row>> {
        let permit = tokio::time::timeout(self.wait, Arc::clone(&self.permits).acquire_owned());
        let Ok(Ok(permit)) = permit.await else {
            let wait = self.wait;
            return Err(Error::unavailable(format!(
                "waiting for a reading connection: all were busy for {wait:?}"
            )));
        };
        let readers = Arc::clone(self);
        let sql = sql.to_owned();
        let params: Vec<_> = params.iter().cloned().map(Value::into_owned).collect();
        let work = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            readers.run(&sql, &params)
        });
        work.await
            .map_err(|gone| Error::unavailable("reading").because(gone))?
    }

    fn run(&self, sql: &str, params: &[Value<'_>]) -> Result<Vec<Row>> {
        let idle = self.idle().pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => open_reader(&self.location, self.wait)?,
        };
        let rows = connection.query(sql, params);
        self.idle().push(connection);
        rows
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Box<dyn Backend>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
