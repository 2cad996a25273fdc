//! The coordinator as the API handlers see it: requests in, responses out, shards in between.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::future::join_all;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnTopicResult,
};
use kafka_protocol::messages::describe_transactions_response::{TopicData, TransactionState};
use kafka_protocol::messages::list_transactions_response::TransactionState as ListedTransaction;
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, AddPartitionsToTxnRequest,
    AddPartitionsToTxnResponse, DescribeTransactionsRequest, DescribeTransactionsResponse,
    EndTxnRequest, EndTxnResponse, InitProducerIdRequest, InitProducerIdResponse,
    ListTransactionsRequest, ListTransactionsResponse, ProducerId, TopicName, TransactionalId,
};
use kafka_protocol::protocol::StrBytes;

use super::Config;
use super::host::{Ends, TransactionHost};
use super::machine::{Epochs, Filter, Request, Response};
use super::participants::Participants;
use super::record::{Partitions, State, Transaction};
use crate::Error;
use crate::coordinator::{ProducerEpoch, Shards, Verdict};
use crate::group::{self, OFFSETS_TOPIC};
use crate::store::Store;

/// The topic that holds how transactional ids stand.
pub(super) const STATE_TOPIC: &str = "__transaction_state";

/// Clients of this version know that each transaction has an epoch of its own (KIP-890).
const OWN_EPOCHS: i16 = 5;

/// What a client is told when its shard cannot answer: it looks for the coordinator and tries again.
const UNAVAILABLE: ResponseError = ResponseError::CoordinatorNotAvailable;

/// All states by name, for a filter that names one which is not.
const STATES: [State; 6] = [
    State::Empty,
    State::Ongoing,
    State::Preparing(Verdict::Commit),
    State::Preparing(Verdict::Abort),
    State::Complete(Verdict::Commit),
    State::Complete(Verdict::Abort),
];

/// The transaction coordinator. Cheap to clone; all methods may be called at once from many
/// connections. Errors are in the response, as error codes.
///
/// # Cancel safety
/// A method that is dropped while it waits leaves its request to be carried out or not, as a client
/// whose connection is cut does; nothing else depends on it.
#[derive(Debug, Clone)]
pub(crate) struct Coordinator {
    store: Arc<Store>,
    groups: group::Coordinator,
    shards: Shards<TransactionHost>,
    ends: Arc<Ends>,
}

impl Coordinator {
    /// Creates `__transaction_state` if it is missing, reads it back, and brings every partition to
    /// what it says: open transactions may go on, decided ones end, unknown ones are aborted.
    ///
    /// # Errors
    /// When the topic cannot be created or read.
    pub(crate) async fn open(
        config: Config,
        store: Arc<Store>,
        groups: group::Coordinator,
    ) -> Result<Self, Error> {
        let participants = Participants {
            store: Arc::clone(&store),
            groups: groups.clone(),
        };
        let partitions = config.state_partitions;
        let ends = Arc::new(Ends::default());
        let host = TransactionHost {
            config,
            participants: participants.clone(),
            ends: Arc::clone(&ends),
        };
        let shards = Shards::open(host, Arc::clone(&store), STATE_TOPIC, partitions).await?;
        let mut incomplete = Vec::new();
        for shard in 0..shards.count() {
            if let Some(Response::Incomplete(of_shard)) =
                shards.call_shard(shard, Request::Incomplete).await
            {
                incomplete.extend(of_shard);
            }
        }
        for (producer, partitions) in &incomplete {
            participants.admit(*producer, partitions).await;
        }
        participants.abort_orphans(&incomplete).await;
        Ok(Self {
            store,
            groups,
            shards,
            ends,
        })
    }

    /// Gives a producer with a transactional id its producer id and epoch, and fences who had it
    /// before. `fresh_id` is one that nobody has, should it need it.
    pub(crate) async fn init_producer_id(
        &self,
        request: InitProducerIdRequest,
        version: i16,
        fresh_id: i64,
    ) -> InitProducerIdResponse {
        let transactional_id = request.transactional_id.unwrap_or_default().0;
        let expected = (request.producer_id.0 >= 0).then_some(ProducerEpoch {
            id: request.producer_id.0,
            epoch: request.producer_epoch,
        });
        let init = Request::Init {
            transactional_id: transactional_id.clone(),
            timeout_ms: request.transaction_timeout_ms,
            expected,
            fresh_id,
        };
        let given = match self.shards.call(&transactional_id, init).await {
            Some(Response::Init(given)) => given,
            _ => Err(UNAVAILABLE),
        };
        match given {
            Ok(producer) => InitProducerIdResponse::default()
                .with_producer_id(ProducerId(producer.id))
                .with_producer_epoch(producer.epoch),
            Err(error) => InitProducerIdResponse::default()
                .with_error_code(fenced_before(4, version, error).code())
                .with_producer_id(ProducerId(-1))
                .with_producer_epoch(-1),
        }
    }

