//! The transaction that a handler writes with.

use std::sync::Arc;

use ackwell::batch::FromBatch;
use ackwell::{
    Context, EncodedEvent, Event, Failure, FromRecord, Record, Setup, SetupError, TRACEPARENT,
    trace,
};

use crate::database::Database;
use crate::error::{Error, Result};
use crate::outbox;
use crate::row::Row;
use crate::seat::{Closed, Mark, Next, Seat, Stage};
use crate::unit::Transactional;
use crate::value::Value;

/// A database transaction: of a listener's record, or of one's own.
///
/// **In a listener** it is an extractor. Everything done with it commits together with the
/// mark in the inbox that this record was handled; the offset follows. The container
/// commits when the handler returns `Ok` and takes everything back otherwise. A record that
/// was handled before does nothing: the first statement finds the mark, and the handler goes
/// no further.
///
/// Beside a [`Batch`](ackwell::Batch) it is the transaction of the whole list: records that were
/// handled before are taken out before the handler sees it, and a list that fails is taken back
/// as a whole.
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
    /// Trace of the record or request, passed on to what is emitted.
    traceparent: Option<String>,
}

impl Tx {
    pub(crate) fn own(database: Database) -> Self {
        let seat = Seat::new(database, Mark::Own, None, None, None);
        Self {
            seat: Arc::new(seat),
            owned: true,
            traceparent: trace::current().map(|traceparent| traceparent.to_string()),
        }
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
        self.seat.join(Next::Statement).await?;
        let mut work = self.seat.work()?;
        let changed = work.turn.execute(sql, params).await;
        work.ended(changed).await
    }

    /// Runs a query (or a statement with `RETURNING`) and answers its rows.
    ///
    /// # Errors
    /// Those of [`execute`](Self::execute).
    pub async fn query(&mut self, sql: &str, params: &[Value<'_>]) -> Result<Vec<Row>> {
        self.seat.join(Next::Statement).await?;
        let mut work = self.seat.work()?;
        let rows = work.turn.query(sql, params).await;
        work.ended(rows).await
    }

    /// Like [`query`](Self::query), for at most one row: the first, if there are several.
    ///
    /// # Errors
    /// Those of [`execute`](Self::execute).
    pub async fn query_opt(&mut self, sql: &str, params: &[Value<'_>]) -> Result<Option<Row>> {
        Ok(self.query(sql, params).await?.into_iter().next())
    }

    /// Emits an event: it is published if and only if the transaction commits, after the
    /// events that were committed before it.
    ///
    /// Also when it was emitted before those: of two transactions of which one waits for what the other has
    /// locked, or reads what it has committed, that one's events come second. On PostgreSQL the
    /// outbox's rows are therefore written when the transaction commits, and not seen before.
    ///
    /// # Errors
    /// Those of [`execute`](Self::execute); and when the event does not serialize, or is
    /// larger than [`Settings::message_bytes_max`](crate::Settings::message_bytes_max).
    pub async fn emit<E: Event>(&mut self, event: &E) -> Result<()> {
        let traceparent = self.traceparent.clone();
        self.emit_traced(event, traceparent.as_deref()).await
    }

    /// Emits an event that follows from `cause`, whose trace it carries on. For handlers of
    /// [batches](ackwell::Batch): there [`emit`](Self::emit) can't tell from which record an event
    /// follows, and leaves `traceparent` out.
    ///
    /// # Errors
    /// Those of [`emit`](Self::emit).
    pub async fn emit_for<E: Event>(&mut self, cause: &Record, event: &E) -> Result<()> {
        let traceparent = cause.headers().get_str(TRACEPARENT);
        self.emit_traced(event, traceparent).await
    }

    async fn emit_traced<E: Event>(&mut self, event: &E, trace: Option<&str>) -> Result<()> {
        let encoded = EncodedEvent::with_trace(event, trace)
            .map_err(|error| Error::usage("emitting an event").because(error));
        self.emit_encoded(encoded).await
    }

    /// Emits what was encoded before, or fails as that did.
    pub(crate) async fn emit_encoded(&mut self, event: Result<EncodedEvent>) -> Result<()> {
        let fits = |event: EncodedEvent| {
            outbox::check_size(&event, self.seat.database().settings().message_bytes_max)?;
            Ok(event)
        };
        let encoded = event.and_then(fits);
        let encoded = encoded.map_err(|error| self.seat.fail(error))?;
        self.seat.join(Next::Event).await?;
        let mut work = self.seat.work()?;
        let emitted = work.turn.emit(encoded).await;
        work.ended(emitted).await?;
        self.seat.note_emitted();
        Ok(())
    }

    pub(crate) fn database(&self) -> &Database {
        self.seat.database()
    }

    pub(crate) fn traceparent(&self) -> Option<&str> {
        self.traceparent.as_deref()
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
            Closed {
                stage: Stage::Joined,
                turn: Some(mut turn),
                emitted,
                ..
            } => {
                turn.keep(emitted)?;
                turn.outcome()
            }
            Closed {
                stage: Stage::Failed(error),
                ..
            } => return Err(error),
            _ => return Ok(()),
        };
        outcome.durable().await
    }
}

impl FromRecord for Tx {
    fn from_record(cx: &mut Context) -> Result<Self, Failure> {
        let traceparent = match cx.records() {
            [record] => record.headers().get_str(TRACEPARENT).map(str::to_owned),
            // There is no saying from which record of a batch an event follows.
            _ => None,
        };
        let seat = cx
            .extensions()
            .get::<Arc<Seat>>()
            .filter(|seat| seat.take())
            .cloned();
        let seat = seat.ok_or_else(|| {
            Failure::permanent("a handler has one transaction; it asks for a second Tx")
        })?;
        seat.is_for(cx.records());
        Ok(Self {
            seat,
            owned: false,
            traceparent,
        })
    }

    fn prepare(setup: &mut Setup<'_>) -> Result<(), SetupError> {
        setup.once::<Self>()?;
        let database = setup.state::<Database>().cloned();
        let database = database.ok_or_else(SetupError::missing_state::<Database>)?;
        setup.unit_of_work(Arc::new(Transactional::new(database)));
        Ok(())
    }
}

/// The records of a batch share one transaction, and each has its mark.
impl FromBatch for Tx {}

impl Drop for Tx {
    fn drop(&mut self) {
        if self.owned {
            drop(self.seat.close());
        }
    }
}

impl std::fmt::Debug for Tx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tx")
            .field("owned", &self.owned)
            .finish_non_exhaustive()
    }
}
