//! A gateway that answers by amount and payment method, with a ledger that the audit reads.
//!
//! It plays the outside world: its ledger is a database of its own, and what stands there has happened,
//! whatever the payment service knows of it.

use std::time::Duration;

use ackwell_sql::{Database, Migration, Row, Tx, params};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use uuid::Uuid;

use super::gateway::{Answer, Charge, Gateway, GatewayError};
use crate::config::Orders;
use crate::events::payment::PaymentMethod;
use crate::money::Cents;

/// The ledger's schema.
pub(crate) const MIGRATIONS: &[Migration] =
    &[
        Migration::new("charges and refunds", include_str!("ledger.sql"))
            .postgres(include_str!("ledger_postgres.sql")),
    ];

/// How often a `flaky` payment is not answered.
const FLAKY_FAILURES: i64 = 2;

/// The simulated gateway.
pub(crate) struct Simulated {
    ledger: Database,
    limit: Cents,
    slow: Duration,
}

impl Simulated {
    /// With this ledger.
    pub(crate) fn new(ledger: Database, orders: &Orders) -> Self {
        Self {
            ledger,
            limit: orders.payment_limit,
            slow: Duration::from_millis(orders.slow_payment_ms),
        }
    }

    async fn asked(&self, charge: &Charge) -> Result<Answer, GatewayError> {
        if charge.method == PaymentMethod::Slow {
            tokio::time::sleep(self.slow).await;
        }
        let mut tx = self.ledger.begin();
        let answer = self.book(&mut tx, charge).await?;
        tx.commit().await?;
        answer.ok_or(GatewayError::NoAnswer)
    }

    /// Books a charge, or finds what was booked with its key before; `None` is no answer.
    async fn book(&self, tx: &mut Tx, charge: &Charge) -> Result<Option<Answer>, GatewayError> {
        let declined = self.objection(charge);
        let booked = tx
            .query(
                "INSERT INTO charges (idempotency_key, charge_id, amount_cents, outcome, reason, asked, at, reference)
                 VALUES ($1, $2, $3, $4, $5, 1, $6, $7)
                 ON CONFLICT (idempotency_key) DO UPDATE SET asked = charges.asked + 1
                 RETURNING charge_id, amount_cents, outcome, reason, asked",
                params![
                    charge.key,
                    Uuid::now_v7(),
                    charge.amount.get(),
                    (charge.method != PaymentMethod::Flaky).then(|| outcome(declined.as_deref())),
                    declined,
                    Timestamp::now(),
                    charge.order_id
                ],
            )
            .await?;
        let [entry] = booked.as_slice() else {
            return Ok(None);
        };
        let amount = Cents::from_stored(entry.get("amount_cents")?);
        if amount != charge.amount {
            return Err(GatewayError::OtherAmount(amount));
        }
        if entry.get::<Option<String>>("outcome")?.is_some() {
            return Ok(Some(answer(entry)?));
        }
        if entry.get::<i64>("asked")? <= FLAKY_FAILURES {
            return Ok(None);
        }
        let decided = "UPDATE charges SET outcome = $2 WHERE idempotency_key = $1";
        tx.execute(decided, params![charge.key, outcome(declined.as_deref())])
            .await?;
        Ok(Some(answer(entry)?))
    }

    /// Why a charge is declined, if it is.
    fn objection(&self, charge: &Charge) -> Option<String> {
        match charge.method {
            PaymentMethod::Declined => Some("the card was declined".to_owned()),
            _ if charge.amount > self.limit => Some(format!(
                "{} is above the card's limit of {}",
                charge.amount, self.limit
            )),
            PaymentMethod::Card | PaymentMethod::Slow | PaymentMethod::Flaky => None,
        }
    }

    async fn give_back(&self, key: Uuid) -> Result<(), GatewayError> {
        let mut tx = self.ledger.begin();
        tx.execute(
            "INSERT INTO refunds (charge_id, amount_cents, at)
             SELECT charge_id, amount_cents, $2 FROM charges WHERE idempotency_key = $1 AND outcome = 'APPROVED'
             ON CONFLICT (charge_id) DO NOTHING",
            params![key, Timestamp::now()],
        )
        .await?;
        Ok(tx.commit().await?)
    }
}

fn outcome(declined: Option<&str>) -> &'static str {
    declined.map_or("APPROVED", |_| "DECLINED")
}

