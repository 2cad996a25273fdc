//! What sends in a transaction: at once, or, in a listener, when its handler has returned.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Open, TransactionError};
use crate::batch::FromBatch;
use crate::context::{Context, Setup, SetupError};
use crate::encode::EncodedEvent;
use crate::extract::FromRecord;
use crate::failure::{Class, Failure};
use crate::producer::OutgoingRecord;
use crate::topic::Event;

/// How much the handler of one record may send.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) records: usize,
    pub(crate) bytes: usize,
}

/// A transaction to send in: an argument of a [`Transactions::run`](super::Transactions::run) closure, and an extractor
/// that makes its listener transactional.
///
/// Clones send in the same transaction. After its end, which is the return of the closure or
/// handler, sending fails.
#[derive(Clone)]
pub struct Transaction(Way);

#[derive(Clone)]
enum Way {
    /// To the client.
    Direct(Seat),
    /// Into memory, until the handler has returned.
    Held(Arc<Mutex<Option<Held>>>),
}

/// Where a transaction is found that is sent in at once, until it ends.
pub(super) type Seat = Arc<tokio::sync::Mutex<Option<Direct>>>;

pub(super) struct Direct {
    pub(super) open: Open,
    /// The first record that the client refused.
    pub(super) failed: Option<TransactionError>,
}

struct Held {
    records: Vec<OutgoingRecord>,
    bytes: usize,
    limits: Limits,
}

impl Transaction {
    /// One that is open at the broker.
    pub(super) fn direct(seat: Seat) -> Self {
        Self(Way::Direct(seat))
    }

    /// A transaction whose records wait for [`take`](Self::take).
    pub(crate) fn held(limits: Limits) -> Self {
        Self(Way::Held(Arc::new(Mutex::new(Some(Held {
            records: Vec::new(),
            bytes: 0,
            limits,
        })))))
    }

    /// Ends a held transaction; what was sent in it.
    pub(crate) fn take(&self) -> Vec<OutgoingRecord> {
        let Way::Held(held) = &self.0 else {
            return Vec::new();
        };
        let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
        held.take().map_or_else(Vec::new, |held| held.records)
    }

    /// Sends an event to its topic. It is seen when the transaction is committed, and has no offset
    /// that anybody could know before.
    ///
    /// # Errors
    /// When it can't be encoded or is refused at once, and after the transaction's end. What the
    /// broker refuses later makes the transaction fail.
    ///
    /// # Cancel safety
    /// Dropped, the event is not sent.
    pub async fn send<E: Event>(&self, event: &E) -> Result<(), TransactionError> {
        self.send_encoded(EncodedEvent::new(event)?).await
    }

    /// Sends an event that was encoded before.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    ///
    /// # Cancel safety
    /// As [`send`](Self::send).
    pub async fn send_encoded(&self, event: EncodedEvent) -> Result<(), TransactionError> {
        self.send_record(event.into()).await
    }

    /// Sends a record.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    ///
    /// # Cancel safety
    /// As [`send`](Self::send).
    pub async fn send_record(&self, record: OutgoingRecord) -> Result<(), TransactionError> {
        match &self.0 {
            Way::Held(held) => {
                let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
                held.as_mut()
                    .ok_or_else(TransactionError::ended)?
                    .push(record)
            }
            Way::Direct(direct) => {
                let mut direct = direct.lock().await;
                let direct = direct.as_mut().ok_or_else(TransactionError::ended)?;
                direct.send(&record).await
            }
        }
    }
}

impl Direct {
    async fn send(&mut self, record: &OutgoingRecord) -> Result<(), TransactionError> {
        let sent = self.open.send(record.to_client(())).await;
        sent.inspect_err(|error| {
            self.failed
                .get_or_insert_with(|| TransactionError::refused_before(error));
        })
    }
}

impl Held {
    fn push(&mut self, record: OutgoingRecord) -> Result<(), TransactionError> {
        let bytes = self.bytes + record.size();
        if self.records.len() >= self.limits.records || bytes > self.limits.bytes {
            return Err(TransactionError::new(
                Class::Permanent,
                format!(
                    "the handler of one record sends more than {} records or {} bytes; raise `producer.queue_records` or `producer.queue_kbytes`",
                    self.limits.records, self.limits.bytes
                ),
            ));
        }
        self.bytes = bytes;
        self.records.push(record);
        Ok(())
    }
}

impl FromRecord for Transaction {
    fn from_record(cx: &mut Context) -> Result<Self, Failure> {
        let transaction = cx.extensions().get::<Transaction>().cloned();
        transaction.ok_or_else(|| {
            Failure::new(
                Class::Stop,
                "the record is not handled in a transaction of Kafka",
            )
        })
    }

    fn prepare(setup: &mut Setup<'_>) -> Result<(), SetupError> {
        setup.transactional()
    }
}

/// One for the whole list.
impl FromBatch for Transaction {}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = match &self.0 {
            Way::Direct(_) => "direct",
            Way::Held(_) => "held",
        };
        f.debug_struct("Transaction").field("way", &way).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(records: usize, bytes: usize) -> Transaction {
        Transaction::held(Limits { records, bytes })
    }

    fn record(value: &'static str) -> OutgoingRecord {
        OutgoingRecord::to("t").value(value)
    }

    #[tokio::test]
    async fn what_a_handler_sends_waits_until_it_is_taken() {
        let tx = held(10, 1_000);
        tx.send_record(record("a")).await.unwrap();
        tx.clone().send_record(record("b")).await.unwrap();
        assert_eq!(tx.take(), [record("a"), record("b")]);
        let late = tx.send_record(record("c")).await.unwrap_err();
        assert!(late.is_permanent() && late.to_string().contains("has ended"));
        assert!(tx.take().is_empty());
    }

    #[tokio::test]
    async fn a_handler_that_sends_without_end_is_told_the_limit() {
        let tx = held(1, 1_000);
        tx.send_record(record("a")).await.unwrap();
        let refused = tx.send_record(record("b")).await.unwrap_err();
        assert!(refused.to_string().contains("producer.queue_records"));
        let tx = held(10, 3);
        assert!(tx.send_record(record("long")).await.is_err());
    }
}
