//! Declared topics: created where they are missing, checked where they exist.
//!
//! A topic that the broker creates on first use has one partition, which makes every concurrency
//! setting useless without anybody noticing.

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::metadata::Metadata;

use super::StartError;
use super::broker::{ANSWER_WAIT, Away, Broker};
use crate::config::Config;
use crate::context::SetupError;
use crate::dead_letters;
use crate::rights::{self, Rights};
use crate::topic::{Topic, TopicDeclaration};

/// Why topics are not in place.
#[derive(Debug)]
pub(super) enum Unready {
    /// Trying again may help.
    Away(Away),
    /// It won't.
    Wrong(StartError),
}

/// Creates what is missing and checks what exists.
pub(super) async fn ensure(
    broker: &Broker,
    config: &Config,
    declared: &[TopicDeclaration],
) -> Result<(), Unready> {
    let metadata = broker.metadata(None).await.map_err(Unready::Away)?;
    let mut missing = Vec::new();
    for topic in declared {
        match partitions_of(&metadata, &topic.name) {
            None => missing.push(topic),
            Some(found) => check(topic, found).map_err(Unready::Wrong)?,
        }
    }
    for topic in &missing {
        visible(broker, config, topic).await?;
    }
    match missing.first() {
        None => Ok(()),
        Some(topic) if !config.topics.create => Err(Unready::Wrong(wrong(
            topic,
            SetupError::new("it does not exist, and `topics.create` is false")
                .mend("create it, or set `topics.create = true`"),
        ))),
        Some(_) => create(config, &missing, &metadata).await,
    }
}

/// Topics that a client may not see are left out when all are listed.
async fn visible(
    broker: &Broker,
    config: &Config,
    topic: &TopicDeclaration,
) -> Result<(), Unready> {
    let name = &*topic.name;
    let found = broker.metadata(Some(name.to_owned())).await;
    let found = found.map_err(Unready::Away)?;
    let mut topics = found.topics().iter().filter(|found| found.name() == name);
    let error = topics.find_map(|found| found.error()).map(Code::from);
    if !error.is_some_and(rights::is_missing) {
        return Ok(());
    }
    let what = "this client may not see it, or it does not exist";
    let mend = Rights::of(&config.kafka.admin()).to_read([name]);
    Err(Unready::Wrong(wrong(
        topic,
        SetupError::new(what).mend(mend),
    )))
}

fn partitions_of(metadata: &Metadata, name: &str) -> Option<usize> {
    let topic = metadata
        .topics()
        .iter()
        .find(|topic| topic.name() == name)?;
    (topic.error().is_none() && !topic.partitions().is_empty()).then(|| topic.partitions().len())
}

fn check(topic: &TopicDeclaration, found: usize) -> Result<(), StartError> {
    let declared = topic.partitions.map_or(0, usize::from);
    if found >= declared {
        return Ok(());
    }
    let what = format!(
        "it has {found} partitions on the broker, fewer than the {declared} that are declared"
    );
    let mend = "add partitions (keys then map to other partitions, so drain the topic first), or declare fewer";
    Err(wrong(topic, SetupError::new(what).mend(mend)))
}

async fn create(
    config: &Config,
    missing: &[&TopicDeclaration],
    metadata: &Metadata,
) -> Result<(), Unready> {
    let admin: AdminClient<DefaultClientContext> =
        (config.kafka.admin().create()).map_err(|error| {
            Unready::Wrong(StartError::Client {
                reason: error.to_string(),
            })
        })?;
    let retentions: Vec<_> = missing
        .iter()
        .map(|topic| topic.retention.map(|r| r.as_millis().to_string()))
        .collect();
    let new_topics = missing.iter().zip(&retentions).map(|(topic, retention)| {
        let partitions = partitions_for(topic, missing, metadata);
        let replication = TopicReplication::Fixed(config.topics.replication_factor);
        let new = NewTopic::new(&topic.name, partitions, replication);
        match retention {
            Some(retention) => new.set("retention.ms", retention),
            None => new,
        }
    });
    let new_topics: Vec<_> = new_topics.collect();
    let options = AdminOptions::new()
        .request_timeout(Some(ANSWER_WAIT * 3))
        .operation_timeout(Some(ANSWER_WAIT));
    let results = admin.create_topics(&new_topics, &options).await;
    let results =
        results.map_err(|error| Unready::Away(Away(format!("creating topics: {error}"))))?;
    for result in results {
        match result {
            Ok(name) => tracing::info!(topic = %name, "topic created"),
            Err((_, Code::TopicAlreadyExists)) => {}
            Err((name, code)) => return Err(refused(config, &name, code)),
        }
    }
    Ok(())
}

/// How many a missing topic gets: a dead-letter topic as many as its origin, so that dead letters
/// find the partitions of their origins.
fn partitions_for(topic: &TopicDeclaration, missing: &[&TopicDeclaration], on: &Metadata) -> i32 {
    let by_origin = || {
        let origin = dead_letters::origin_of(&topic.name)?;
        let found = partitions_of(on, origin).and_then(|found| u16::try_from(found).ok());
        let declared = || {
            missing
                .iter()
                .find(|other| other.name == origin)?
                .partitions
        };
        found.or_else(declared)
    };
    let count = topic.partitions.or_else(by_origin);
    i32::from(count.unwrap_or(Topic::<()>::DEFAULT_PARTITIONS))
}

fn refused(config: &Config, name: &str, code: Code) -> Unready {
    let to_create = Rights::of(&config.kafka.admin()).to_create(name);
    let mend = match code {
        Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed => to_create.as_str(),
        Code::InvalidReplicationFactor => {
            "set `topics.replication_factor` to at most the number of brokers"
        }
        Code::InvalidPartitions
        | Code::InvalidTopic
        | Code::InvalidConfig
        | Code::PolicyViolation => "correct its declaration",
        _ => return Unready::Away(Away(format!("creating topic `{name}`: {code}"))),
    };
    let problem = SetupError::new(format!("the broker refuses to create it: {code}")).mend(mend);
    Unready::Wrong(StartError::Topic {
        topic: name.to_owned(),
        problem,
    })
}

fn wrong(topic: &TopicDeclaration, problem: SetupError) -> StartError {
    StartError::Topic {
        topic: topic.name.to_string(),
        problem,
    }
}
