//! Commands of the saga: charge, refund.
//!
//! The gateway is asked before the transaction is opened, so that nobody waits for its locks
//! meanwhile; a command that is redelivered asks it again and is told the same.

use std::sync::Arc;

use ackwell::extract::{Event, Header, State};
use ackwell_sql::{Database, Tx};
use uuid::Uuid;

use super::gateway::{Answer, Charge, Gateway};
use super::store::{self, Payment};
use crate::error::Error;
use crate::events::payment::{
    ChargePayment, PaymentCharged, PaymentEvent, PaymentFailed, PaymentRefunded, RefundPayment,
};
use crate::events::{EventId, check_saga};
use crate::money::Cents;

/// The consumer group. All instances of the service share it.
pub(crate) const GROUP: &str = "payment-service";

/// Asks the gateway, then keeps its answer and replies, in one transaction.
pub(crate) async fn on_payment_event(
    Event(event): Event<PaymentEvent>,
    Header(event_id, ..): Header<EventId>,
    State(gateway): State<Arc<dyn Gateway>>,
    State(db): State<Database>,
    mut tx: Tx,
) -> Result<(), Error> {
    let reply = match event {
        PaymentEvent::ChargePayment(command) => {
            charge(&*gateway, &db, &mut tx, command, event_id).await?
        }
        PaymentEvent::RefundPayment(command) => {
            refund(&*gateway, &mut tx, command, event_id).await?
        }
        // Our own replies, which are the saga's to handle.
        PaymentEvent::PaymentCharged(_)
        | PaymentEvent::PaymentFailed(_)
        | PaymentEvent::PaymentRefunded(_) => return Ok(()),
    };
    Ok(tx.emit(&reply).await?)
}

async fn charge(
    gateway: &dyn Gateway,
    db: &Database,
    tx: &mut Tx,
    command: ChargePayment,
    cause: Uuid,
) -> Result<PaymentEvent, Error> {
    let order_id = command.order_id;
    check_saga(command.saga_id, order_id)?;
    if let Some(before) = store::payment(db, order_id).await? {
        return decided_before(gateway, command, before).await;
    }
    let charge = Charge {
        key: order_id,
        order_id,
        amount: command.amount,
        method: command.payment_method,
    };
    let answer = gateway.charge(&charge).await?;
    if !store::decide(tx, &command, &answer, cause).await? {
        return Err(Error::Overtaken(order_id));
    }
    Ok(reply(command, answer))
}

/// A command that comes again is answered in the same words. A refund that came first is the answer,
/// and whatever another instance may have charged meanwhile is given back.
async fn decided_before(
    gateway: &dyn Gateway,
    command: ChargePayment,
    before: Payment,
) -> Result<PaymentEvent, Error> {
    match before.amount {
        Some(amount) => same_amount(&command, amount)?,
        None => gateway.refund(command.order_id).await?,
    }
    let answer = match before.charge_id {
        Some(charge_id) => Answer::Approved { charge_id },
        None => Answer::Declined {
            reason: before.reason.unwrap_or_default(),
        },
    };
    Ok(reply(command, answer))
}

fn same_amount(command: &ChargePayment, before: Cents) -> Result<(), Error> {
    if command.amount == before {
        return Ok(());
    }
    let ChargePayment {
        order_id, amount, ..
    } = command;
    Err(Error::Impossible(format!(
        "order {order_id} is to be charged {amount}, and was to be charged {before} before"
    )))
}

fn reply(command: ChargePayment, answer: Answer) -> PaymentEvent {
    let ChargePayment {
        saga_id,
        order_id,
        amount,
        ..
    } = command;
    match answer {
        Answer::Approved { charge_id } => PaymentCharged {
            saga_id,
            order_id,
            charge_id,
            amount,
        }
        .into(),
        Answer::Declined { reason } => PaymentFailed {
            saga_id,
            order_id,
            reason,
        }
        .into(),
    }
}

/// Also where nothing is known of a charge: it may have been taken, and not been answered.
async fn refund(
    gateway: &dyn Gateway,
    tx: &mut Tx,
    command: RefundPayment,
    cause: Uuid,
) -> Result<PaymentEvent, Error> {
    check_saga(command.saga_id, command.order_id)?;
    gateway.refund(command.order_id).await?;
    store::refund(tx, &command, cause).await?;
    let RefundPayment {
        saga_id, order_id, ..
    } = command;
    Ok(PaymentRefunded { saga_id, order_id }.into())
}