    /// Takes partitions into a transaction: all, or if one of them does not exist, none.
    pub(crate) async fn add_partitions(
        &self,
        request: AddPartitionsToTxnRequest,
        version: i16,
    ) -> AddPartitionsToTxnResponse {
        let topics = &request.v3_and_below_topics;
        let unknown = |topic: &str, index: i32| self.refusal(topic, index);
        let any_unknown = topics.iter().any(|topic| {
            topic
                .partitions
                .iter()
                .any(|&index| unknown(&topic.name, index).is_some())
        });
        if any_unknown {
            let results = added(topics, |topic, index| {
                unknown(topic, index)
                    .unwrap_or(ResponseError::OperationNotAttempted)
                    .code()
            });
            return AddPartitionsToTxnResponse::default()
                .with_results_by_topic_v3_and_below(results);
        }
        let mut partitions = Partitions::new();
        for topic in topics {
            partitions
                .entry(topic.name.0.clone())
                .or_default()
                .extend(&topic.partitions);
        }
        let producer = ProducerEpoch {
            id: request.v3_and_below_producer_id.0,
            epoch: request.v3_and_below_producer_epoch,
        };
        let id = request.v3_and_below_transactional_id.0;
        let code = code(self.add(id, producer, partitions).await, version);
        AddPartitionsToTxnResponse::default()
            .with_results_by_topic_v3_and_below(added(topics, |_, _| code))
    }

    fn refusal(&self, topic: &str, index: i32) -> Option<ResponseError> {
        match self.store.topic(topic) {
            Some(_) if matches!(topic, OFFSETS_TOPIC | STATE_TOPIC) => {
                Some(ResponseError::TopicAuthorizationFailed)
            }
            Some(topic) if (0..topic.partition_count()).contains(&index) => None,
            _ => Some(ResponseError::UnknownTopicOrPartition),
        }
    }

    /// Takes a group's offsets into a transaction.
    pub(crate) async fn add_offsets(
        &self,
        request: AddOffsetsToTxnRequest,
        version: i16,
    ) -> AddOffsetsToTxnResponse {
        let producer = ProducerEpoch {
            id: request.producer_id.0,
            epoch: request.producer_epoch,
        };
        let id = request.transactional_id.0;
        let added = self.add_group(id, producer, &request.group_id).await;
        AddOffsetsToTxnResponse::default().with_error_code(code(added, version))
    }

    /// As [`Coordinator::add`], for a group's offsets.
    pub(crate) async fn add_group(
        &self,
        transactional_id: StrBytes,
        producer: ProducerEpoch,
        group: &str,
    ) -> Result<(), ResponseError> {
        let index = self.groups.offsets_partition(group);
        let partitions = Partitions::from([(
            StrBytes::from_static_str(OFFSETS_TOPIC),
            BTreeSet::from([index]),
        )]);
        self.add(transactional_id, producer, partitions).await
    }

    /// Takes partitions into a transaction that exist, for a producer that writes to them without
    /// having said so before (KIP-890); they take its batches when this returns.
    pub(crate) async fn add(
        &self,
        transactional_id: StrBytes,
        producer: ProducerEpoch,
        partitions: Partitions,
    ) -> Result<(), ResponseError> {
        let add = Request::Add {
            transactional_id: transactional_id.clone(),
            producer,
            partitions,
        };
        match self.shards.call(&transactional_id, add).await {
            Some(Response::Done(done)) => done,
            Some(Response::Admitted) => Ok(()),
            _ => Err(UNAVAILABLE),
        }
    }

    /// Commits or aborts; answered when the decision is durable.
    pub(crate) async fn end(&self, request: EndTxnRequest, version: i16) -> EndTxnResponse {
        let own = |fresh_id| match version {
            OWN_EPOCHS.. => Epochs::Own { fresh_id },
            _ => Epochs::Shared,
        };
        let mut ended = self.end_with(&request, own(None)).await;
        if let Some(Response::IdWanted) = ended {
            ended = match self.fresh_id().await {
                Ok(id) => self.end_with(&request, own(Some(id))).await,
                Err(error) => Some(Response::Ended(Err(error))),
            };
        }
        let ended = match ended {
            Some(Response::Ended(ended)) => ended,
            _ => Err(UNAVAILABLE),
        };
        match ended {
            Ok(producer) if version >= OWN_EPOCHS => EndTxnResponse::default()
                .with_producer_id(ProducerId(producer.id))
                .with_producer_epoch(producer.epoch),
            ended => EndTxnResponse::default().with_error_code(code(ended.map(|_| ()), version)),
        }
    }

    async fn end_with(&self, request: &EndTxnRequest, epochs: Epochs) -> Option<Response> {
        let transactional_id = request.transactional_id.0.clone();
        let end = Request::End {
            transactional_id: transactional_id.clone(),
            producer: ProducerEpoch {
                id: request.producer_id.0,
                epoch: request.producer_epoch,
            },
            verdict: match request.committed {
                true => Verdict::Commit,
                false => Verdict::Abort,
            },
            epochs,
        };
        self.shards.call(&transactional_id, end).await
    }

