//! ListConfigResources (KIP-1142): what has settings that can be asked for.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::list_config_resources_response::ConfigResource;
use kafka_protocol::messages::{ListConfigResourcesRequest, ListConfigResourcesResponse};
use kafka_protocol::protocol::StrBytes;

use super::Context;
use super::configs::{BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP, TOPIC};
use super::context::NODE_ID;
use crate::access::Use;

/// Before this version, clients ask for their metrics' settings only.
const KINDS_SINCE: i16 = 1;

pub(super) async fn handle(
    cx: &Context,
    request: ListConfigResourcesRequest,
) -> ListConfigResourcesResponse {
    let refused =
        |error: ResponseError| ListConfigResourcesResponse::default().with_error_code(error.code());
    if let Err(error) = cx.cluster_right(Use::Describe) {
        return refused(error);
    }
    let mut kinds = match (cx.version, request.resource_types.is_empty()) {
        (..KINDS_SINCE, _) => vec![CLIENT_METRICS],
        (_, true) => vec![TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP],
        (_, false) => request.resource_types,
    };
    kinds.sort_unstable();
    kinds.dedup();
    let mut resources = Vec::new();
    for kind in kinds {
        let Some(names) = names(cx, kind) else {
            return refused(ResponseError::UnsupportedVersion);
        };
        resources.extend(names.into_iter().map(|name| {
            ConfigResource::default()
                .with_resource_name(StrBytes::from_string(name))
                .with_resource_type(kind)
        }));
    }
    ListConfigResourcesResponse::default().with_config_resources(resources)
}

/// `None` for a kind that is not known.
fn names(cx: &Context, kind: i8) -> Option<Vec<String>> {
    Some(match kind {
        TOPIC => {
            let topics = cx.store().topics();
            topics.iter().map(|topic| topic.name.clone()).collect()
        }
        BROKER | BROKER_LOGGER => vec![NODE_ID.0.to_string()],
        CLIENT_METRICS => Vec::new(),
        GROUP => cx.store().group_configs().into_keys().collect(),
        _ => return None,
    })
}
