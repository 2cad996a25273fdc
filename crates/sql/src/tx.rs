//! The transaction that a handler writes with.

use std::sync::Arc;

use crate::database::Database;
use crate::error::{Error, Result};
use crate::row::Row;
use crate::seat::{Closed, Seat, Stage};
use crate::value::Value;

/// A database transaction: of a listener's record, or of one's own.
///
/// **In a listener** it is an extractor. Everything done with it commits together with the
/// mark in the inbox that this record was handled; the offset follows. The container
/// commits when the handler returns `Ok` and takes everything back otherwise. A record that
/// was handled before does nothing: the first statement finds the mark, and the handler goes
/// no further.
///
/// **Elsewhere**, as in an HTTP request, [`Database::begin`] gives one, and
/// [`commit`](Self::commit) makes it durable.
///
/// It opens at its first statement; from then on others wait for it, so do slow work before.
/// A statement that fails leaves only the way back, also on databases that would allow more:
/// an error that is swallowed is never half a success. To try something that may conflict,
/// write `ON CONFLICT DO NOTHING` and look at the number of rows.
///
/// # Cancel safety
/// A transaction that is dropped at any point leaves nothing behind.
pub struct Tx {
    seat: Arc<Seat>,
    owned: bool,
}

impl Tx {
    pub(crate) fn own(database: Database) -> Self {
        Self { seat: Arc::new(Seat::new(database, None, None)), owned: true }
    }

    /// Runs a statement and answers how many rows it changed.
    ///
    /// ```no_run
    /// # use ackwell_sql::{Tx, params};
    /// # async fn f(tx: &mut Tx) -> Result<(), ackwell_sql::Error> {
    /// let reserved = tx
    ///     .execute("UPDATE products SET stock = stock - $2 WHERE id = $1 AND stock >= $2", params!["p-1", 3_i64])
    ///     .await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// When the statement fails, the database is unavailable, or the transaction failed before.
    pub async fn execute(&mut self, sql: &str, params: &[Value<'_>]) -> Result<u64> {
        self.seat.join().await?;
        self.seat.work(|turn| turn.execute(sql, params))
    }

    /// Runs a query (or a statement with `RETURNING`) and answers its rows.
    ///
    /// # Errors
    /// Those of [`execute`](Self::execute).
    pub async fn query(&mut self, sql: &str, params: &[Value<'_>]) -> Result<Vec<Row>> {
        self.seat.join().await?;
        self.seat.work(|turn| turn.query(sql, params))
    }

    /// Like [`query`](Self::query), for at most one row: the first, if there are several.
    ///
    /// # Errors
    /// Those of [`execute`](Self::execute).
    pub async fn query_opt(&mut self, sql: &str, params: &[Value<'_>]) -> Result<Option<Row>> {
        Ok(self.query(sql, params).await?.into_iter().next())
    }

    /// Commits a transaction of one's own, and returns when it is durable.
    ///
    /// # Errors
    /// When it failed before, or the database cannot commit; then nothing was kept.
    /// In a listener it is refused: the container commits.
    ///
    /// # Cancel safety
    /// Dropped while it waits, the transaction still commits with its group.
    pub async fn commit(self) -> Result<()> {
        if !self.owned {
            return Err(self.seat.fail(Error::usage(
                "committing in a listener: the container commits when the handler returns Ok",
            )));
        }
        let outcome = match self.seat.close() {
            Closed { stage: Stage::Joined, turn: Some(mut turn), emitted } => {
                turn.keep(emitted)?;
                turn.outcome()
            }
            Closed { stage: Stage::Failed(error), .. } => return Err(error),
            _ => return Ok(()),
        };
        outcome.durable().await
    }
}

impl Drop for Tx {
    fn drop(&mut self) {
        if self.owned {
            drop(self.seat.close());
        }
    }
}

impl std::fmt::Debug for Tx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tx").field("owned", &self.owned).finish_non_exhaustive()
    }
}
