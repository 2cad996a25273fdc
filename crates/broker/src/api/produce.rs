//! Produce: append in the order of arrival, then answer when the records are as safe as promised.
//!
//! The append happens before the connection's next request is looked at, so pipelined requests
//! keep their order; the wait for the disk does not hold them up, and one fsync serves them all.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::join_all;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, PartitionProduceResponse, TopicProduceResponse,
};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse, TransactionalId};
use kafka_protocol::protocol::StrBytes;

use super::Context;
use super::context::now_ms;
use super::partition::{Named, is_internal};
use super::reply::Answer;
use crate::access::Use;
use crate::log::{AppendError, Appended, Partition};
use crate::store::Topic;
use crate::transaction::Partitions;

/// Since this version, topics are named by their ids.
const TOPIC_IDS: i16 = 13;

/// Since this version, records take their partition into the producer's transaction (KIP-890).
const JOINING: i16 = 12;

/// How safe a record must be before it is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Acks {
    /// No response at all.
    None,
    /// Written: survives the process, not a loss of power.
    Leader,
    /// As safe as the flush setting promises. There are no replicas to ask.
    All,
}

pub(super) async fn handle(cx: &Context, request: ProduceRequest) -> Answer<ProduceResponse> {
    let acks = match request.acks {
        0 => Acks::None,
        1 => Acks::Leader,
        -1 => Acks::All,
        // Of two mistakes, Kafka tells the one about the topic.
        _ => {
            return refuse_all(&request, |topic, index| {
                missing(cx, topic, index).unwrap_or(ResponseError::InvalidRequiredAcks)
            });
        }
    };
    if let Some(id) = &request.transactional_id
        && let Err(error) = cx.transactional_right(id, Use::Write)
    {
        return refuse_all(&request, |_, _| error);
    }
    let joined = match &request.transactional_id {
        Some(id) if cx.version >= JOINING => join(cx, id, &request.topic_data).await,
        _ => Ok(()),
    };
    let appended = |topic| append_topic(cx, topic, joined);
    let topics: Vec<_> = request.topic_data.into_iter().map(appended).collect();
    match acks {
        Acks::None => silence(&topics),
        Acks::Leader | Acks::All => Answer::Later(acknowledge(topics, acks).boxed()),
    }
}

/// One partition of the request: what was appended, or why not.
struct Outcome {
    index: i32,
    result: Result<(Arc<Partition>, Appended), Rejected>,
}

struct Rejected {
    code: ResponseError,
    message: Option<String>,
    /// The records of the batch that are to blame.
    records: Vec<i32>,
}

impl From<ResponseError> for Rejected {
    fn from(code: ResponseError) -> Self {
        Self {
            code,
            message: None,
            records: Vec::new(),
        }
    }
}

/// A topic of the answer, without its partitions, and what became of these.
type Outcomes = (TopicProduceResponse, Vec<Outcome>);

/// Takes the partitions into the transaction that it did not reach until now. The connection's next
/// requests wait meanwhile, as they would for AddPartitionsToTxn.
async fn join(
    cx: &Context,
    id: &TransactionalId,
    topics: &[TopicProduceData],
) -> Result<(), ResponseError> {
    let mut partitions = Partitions::new();
    let mut producer = None;
    for data in topics {
        // Who may not write there is told so when it comes to that.
        let Ok(topic) = writable(cx, data) else {
            continue;
        };
        for of in &data.partition_data {
            let records = of.records.as_deref().unwrap_or_default();
            let partition = topic.partition(of.index);
            let Some(writes) = partition.and_then(|partition| partition.newcomer(records)) else {
                continue;
            };
            if *producer.get_or_insert(writes) != writes {
                return Err(ResponseError::InvalidProducerIdMapping);
            }
            let name = StrBytes::from_string(topic.name.clone());
            partitions.entry(name).or_default().insert(of.index);
        }
    }
    let Some(producer) = producer else {
        return Ok(());
    };
    let added = cx.transactions().add(id.0.clone(), producer, partitions);
    added.await.map_err(|error| match error {
        ResponseError::ProducerFenced => ResponseError::InvalidProducerEpoch,
        // Sent again without looking for a leader anew.
        ResponseError::CoordinatorNotAvailable => ResponseError::NotEnoughReplicas,
        error => error,
    })
}

fn append_topic(
    cx: &Context,
    data: TopicProduceData,
    joined: Result<(), ResponseError>,
) -> Outcomes {
    let topic = writable(cx, &data);
    let append = |data: PartitionProduceData| Outcome {
        index: data.index,
        result: match &topic {
            Ok(topic) => append(cx, topic, data.index, data.records, joined),
            Err(refused) => Err((*refused).into()),
        },
    };
    let outcomes = data.partition_data.into_iter().map(append).collect();
    let response = TopicProduceResponse::default()
        .with_name(data.name)
        .with_topic_id(data.topic_id);
    (response, outcomes)
}

