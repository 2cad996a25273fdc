//! Answers about stock, from the product service.

use ackwell::extract::{Event, Header};
use ackwell_sql::Tx;
use jiff::Timestamp;

use super::Input;
use super::store::{self, Advanced};
use crate::error::Error;
use crate::events::EventId;
use crate::events::choreography::{StatusCode, StockAnswer, Verdict};

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
