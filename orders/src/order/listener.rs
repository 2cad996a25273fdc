//! Answers about stock, from the product service, and the saga's last command.

use ackwell::extract::{Event, Header};
use ackwell_sql::Tx;
use jiff::Timestamp;

use super::store::{self, Advanced};
use super::{Input, Status};
use crate::error::Error;
use crate::events::EventId;
use crate::events::choreography::{StatusCode, StockAnswer, Verdict};
use crate::events::orders::OrderEvent;

/// The consumer group. All instances of the service share it.
pub(crate) const GROUP: &str = "order-service";

/// Moves the order to its final state. An answer that is late (the order was withdrawn)
/// or repeated changes nothing.
pub(crate) async fn on_stock_answer(
    Event(StockAnswer::StockValidResponded(verdict)): Event<StockAnswer>,
    Header(event_id, ..): Header<EventId>,
    mut tx: Tx,
) -> Result<(), Error> {
    let input = input(&verdict)?;
    let reason = verdict.reason.as_deref();
    match store::advance(
        &mut tx,
        verdict.order_id,
        input,
        reason,
        Timestamp::now(),
        Some(event_id),
    )
    .await?
    {
        Advanced::To(status) => {
            tracing::debug!(order_id = %verdict.order_id, %status, "order is final")
        }
        Advanced::TooLate(status) => {
            tracing::debug!(order_id = %verdict.order_id, %status, "answer came too late")
        }
        Advanced::Unknown => {
            return Err(Error::Impossible(format!(
                "there is no order {}",
                verdict.order_id
            )));
        }
    }
    Ok(())
}

/// Flow B: confirms an order at the saga's command. One that comes again is answered again in the same
/// words; one that comes when a person has cancelled the order is left alone.
pub(crate) async fn on_order_event(
    Event(event): Event<OrderEvent>,
    Header(event_id, ..): Header<EventId>,
    mut tx: Tx,
) -> Result<(), Error> {
    // What the order service itself says needs no answer.
    let OrderEvent::ConfirmOrder(command) = event else {
        return Ok(());
    };
    let (id, at) = (command.order_id, Timestamp::now());
    let cause = Some(event_id);
    match store::advance(&mut tx, id, Input::SagaConfirms, None, at, cause).await? {
        Advanced::To(_) => Ok(()),
        Advanced::TooLate(Status::Confirmed) => store::confirm_again(&mut tx, id).await,
        Advanced::TooLate(status) => {
            tracing::debug!(order_id = %id, %status, "confirmation came too late");
            Ok(())
        }
        Advanced::Unknown => Err(Error::Impossible(format!("there is no order {id}"))),
    }
}

fn input(verdict: &Verdict) -> Result<Input, Error> {
    match verdict.status_code {
        StatusCode::RESERVED => Ok(Input::StockReserved),
        400..=499 => Ok(Input::StockRefused),
        code => Err(Error::Impossible(format!(
            "order {}: status code {code} is not known",
            verdict.order_id
        ))),
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::events::Items;
    use crate::events::choreography::Reserve;

    #[test]
    fn a_status_code_that_nobody_knows_is_never_taken_for_a_refusal() {
        let with = |status_code| {
            let request = Reserve {
                order_id: Uuid::nil(),
                items: Items::of([("cd-01", 1)]),
            };
            input(&Verdict {
                order_id: Uuid::nil(),
                status_code,
                reason: None,
                request,
            })
        };
        assert_eq!(with(200).unwrap(), Input::StockReserved);
        for code in [
            StatusCode::UNKNOWN_PRODUCT,
            StatusCode::NOT_ENOUGH,
            StatusCode::WITHDRAWN,
        ] {
            assert_eq!(with(code).unwrap(), Input::StockRefused);
        }
        for code in [0, 201, 500, 999] {
            assert!(with(code).is_err());
        }
    }
}
