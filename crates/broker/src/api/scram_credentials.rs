//! The users of SCRAM (KIP-554): shown as the settings have them, and changed only there.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::alter_user_scram_credentials_response::AlterUserScramCredentialsResult;
use kafka_protocol::messages::describe_user_scram_credentials_response::{
    CredentialInfo, DescribeUserScramCredentialsResult,
};
use kafka_protocol::messages::{
    AlterUserScramCredentialsRequest, AlterUserScramCredentialsResponse,
    DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::Context;
use crate::access::Use;
use crate::sasl::ITERATIONS;

/// Kafka's numbers of SCRAM-SHA-256 and SCRAM-SHA-512: a user can log in with both.
const MECHANISMS: [i8; 2] = [1, 2];

pub(super) async fn describe(
    cx: &Context,
    request: DescribeUserScramCredentialsRequest,
) -> DescribeUserScramCredentialsResponse {
    if let Err(error) = cx.cluster_right(Use::Describe) {
        return DescribeUserScramCredentialsResponse::default()
            .with_error_code(error.code())
            .with_error_message(None);
    }
    let known: BTreeSet<&str> = cx.node.config.users.iter().map(|u| &*u.name).collect();
    // None and an empty list both mean everybody.
    let named = request.users.unwrap_or_default();
    let asked: Vec<StrBytes> = match named.is_empty() {
        false => named.into_iter().map(|user| user.name).collect(),
        true => known
            .iter()
            .map(|name| StrBytes::from_string((*name).to_owned()))
            .collect(),
    };
    let mut times: BTreeMap<StrBytes, usize> = BTreeMap::new();
    for name in asked {
        *times.entry(name).or_default() += 1;
    }
    let results = times.into_iter().map(|(name, times)| {
        let known = known.contains(&*name);
        described(name, times > 1, known)
    });
    DescribeUserScramCredentialsResponse::default()
        .with_error_message(None)
        .with_results(results.collect())
}

fn described(name: StrBytes, twice: bool, known: bool) -> DescribeUserScramCredentialsResult {
    let result = DescribeUserScramCredentialsResult::default();
    let refused = |code: ResponseError, why: String| {
        DescribeUserScramCredentialsResult::default()
            .with_user(name.clone())
            .with_error_code(code.code())
            .with_error_message(Some(StrBytes::from_string(why)))
    };
    if twice {
        let why = format!("the user {} is asked for twice", &*name);
        return refused(ResponseError::DuplicateResource, why);
    }
    if !known {
        let why = format!("there is no user {}", &*name);
        return refused(ResponseError::ResourceNotFound, why);
    }
    let iterations = i32::try_from(ITERATIONS.get()).unwrap_or(i32::MAX);
    let credentials = MECHANISMS.map(|mechanism| {
        CredentialInfo::default()
            .with_mechanism(mechanism)
            .with_iterations(iterations)
    });
    result
        .with_user(name)
        .with_error_message(None)
        .with_credential_infos(credentials.into())
}

/// Users are set where the broker is started, so that the one file that says who may do what also
/// says who there is.
pub(super) async fn alter(
    cx: &Context,
    request: AlterUserScramCredentialsRequest,
) -> AlterUserScramCredentialsResponse {
    let error = match cx.cluster_right(Use::Admin) {
        Ok(()) => ResponseError::PolicyViolation,
        Err(error) => error,
    };
    let deleted = request.deletions.into_iter().map(|deletion| deletion.name);
    let set = request
        .upsertions
        .into_iter()
        .map(|upsertion| upsertion.name);
    let users: BTreeSet<StrBytes> = deleted.chain(set).collect();
    let refused = users.into_iter().map(|user| {
        AlterUserScramCredentialsResult::default()
            .with_user(user)
            .with_error_code(error.code())
            .with_error_message(Some(StrBytes::from_static_str(
                "users of this broker are set in its configuration, under [[users]]",
            )))
    });
    AlterUserScramCredentialsResponse::default().with_results(refused.collect())
}
