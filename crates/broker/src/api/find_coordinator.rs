//! FindCoordinator: this node coordinates every group and every transaction.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{FindCoordinatorRequest, FindCoordinatorResponse};
use kafka_protocol::protocol::StrBytes;

use super::Context;
use super::context::NODE_ID;
use crate::access::Use;

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

pub(super) async fn handle(
    cx: &Context,
    request: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    if !matches!(request.key_type, GROUP | TRANSACTION) {
        return refuse(cx, request);
    }
    let (host, port) = cx.advertised();
    let transactional = request.key_type != GROUP;
    if cx.version < 4 {
        if let Err(error) = seen(cx, &request.key, transactional) {
            return FindCoordinatorResponse::default()
                .with_error_code(error.code())
                .with_error_message(None)
                .with_node_id((-1).into())
                .with_port(-1);
        }
        return FindCoordinatorResponse::default()
            .with_error_message(None)
            .with_node_id(NODE_ID)
            .with_host(host)
            .with_port(port);
    }
    let coordinators = request.coordinator_keys.into_iter().map(|key| {
        let seen = seen(cx, &key, transactional);
        let coordinator = Coordinator::default()
            .with_key(key)
            .with_error_message(None);
        match seen {
            Ok(()) => coordinator
                .with_node_id(NODE_ID)
                .with_host(host.clone())
                .with_port(port),
            Err(error) => coordinator
                .with_error_code(error.code())
                .with_node_id((-1).into())
                .with_port(-1),
        }
    });
    FindCoordinatorResponse::default().with_coordinators(coordinators.collect())
}

fn seen(cx: &Context, key: &str, transactional: bool) -> Result<(), ResponseError> {
    match transactional {
        true => cx.transactional_right(key, Use::Describe),
        false => cx.group_right(key, Use::Describe),
    }
}

/// Share groups, and what comes after them.
fn refuse(cx: &Context, request: FindCoordinatorRequest) -> FindCoordinatorResponse {
    let code = ResponseError::InvalidRequest.code();
    let why = Some(StrBytes::from_static_str(
        "this broker coordinates groups and transactions",
    ));
    if cx.version < 4 {
        return FindCoordinatorResponse::default()
            .with_error_code(code)
            .with_error_message(why)
            .with_node_id((-1).into())
            .with_port(-1);
    }
    let coordinators = request.coordinator_keys.into_iter().map(|key| {
        Coordinator::default()
            .with_key(key)
            .with_error_code(code)
            .with_error_message(why.clone())
            .with_node_id((-1).into())
            .with_port(-1)
    });
    FindCoordinatorResponse::default().with_coordinators(coordinators.collect())
}
