//! Records that are to be tried again later go to retry topics, and come back from them.
//!
//! One that waits in its lane holds up those behind it. On a retry topic it waits alone, survives
//! restarts and handovers, and takes what is known of it along. Its origin's position advances
//! only after the broker has acknowledged the copy.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ackwell_core::Timestamp;
use ackwell_core::engine::{Event, Failure, FirstFailure, RunId};
use ackwell_core::envelope::retry;
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

use super::mailbox::Mailbox;
use super::observation::{Observation, Observer};
use super::spec::{Spec, StartError};
use super::writer::{Destination, WriteError, Writer, answered};
use crate::mutation::{self, Fault};
use crate::record::Record;
use crate::returned::{Departure, Moment, Received, receive};

/// Bytes of a failure's reason that travel with a record.
const REASON_BYTES_MAX: usize = 256;

/// The retry topics of one listener. Cheap to clone.
#[derive(Clone)]
pub(super) struct RetryTopics {
    group: Arc<str>,
    /// The origin of each retry topic.
    origins: Arc<HashMap<String, Arc<str>>>,
    writer: Writer,
    observer: Arc<dyn Observer>,
}

/// A record that is to be tried again later.
pub(super) struct Postponed {
    pub(super) record: Record,
    pub(super) failure: Failure,
    /// How often it was tried, everywhere.
    pub(super) attempts: u32,
    /// How it failed first, if it failed more than once here.
    pub(super) first: Option<FirstFailure>,
    /// The retry topic's number, from 1.
    pub(super) number: u32,
    pub(super) delay: Duration,
}

/// The names of a listener's retry topics, each with its origin.
pub(super) fn names(spec: &Spec) -> impl Iterator<Item = (String, &String)> {
    let last = u32::try_from(spec.retry_topics.len()).unwrap_or(u32::MAX);
    let numbered = spec
        .topics
        .iter()
        .flat_map(move |origin| (1..=last).map(move |number| (origin, number)));
    numbered.map(|(origin, number)| (retry::topic(origin, number), origin))
}

impl RetryTopics {
    /// Makes the retry topics that are missing, with the partitions of their origins.
    pub(super) async fn open(spec: &Spec, writer: Writer) -> Result<Self, StartError> {
        let mut origins = HashMap::new();
        for (topic, origin) in names(spec) {
            let prepared = writer.prepare_like(origin, &topic, 0).await;
            prepared.map_err(|reason| StartError::RetryTopic {
                listener: spec.listener.clone(),
                topic: topic.clone(),
                reason,
            })?;
            origins.insert(topic, origin.as_str().into());
        }
        Ok(RetryTopics {
            group: spec.group.as_str().into(),
            origins: Arc::new(origins),
            writer,
            observer: Arc::clone(&spec.observer),
        })
    }

    /// Their names.
    pub(super) fn names(&self) -> impl Iterator<Item = String> {
        self.origins.keys().cloned()
    }

    /// Turns what was read from a retry topic back into the records that failed. Those of other
    /// groups are left out, as if their offsets had never been given to a record.
    pub(super) fn receive(&self, topic: &str, records: Vec<Record>, now: Moment) -> Vec<Record> {
        let Some(origin) = self.origins.get(topic) else {
            return records;
        };
        let received = records
            .into_iter()
            .map(|record| receive(record, origin, &self.group, now));
        let ours = received.filter_map(|received| match received {
            Received::Back(record) | Received::Plain(record) => Some(record),
            Received::Foreign => None,
        });
        ours.collect()
    }

    /// Writes one record in the background and reports to the engine.
    pub(super) fn write(
        &self,
        recovery: RunId,
        postponed: Postponed,
        mailbox: Mailbox,
        (tasks, runtime): (&TaskTracker, &Handle),
    ) {
        let topics = RetryTopics {
            writer: self.writer.claiming(&postponed.record),
            ..self.clone()
        };
        if mutation::is(Fault::RetryNotAwaited) {
            let result = Ok(());
            mailbox.send(Event::Recovered { recovery, result });
        }
        let work = async move {
            let write = async {
                let sent = topics.send(&postponed).await;
                sent.map_err(|error| format!("a retry is not written: {error}"))
            };
            let result = answered(write).await;
            topics.tell(&postponed, &result);
            mailbox.send(Event::Recovered { recovery, result });
        };
        tasks.spawn_on(work, runtime);
    }

    fn destination(&self, postponed: &Postponed) -> (Arc<str>, String) {
        let from = postponed.record.shared_topic();
        let origin = self.origins.get(&*from).cloned().unwrap_or(from);
        let topic = retry::topic(&origin, postponed.number);
        (origin, topic)
    }

    async fn send(&self, postponed: &Postponed) -> Result<(), WriteError> {
        let record = &postponed.record;
        let (origin, topic) = self.destination(postponed);
        let partition = record.partition();
        self.writer.prepare_like(&origin, &topic, partition).await?;
        let to = Destination {
            topic,
            partition: Some(partition),
        };
        // Where the record fills the topic's limit, it goes without its reason.
        match self.put(postponed, REASON_BYTES_MAX, &to).await {
            Err(error) if error.is_too_large() => self.put(postponed, 0, &to).await,
            written => written,
        }
    }

    async fn put(
        &self,
        postponed: &Postponed,
        reason_max: usize,
        to: &Destination,
    ) -> Result<(), WriteError> {
        let record = &postponed.record;
        let departure = Departure {
            record,
            group: &self.group,
            reason: &postponed.failure.summary,
            reason_max,
            class: postponed.failure.class.as_str(),
            first: postponed.first.as_ref(),
            attempts: postponed.attempts,
            number: postponed.number,
            delay: postponed.delay,
            // As late as possible: time spent on earlier attempts to write it is no delay.
            now: jiff::Timestamp::now(),
        };
        let headers = (record.headers(), &departure.headers());
        self.writer.write(record, headers, to).await
    }

    fn tell(&self, postponed: &Postponed, result: &Result<(), String>) {
        let Postponed { record, number, .. } = postponed;
        let (topic, partition, offset) = (record.topic(), record.partition(), record.offset());
        match result {
            Ok(()) => {
                tracing::debug!(
                    topic,
                    partition,
                    offset,
                    number,
                    "a record is retried later"
                );
                self.observer.observe(&Observation::Postponed {
                    topic,
                    partition,
                    offset,
                    number: *number,
                    delay: postponed.delay,
                });
            }
            Err(error) => {
                tracing::error!(
                    topic,
                    partition,
                    offset,
                    error,
                    "a retry could not be written"
                );
                self.observer.observe(&Observation::RecoveryFailed {
                    topic,
                    partition,
                    offset,
                    error,
                });
            }
        }
    }
}

/// The moment by both clocks.
pub(super) fn moment(container: Timestamp) -> Moment {
    Moment {
        container,
        wall: Timestamp::from_millis(jiff::Timestamp::now().as_millisecond()),
    }
}
