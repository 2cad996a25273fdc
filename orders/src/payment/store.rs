//! What the payment service keeps: one payment an order, decided once.

use ackwell_sql::{Database, Migration, Row, Tx, params};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::gateway::Answer;
use crate::error::Error;
use crate::events::payment::{ChargePayment, RefundPayment};
use crate::money::Cents;

/// The schema of the payment service.
pub(crate) const MIGRATIONS: &[Migration] =
    &[Migration::new("payments", include_str!("schema.sql"))
        .postgres(include_str!("schema_postgres.sql"))];

/// Where a payment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum State {
    /// The gateway has taken the amount.
    Charged,
    /// It has taken nothing.
    Failed,
    /// Nothing is taken any more, and nothing will be.
    Refunded,
}

impl State {
    /// The word for the database.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Charged => "CHARGED",
            Self::Failed => "FAILED",
            Self::Refunded => "REFUNDED",
        }
    }

    /// The state with this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        [Self::Charged, Self::Failed, Self::Refunded]
            .into_iter()
            .find(|state| state.name() == name)
    }
}

/// A payment as its service shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Payment {
    /// Of which order.
    pub(crate) order_id: Uuid,
    /// Where it stands.
    pub(crate) status: State,
    /// Whose money; unknown where a refund came before its charge.
    pub(crate) customer_id: Option<String>,
    /// How much; unknown where a refund came before its charge.
    pub(crate) amount: Option<Cents>,
    /// The gateway's id, where it took the amount.
    pub(crate) charge_id: Option<Uuid>,
    /// Why nothing was taken, or why it was given back.
    pub(crate) reason: Option<String>,
    /// When it came to where it stands.
    pub(crate) at: Timestamp,
}

/// The payment of an order.
pub(crate) async fn payment(db: &Database, order_id: Uuid) -> Result<Option<Payment>, Error> {
    let sql = "SELECT order_id, state, customer_id, amount_cents, charge_id, reason, at FROM payments WHERE order_id = $1";
    let row = db.query_opt(sql, params![order_id]).await?;
    row.as_ref().map(Payment::from_row).transpose()
}

impl Payment {
    fn from_row(row: &Row) -> Result<Self, Error> {
        let name: String = row.get("state")?;
        let status = State::named(&name)
            .ok_or_else(|| Error::damaged(format_args!("a payment is {name:?}")))?;
        let amount: Option<i64> = row.get("amount_cents")?;
        Ok(Self {
            order_id: row.get("order_id")?,
            status,
            customer_id: row.get("customer_id")?,
            amount: amount.map(Cents::from_stored),
            charge_id: row.get("charge_id")?,
            reason: row.get("reason")?,
            at: row.get("at")?,
        })
    }
}

/// Keeps what the gateway said to a charge; answers whether nothing had been decided before.
pub(crate) async fn decide(
    tx: &mut Tx,
    command: &ChargePayment,
    answer: &Answer,
    cause: Uuid,
) -> Result<bool, Error> {
    let (state, charge_id, reason) = match answer {
        Answer::Approved { charge_id } => (State::Charged, Some(*charge_id), None),
        Answer::Declined { reason } => (State::Failed, None, Some(reason.as_str())),
    };
    let decided = tx
        .execute(
            "INSERT INTO payments (order_id, state, customer_id, amount_cents, charge_id, reason, charged_by, at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (order_id) DO NOTHING",
            params![
                command.order_id,
                state.name(),
                command.customer_id,
                command.amount.get(),
                charge_id,
                reason,
                cause,
                Timestamp::now()
            ],
        )
        .await?;
    Ok(decided > 0)
}

/// Keeps that an order's money is given back. Where nothing was charged yet, its charge is refused
/// when it comes.
pub(crate) async fn refund(tx: &mut Tx, command: &RefundPayment, cause: Uuid) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO payments (order_id, state, reason, refunded_by, at) VALUES ($1, 'REFUNDED', $2, $3, $4)
         ON CONFLICT (order_id) DO UPDATE SET state = 'REFUNDED', refunded_by = excluded.refunded_by,
             at = excluded.at, reason = COALESCE(payments.reason, excluded.reason)
         WHERE payments.state <> 'REFUNDED'",
        params![command.order_id, command.reason, cause, Timestamp::now()],
    )
    .await?;
    Ok(())
}
