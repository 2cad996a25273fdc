//! Records that can't be handled are written down before they are passed.
//!
//! Key, value and headers stay byte for byte as they were; what went wrong is added as headers.
//! The origin's position advances only after the broker has acknowledged the dead letter.

use std::sync::Arc;

use ackwell_core::engine::{Event, Failure, RunId};
use ackwell_core::envelope::{failure, original};
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

use super::mailbox::Mailbox;
use super::spec::{Observation, Observer, Spec, StartError};
use super::writer::{Destination, WriteError, Writer};
use crate::record::{Headers, Record};

/// Bytes of a failure's reason that are kept.
const REASON_BYTES_MAX: usize = 1_024;
/// The same where the record fills its topic's limit: enough to say what it was.
const REASON_BYTES_MIN: usize = 80;

/// Writes dead letters.
#[derive(Clone)]
pub(super) struct DeadLetterWriter {
    group: Arc<str>,
    suffix: Arc<str>,
    writer: Writer,
    observer: Arc<dyn Observer>,
}

impl DeadLetterWriter {
    /// Makes the dead-letter topics that are missing.
    pub(super) async fn open(
        spec: &Spec,
        suffix: &str,
        writer: Writer,
    ) -> Result<Self, StartError> {
        for origin in &spec.topics {
            let topic = format!("{origin}{suffix}");
            let prepared = writer.prepare(origin, &topic).await;
            prepared.map_err(|reason| StartError::DeadLetterTopic {
                listener: spec.listener.clone(),
                topic,
                reason,
            })?;
        }
        Ok(DeadLetterWriter {
            group: spec.group.as_str().into(),
            suffix: suffix.into(),
            writer,
            observer: Arc::clone(&spec.observer),
        })
    }

    /// Writes one dead letter in the background and reports to the engine.
    pub(super) fn write(
        &self,
        recovery: RunId,
        letter: Letter,
        mailbox: Mailbox,
        tasks: &TaskTracker,
        runtime: &Handle,
    ) {
        let writer = self.clone();
        let work = async move {
            let result = writer.send(&letter).await;
            let result = result.map_err(|error| format!("a dead letter is not written: {error}"));
            writer.tell(&letter, &result);
            mailbox.send(Event::Recovered { recovery, result });
        };
        tasks.spawn_on(work, runtime);
    }

    async fn send(&self, letter: &Letter) -> Result<(), WriteError> {
        let Letter { record, .. } = letter;
        let origin = record.origin();
        let topic = format!("{}{}", origin.topic, self.suffix);
        self.writer.prepare(origin.topic, &topic).await?;
        let to = Destination {
            topic,
            partition: Some(origin.partition),
        };
        let (kept, added) = letter.headers(&self.group, REASON_BYTES_MAX);
        match self.writer.write(record, (&kept, &added), &to).await {
            Err(error) if error.is_too_large() => {
                let (kept, added) = letter.headers(&self.group, REASON_BYTES_MIN);
                self.writer.write(record, (&kept, &added), &to).await
            }
            written => written,
        }
    }

    fn tell(&self, letter: &Letter, result: &Result<(), String>) {
        let (topic, partition) = (letter.record.topic(), letter.record.partition());
        let offset = letter.record.offset();
        match result {
            Ok(()) => {
                let class = letter.failure.class;
                tracing::warn!(topic, partition, offset, %class, "a record was dead-lettered");
                self.observer
                    .observe(&Observation::DeadLettered { topic, class });
            }
            Err(error) => {
                tracing::error!(
                    topic,
                    partition,
                    offset,
                    error,
                    "a dead letter could not be written"
                );
                self.observer
                    .observe(&Observation::RecoveryFailed { topic, error });
            }
        }
    }
}

/// A record and why it can't be handled.
pub(super) struct Letter {
    pub(super) record: Record,
    pub(super) failure: Failure,
    pub(super) attempts: u32,
}

impl Letter {
    /// The record's own headers, and what is added to them.
    fn headers(&self, group: &str, reason_max: usize) -> (Headers, Headers) {
        let Letter {
            record,
            failure,
            attempts,
        } = self;
        let origin = record.origin();
        let mut kept = record.headers().clone();
        if origin != record.place() {
            // What a retry topic or a replay has added is said anew.
            original::ALL.iter().for_each(|name| kept.remove_last(name));
        }
        let timestamp = origin
            .timestamp
            .map_or_else(String::new, |at| at.to_string());
        let mut added = Headers::new();
        for (name, value) in [
            (original::TOPIC, origin.topic.to_owned()),
            (original::PARTITION, origin.partition.to_string()),
            (original::OFFSET, origin.offset.to_string()),
            (original::TIMESTAMP, timestamp),
            (original::GROUP, group.to_owned()),
            (
                failure::REASON,
                shortened(&failure.summary, reason_max).to_owned(),
            ),
            (failure::CLASS, failure.class.as_str().to_owned()),
            (failure::TIMESTAMP, jiff::Timestamp::now().to_string()),
            (failure::ATTEMPTS, attempts.to_string()),
        ] {
            added.push_static(name, value);
        }
        (kept, added)
    }
}

fn shortened(reason: &str, most: usize) -> &str {
    let end = reason.floor_char_boundary(most);
    reason.get(..end).unwrap_or(reason)
}