fn writable(cx: &Context, data: &TopicProduceData) -> Result<Arc<Topic>, ResponseError> {
    let named = match cx.version {
        TOPIC_IDS.. => Named::Id(data.topic_id),
        _ => Named::Name(&data.name),
    };
    let topic = cx.topic_for(named, Use::Write)?;
    match is_internal(&topic.name) {
        true => Err(ResponseError::InvalidTopicException),
        false => Ok(topic),
    }
}

fn append(
    cx: &Context,
    topic: &Topic,
    index: i32,
    records: Option<Bytes>,
    joined: Result<(), ResponseError>,
) -> Result<(Arc<Partition>, Appended), Rejected> {
    let partition = topic
        .partition(index)
        .ok_or(ResponseError::UnknownTopicOrPartition)?;
    let records = records.ok_or(ResponseError::InvalidRecord)?;
    let appended = partition
        .append(records, now_ms())
        .map_err(|error| Rejected {
            code: told(cx.version, &error, joined),
            message: Some(error.to_string()),
            records: error.records().to_vec(),
        })?;
    Ok((partition, appended))
}

/// A producer that knows how (KIP-890) aborts and goes on where others give up.
fn told(version: i16, error: &AppendError, joined: Result<(), ResponseError>) -> ResponseError {
    match (error, joined) {
        (AppendError::NoTransaction { .. }, Err(why)) => why,
        (AppendError::NoTransaction { .. }, Ok(())) if version >= 11 => {
            ResponseError::TransactionAbortable
        }
        (error, _) => error.code(),
    }
}

/// Without a response, closing the connection is the only way to say that something is wrong; the
/// client then fetches its metadata anew. So does Apache Kafka.
fn silence(topics: &[Outcomes]) -> Answer<ProduceResponse> {
    let mut outcomes = topics.iter().flat_map(|(_, outcomes)| outcomes);
    match outcomes.any(|outcome| outcome.result.is_err()) {
        true => Answer::Disconnect("records produced with acks=0 were refused"),
        false => Answer::Silent,
    }
}

async fn acknowledge(topics: Vec<Outcomes>, acks: Acks) -> ProduceResponse {
    let topics = topics.into_iter().map(|(response, outcomes)| async move {
        let partitions = outcomes
            .into_iter()
            .map(|outcome| acknowledge_partition(outcome, acks));
        response.with_partition_responses(join_all(partitions).await)
    });
    ProduceResponse::default().with_responses(join_all(topics).await)
}

async fn acknowledge_partition(outcome: Outcome, acks: Acks) -> PartitionProduceResponse {
    let response = PartitionProduceResponse::default().with_index(outcome.index);
    let settled = match outcome.result {
        Ok((partition, appended)) if acks == Acks::All => partition
            .durable(appended.last_offset)
            .await
            .map(|()| appended)
            .map_err(|error| Rejected {
                code: error.code(),
                message: Some(error.to_string()),
                records: Vec::new(),
            }),
        Ok((_, appended)) => Ok(appended),
        Err(rejected) => Err(rejected),
    };
    match settled {
        Ok(appended) => response
            .with_base_offset(appended.base_offset)
            .with_log_append_time_ms(appended.log_append_time)
            .with_log_start_offset(appended.log_start_offset),
        Err(rejected) => response
            .with_error_code(rejected.code.code())
            .with_record_errors(blamed(&rejected))
            .with_error_message(rejected.message.map(StrBytes::from_string))
            .with_base_offset(-1)
            .with_log_append_time_ms(-1)
            .with_log_start_offset(-1),
    }
}

/// Which records are to blame (KIP-467); a producer fails these by themselves and may send the others again.
fn blamed(rejected: &Rejected) -> Vec<BatchIndexAndErrorMessage> {
    let message = rejected.message.as_deref().unwrap_or_default();
    let blame = |&place: &i32| {
        BatchIndexAndErrorMessage::default()
            .with_batch_index(place)
            .with_batch_index_error_message(Some(StrBytes::from_string(message.to_owned())))
    };
    rejected.records.iter().map(blame).collect()
}

/// Why nothing can be written there, whatever it is.
fn missing(cx: &Context, data: &TopicProduceData, index: i32) -> Option<ResponseError> {
    match writable(cx, data) {
        Ok(topic) if topic.partition(index).is_some() => None,
        Ok(_) => Some(ResponseError::UnknownTopicOrPartition),
        Err(error) => Some(error),
    }
}

fn refuse_all(
    request: &ProduceRequest,
    code: impl Fn(&TopicProduceData, i32) -> ResponseError,
) -> Answer<ProduceResponse> {
    if request.acks == 0 {
        return Answer::Disconnect("records produced with acks=0 were refused");
    }
    let topics = request.topic_data.iter().map(|topic| {
        let partitions = topic.partition_data.iter().map(|data| {
            PartitionProduceResponse::default()
                .with_index(data.index)
                .with_error_code(code(topic, data.index).code())
                .with_base_offset(-1)
                .with_log_append_time_ms(-1)
                .with_log_start_offset(-1)
        });
        TopicProduceResponse::default()
            .with_name(topic.name.clone())
            .with_topic_id(topic.topic_id)
            .with_partition_responses(partitions.collect())
    });
    let response = ProduceResponse::default().with_responses(topics.collect());
    Answer::Later(async move { response }.boxed())
}
