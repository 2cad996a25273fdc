//! DescribeCluster: one node, which is its own controller.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::{DescribeClusterRequest, DescribeClusterResponse};
use kafka_protocol::protocol::StrBytes;

use super::Context;
use super::context::NODE_ID;

/// Kafka's endpoint type of brokers; 2 are controllers, which have no address of their own here.
const BROKERS: i8 = 1;

pub(super) async fn handle(
    cx: &Context,
    request: DescribeClusterRequest,
) -> DescribeClusterResponse {
    if request.endpoint_type != BROKERS {
        let why = "the request was sent to a broker, and is for a controller";
        return DescribeClusterResponse::default()
            .with_error_code(ResponseError::MismatchedEndpointType.code())
            .with_error_message(Some(StrBytes::from_static_str(why)))
            .with_endpoint_type(request.endpoint_type);
    }
    let (host, port) = cx.advertised();
    DescribeClusterResponse::default()
        .with_error_message(None)
        .with_endpoint_type(request.endpoint_type)
        .with_cluster_id(cx.cluster_id())
        .with_controller_id(NODE_ID)
        .with_brokers(vec![
            DescribeClusterBroker::default()
                .with_broker_id(NODE_ID)
                .with_host(host)
                .with_port(port),
        ])
}
