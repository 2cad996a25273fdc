//! DescribeCluster: one node, which is its own controller.

use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::{DescribeClusterRequest, DescribeClusterResponse};

use super::Context;
use super::context::NODE_ID;

pub(super) async fn handle(
    cx: &Context,
    request: DescribeClusterRequest,
) -> DescribeClusterResponse {
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
