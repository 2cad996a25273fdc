//! ApiVersions: what is served, from the table.

use bytes::{Buf, Bytes};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse};

use super::reply::frame;
use super::{Api, Context, Refusal, Reply, TABLE};

pub(super) async fn handle(_cx: &Context, _request: ApiVersionsRequest) -> ApiVersionsResponse {
    ApiVersionsResponse::default().with_api_keys(TABLE.iter().map(advertise).collect())
}

/// A version that is not known is answered in version 0 with what is (KIP-511), so that a client
/// newer than the broker can step back.
pub(super) fn unsupported(mut rest: Bytes) -> Result<Reply, Refusal> {
    let correlation_id = rest.try_get_i32().map_err(|_| Refusal::headless())?;
    let own = TABLE.iter().filter(|api| api.key == ApiKey::ApiVersions);
    let response = ApiVersionsResponse::default()
        .with_error_code(ResponseError::UnsupportedVersion.code())
        .with_api_keys(own.map(advertise).collect());
    frame(correlation_id, 0, &response).map(Reply::Now)
}

fn advertise(api: &Api) -> ApiVersion {
    // librdkafka derives message format and compression features from Produce 0 being offered,
    // though it then uses a newer one; Apache Kafka 4 says 0 for the same reason (KAFKA-18659).
    let min_version = match api.key {
        ApiKey::Produce => 0,
        _ => *api.versions.start(),
    };
    ApiVersion::default()
        .with_api_key(api.key as i16)
        .with_min_version(min_version)
        .with_max_version(*api.versions.end())
}
