//! DeleteTopics, by name or by id.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::partition::is_internal;
use super::repeated::take_repeated;
use super::{Context, access};
use crate::Error;
use crate::access::{Resource, Use};

pub(super) async fn handle(cx: &Context, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let by_name = request
        .topic_names
        .into_iter()
        .map(|name| DeleteTopicState::default().with_name(Some(name)));
    let mut topics: Vec<_> = request.topics.into_iter().chain(by_name).collect();
    let repeated = take_repeated(&mut topics, |topic| (topic.name.clone(), topic.topic_id));
    let mut results = Vec::with_capacity(topics.len() + repeated.len());
    for wanted in topics {
        results.push(delete(cx, wanted).await);
    }
    results.extend(repeated.into_iter().map(|(name, id)| {
        let response = DeletableTopicResult::default()
            .with_name(name)
            .with_topic_id(id);
        let why = "it is named more than once in the request";
        failed(response, ResponseError::InvalidRequest, why.to_owned())
    }));
    DeleteTopicsResponse::default().with_responses(results)
}

fn failed(
    response: DeletableTopicResult,
    code: ResponseError,
    why: String,
) -> DeletableTopicResult {
    response
        .with_error_code(code.code())
        .with_error_message(Some(StrBytes::from_string(why)))
}

async fn delete(cx: &Context, wanted: DeleteTopicState) -> DeletableTopicResult {
    let response = DeletableTopicResult::default()
        .with_name(wanted.name.clone())
        .with_topic_id(wanted.topic_id)
        .with_error_message(None);
    if wanted.name.is_some() != wanted.topic_id.is_nil() {
        let why = "a topic is named either by its name or by its id";
        return failed(response, ResponseError::InvalidRequest, why.to_owned());
    }
    if let Some(name) = &wanted.name
        && let Err(code) = cx.topic_right(name, Use::Admin)
    {
        return failed(response, code, access::refused(code).to_string());
    }
    let topic = match &wanted.name {
        Some(name) => cx.store().topic(name),
        // To who may not delete it, an id says nothing.
        None => cx
            .store()
            .topic_by_id(wanted.topic_id)
            .filter(|topic| cx.may(Use::Admin, Resource::Topic(&topic.name))),
    };
    let Some(topic) = topic else {
        let code = match wanted.name {
            Some(_) => ResponseError::UnknownTopicOrPartition,
            None => ResponseError::UnknownTopicId,
        };
        return failed(response, code, "the topic does not exist".to_owned());
    };
    let name = StrBytes::from_string(topic.name.clone());
    let response = response
        .with_name(Some(TopicName(name)))
        .with_topic_id(topic.id);
    match delete_named(cx, topic.name.clone()).await {
        Ok(()) => response,
        Err(error) => failed(response, error.code(), error.to_string()),
    }
}

async fn delete_named(cx: &Context, name: String) -> Result<(), Error> {
    if is_internal(&name) {
        return Err(Error::refused(
            ResponseError::InvalidTopicException,
            format!("topic {name} belongs to the broker"),
        ));
    }
    let deleted = name.clone();
    cx.blocking(move |store| store.delete_topic(&deleted))
        .await?;
    cx.groups().topic_deleted(&name).await;
    Ok(())
}