fn answer(entry: &Row) -> Result<Answer, GatewayError> {
    let charge_id = entry.get("charge_id")?;
    let reason: Option<String> = entry.get("reason")?;
    Ok(match reason {
        None => Answer::Approved { charge_id },
        Some(reason) => Answer::Declined { reason },
    })
}

impl Gateway for Simulated {
    fn charge<'a>(&'a self, charge: &'a Charge) -> BoxFuture<'a, Result<Answer, GatewayError>> {
        self.asked(charge).boxed()
    }

    fn refund(&self, key: Uuid) -> BoxFuture<'_, Result<(), GatewayError>> {
        self.give_back(key).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn gateway(folder: &tempfile::TempDir) -> Simulated {
        let url = format!("sqlite:{}", folder.path().join("gateway.db").display());
        let ledger = Database::open(&url, MIGRATIONS).await.unwrap();
        let orders = Orders {
            payment_limit: "300.00".parse().unwrap(),
            slow_payment_ms: 0,
            ..Orders::default()
        };
        Simulated::new(ledger, &orders)
    }

    fn charge(key: u128, amount: &str, method: PaymentMethod) -> Charge {
        Charge {
            key: Uuid::from_u128(key),
            order_id: Uuid::from_u128(key),
            amount: amount.parse().unwrap(),
            method,
        }
    }

    async fn booked(gateway: &Simulated) -> (usize, usize) {
        let count = async |sql| gateway.ledger.query(sql, params![]).await.unwrap().len();
        (
            count("SELECT charge_id FROM charges WHERE outcome = 'APPROVED'").await,
            count("SELECT charge_id FROM refunds").await,
        )
    }

    #[tokio::test]
    async fn a_charge_asked_twice_is_booked_once_and_answered_alike() {
        let folder = tempfile::tempdir().unwrap();
        let gateway = gateway(&folder).await;
        let asked = charge(1, "300.00", PaymentMethod::Card);
        let first = gateway.charge(&asked).await.unwrap();
        assert!(matches!(first, Answer::Approved { .. }));
        assert_eq!(gateway.charge(&asked).await.unwrap(), first);
        assert_eq!(booked(&gateway).await, (1, 0));
        let other = gateway
            .charge(&charge(1, "1.00", PaymentMethod::Card))
            .await;
        assert!(matches!(other, Err(GatewayError::OtherAmount(_))));
    }

    #[tokio::test]
    async fn a_declined_charge_and_one_above_the_limit_book_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let gateway = gateway(&folder).await;
        for (key, asked) in [
            ("1.00", PaymentMethod::Declined),
            ("300.01", PaymentMethod::Card),
        ]
        .into_iter()
        .enumerate()
        {
            let answer = gateway.charge(&charge(key as u128, asked.0, asked.1)).await;
            assert!(matches!(answer, Ok(Answer::Declined { .. })), "{answer:?}");
        }
        assert_eq!(booked(&gateway).await, (0, 0));
    }

    #[tokio::test]
    async fn a_flaky_payment_is_answered_at_the_third_time_of_asking() {
        let folder = tempfile::tempdir().unwrap();
        let gateway = gateway(&folder).await;
        let asked = charge(1, "1.00", PaymentMethod::Flaky);
        for _ in 0..2 {
            assert!(matches!(
                gateway.charge(&asked).await,
                Err(GatewayError::NoAnswer)
            ));
        }
        let third = gateway.charge(&asked).await.unwrap();
        assert!(matches!(third, Answer::Approved { .. }));
        assert_eq!(gateway.charge(&asked).await.unwrap(), third);
        assert_eq!(booked(&gateway).await, (1, 0));
    }

    #[tokio::test]
    async fn a_refund_gives_back_once_and_only_what_was_charged() {
        let folder = tempfile::tempdir().unwrap();
        let gateway = gateway(&folder).await;
        gateway
            .charge(&charge(1, "1.00", PaymentMethod::Card))
            .await
            .unwrap();
        gateway
            .charge(&charge(2, "1.00", PaymentMethod::Declined))
            .await
            .unwrap();
        for key in [1, 1, 2, 3] {
            gateway.refund(Uuid::from_u128(key)).await.unwrap();
        }
        assert_eq!(booked(&gateway).await, (1, 1));
    }
}
