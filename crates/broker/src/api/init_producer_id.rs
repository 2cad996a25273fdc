//! InitProducerId: an id that no other producer has, for duplicates to be recognised by; with a
//! transactional id, the right to be its producer from now on.

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
    // A producer is known by both, or by neither.
    if (request.producer_id.0 == -1) != (request.producer_epoch == -1) {
        return refused(ResponseError::InvalidRequest);
    }
    // A producer that lost count (KIP-360) gets a new id, too: its sequences begin anew with it.
    let fresh_id = match cx.blocking(|store| store.next_producer_id()).await {
        Ok(id) => id,
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "no producer id");
            return refused(error.code());
        }
    };
    if request.transactional_id.is_some() {
        return cx
            .transactions()
            .init_producer_id(request, cx.version, fresh_id)
            .await;
    }
    InitProducerIdResponse::default()
        .with_producer_id(ProducerId(fresh_id))
        .with_producer_epoch(0)
}

fn refused(error: ResponseError) -> InitProducerIdResponse {
    InitProducerIdResponse::default()
        .with_error_code(error.code())
        .with_producer_id(ProducerId(-1))
        .with_producer_epoch(-1)
}