    /// A producer id that nobody has; the disk may have to be asked.
    async fn fresh_id(&self) -> Result<i64, ResponseError> {
        let store = Arc::clone(&self.store);
        let taken = tokio::task::spawn_blocking(move || store.next_producer_id()).await;
        match taken {
            Ok(Ok(id)) => Ok(id),
            Ok(Err(error)) => {
                tracing::error!(error = &error as &dyn std::error::Error, "no producer id");
                Err(error.code())
            }
            Err(_) => Err(UNAVAILABLE),
        }
    }

    /// Shows transactions.
    pub(crate) async fn describe(
        &self,
        request: DescribeTransactionsRequest,
    ) -> DescribeTransactionsResponse {
        let states = request.transactional_ids.into_iter().map(|id| async {
            let described = match self
                .shards
                .call(&id.0, Request::Describe(id.0.clone()))
                .await
            {
                _ if id.0.is_empty() => refused(ResponseError::InvalidRequest),
                Some(Response::Described(Some(transaction))) => shown(&transaction),
                Some(Response::Described(None)) => refused(ResponseError::TransactionalIdNotFound),
                _ => refused(UNAVAILABLE),
            };
            described.with_transactional_id(id)
        });
        DescribeTransactionsResponse::default().with_transaction_states(join_all(states).await)
    }

    /// Names transactions by state, producer and how long they are open.
    pub(crate) async fn list(&self, request: ListTransactionsRequest) -> ListTransactionsResponse {
        let (known, unknown): (Vec<_>, Vec<_>) = request
            .state_filters
            .into_iter()
            .partition(|name| STATES.iter().any(|state| state.name() == name.as_str()));
        let mut response = ListTransactionsResponse::default().with_unknown_state_filters(unknown);
        if known.is_empty() && !response.unknown_state_filters.is_empty() {
            return response;
        }
        let filter = Filter {
            states: known.into_iter().collect(),
            producer_ids: request.producer_id_filters.iter().map(|id| id.0).collect(),
            open_longer_ms: Some(request.duration_filter).filter(|ms| *ms >= 0),
        };
        let answers = join_all(
            (0..self.shards.count())
                .map(|shard| self.shards.call_shard(shard, Request::List(filter.clone()))),
        )
        .await;
        for answer in answers {
            match answer {
                Some(Response::Listed(listed)) => {
                    response
                        .transaction_states
                        .extend(listed.into_iter().map(named));
                }
                _ => response.error_code = UNAVAILABLE.code(),
            }
        }
        response
    }

    /// How many transactions have ended since the start.
    pub(crate) fn ends(&self) -> &Ends {
        &self.ends
    }

    pub(super) fn participants(&self) -> Participants {
        Participants {
            store: Arc::clone(&self.store),
            groups: self.groups.clone(),
        }
    }

    /// Carries out what was asked so far and ends the coordinator's tasks. Ends that are not written
    /// everywhere are written at the next start.
    pub(crate) async fn shutdown(&self) {
        self.shards.shutdown().await;
    }
}

fn named((id, producer, state): (StrBytes, ProducerEpoch, State)) -> ListedTransaction {
    ListedTransaction::default()
        .with_transactional_id(TransactionalId(id))
        .with_producer_id(ProducerId(producer.id))
        .with_transaction_state(StrBytes::from_static_str(state.name()))
}

fn shown(transaction: &Transaction) -> TransactionState {
    let topics = transaction.partitions.iter().map(|(topic, indexes)| {
        TopicData::default()
            .with_topic(TopicName(topic.clone()))
            .with_partitions(indexes.iter().copied().collect())
    });
    TransactionState::default()
        .with_transaction_state(StrBytes::from_static_str(transaction.state.name()))
        .with_transaction_timeout_ms(transaction.timeout_ms)
        .with_transaction_start_time_ms(transaction.start_ms)
        .with_producer_id(ProducerId(transaction.producer.id))
        .with_producer_epoch(transaction.producer.epoch)
        .with_topics(topics.collect())
}

fn refused(error: ResponseError) -> TransactionState {
    TransactionState::default().with_error_code(error.code())
}

fn added(
    topics: &[AddPartitionsToTxnTopic],
    code: impl Fn(&str, i32) -> i16,
) -> Vec<AddPartitionsToTxnTopicResult> {
    let result = |topic: &AddPartitionsToTxnTopic| {
        let partitions = topic.partitions.iter().map(|&index| {
            AddPartitionsToTxnPartitionResult::default()
                .with_partition_index(index)
                .with_partition_error_code(code(&topic.name, index))
        });
        AddPartitionsToTxnTopicResult::default()
            .with_name(topic.name.clone())
            .with_results_by_partition(partitions.collect())
    };
    topics.iter().map(result).collect()
}

fn code(outcome: Result<(), ResponseError>, version: i16) -> i16 {
    outcome
        .err()
        .map_or(0, |error| fenced_before(2, version, error).code())
}

/// Clients before a version know a fenced producer by another code (KIP-588).
fn fenced_before(since: i16, version: i16, error: ResponseError) -> ResponseError {
    match error {
        ResponseError::ProducerFenced if version < since => ResponseError::InvalidProducerEpoch,
        error => error,
    }
}
