//! ApiVersions: what is served, from the table, and the one feature that clients look for.

use bytes::{Buf, Bytes};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::api_versions_response::{
    ApiVersion, FinalizedFeatureKey, SupportedFeatureKey,
};
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse};
use kafka_protocol::protocol::StrBytes;

use super::reply::frame;
use super::{Api, Context, Refusal, Reply, TABLE};

/// By it clients know that each transaction has an epoch of its own (KIP-890).
const TRANSACTIONS: &str = "transaction.version";
const TRANSACTIONS_LEVEL: i16 = 2;
/// Answers name features since this version.
const FEATURES: i16 = 3;
/// Clients before this version take no feature that is supported from level 0 on (KAFKA-17011).
const FEATURES_FROM_ZERO: i16 = 4;

pub(super) async fn handle(cx: &Context, _request: ApiVersionsRequest) -> ApiVersionsResponse {
    let mut response =
        ApiVersionsResponse::default().with_api_keys(TABLE.iter().map(advertise).collect());
    if cx.version >= FEATURES_FROM_ZERO {
        response.supported_features = vec![
            SupportedFeatureKey::default()
                .with_name(StrBytes::from_static_str(TRANSACTIONS))
                .with_max_version(TRANSACTIONS_LEVEL),
        ];
    }
    if cx.version >= FEATURES {
        response.finalized_features_epoch = 0;
        response.finalized_features = vec![
            FinalizedFeatureKey::default()
                .with_name(StrBytes::from_static_str(TRANSACTIONS))
                .with_min_version_level(TRANSACTIONS_LEVEL)
                .with_max_version_level(TRANSACTIONS_LEVEL),
        ];
    }
    response
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
