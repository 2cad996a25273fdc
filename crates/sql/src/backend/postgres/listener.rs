//! A session of its own, for what lives as long as a session does: locks, and being told of
//! notifications. The connections of statements have nobody who listens.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::poll_fn;
use tokio::task::JoinHandle;
use tokio_postgres::{AsyncMessage, Client, Connection, Socket};

use super::error::explain;
use super::tls::Encrypted;
use super::{EMITTED, Server, Session};
use crate::error::{Chain, Error, Result};

/// A session that hears when outbox rows of its schema are committed. Dropped, it ends.
#[derive(Debug)]
pub(crate) struct Listener {
    client: Client,
    driver: JoinHandle<()>,
}

impl Listener {
    /// Connects; `heard` is called at each notification.
    ///
    /// The server ends the session when it hears nothing for `silence_max`, and with it go its
    /// locks: a process that is stopped, or cut off, keeps none for longer. PostgreSQL 13 does so
    /// only when the network says that the process is gone.
    pub(crate) async fn connect(
        server: &Arc<Server>,
        session: &Session,
        silence_max: Duration,
        heard: impl Fn() + Send + 'static,
    ) -> Result<Self> {
        let (client, connection) = server.connect().await?;
        let driver = tokio::spawn(drive(connection, Arc::clone(server), heard));
        // From here on it ends the driver when it is dropped.
        let listener = Self { client, driver };
        server.prepare(&listener.client, session).await?;
        let setup = format!(
            "SELECT set_config('idle_session_timeout', '{}', false) FROM pg_settings \
             WHERE name = 'idle_session_timeout'; \
             SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 5; \
             SET tcp_keepalives_count = 2; LISTEN {EMITTED}",
            silence_max.as_millis()
        );
        let ready = listener.client.batch_execute(&setup).await;
        ready.map_err(|error| explain("setting up a session of its own", error))?;
        Ok(listener)
    }

    /// Runs a query that answers one row of one column.
    pub(crate) async fn ask<T>(&self, sql: &str) -> Result<T>
    where
        T: for<'a> tokio_postgres::types::FromSql<'a>,
    {
        let row = self.client.query_one(sql, &[]).await;
        row.and_then(|row| row.try_get(0))
            .map_err(|error| explain(sql, error))
    }

    /// Returns when the session has ended.
    pub(crate) async fn ended(&mut self) -> Error {
        let _ = (&mut self.driver).await;
        Error::unavailable("the session with the database has ended")
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

async fn drive(
    mut connection: Connection<Socket, Encrypted>,
    server: Arc<Server>,
    heard: impl Fn(),
) {
    loop {
        match poll_fn(|cx| connection.poll_message(cx)).await {
            Some(Ok(AsyncMessage::Notification(said)))
                if said.channel() == EMITTED && said.payload() == server.schema_name() =>
            {
                heard();
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                let server = server.to_string();
                tracing::debug!(server, error = %Chain(&error), "a session ended");
                return;
            }
            None => return,
        }
    }
}
