//! InitProducerId: an id that no other producer has, for duplicates to be recognised by.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};

use super::Context;
use crate::access::Use;

pub(super) async fn handle(cx: &Context, request: InitProducerIdRequest) -> InitProducerIdResponse {
    let right = match &request.transactional_id {
        Some(id) => cx.transactional_right(id, Use::Write),
        None => cx.right_to_write_somewhere(),
    };
    if let Err(error) = right {
        return refused(error);
    }
    if request.transactional_id.is_some() {
        // The one code that clients take as final, instead of asking again for ever.
        return refused(ResponseError::TransactionalIdAuthorizationFailed);
    }
    // A producer that lost count (KIP-360) gets a new id, too: its sequences begin anew with it.
    match cx.blocking(|store| store.next_producer_id()).await {
        Ok(id) => InitProducerIdResponse::default()
            .with_producer_id(ProducerId(id))
            .with_producer_epoch(0),
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "no producer id");
            refused(error.code())
        }
    }
}

fn refused(error: ResponseError) -> InitProducerIdResponse {
    InitProducerIdResponse::default()
        .with_error_code(error.code())
        .with_producer_id(ProducerId(-1))
        .with_producer_epoch(-1)
}
