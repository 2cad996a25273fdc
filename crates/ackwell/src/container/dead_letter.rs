//! Records that can't be handled are written down before they are passed.
//!
//! Key, value and headers stay byte for byte as they were; what went wrong is added as headers.
//! The origin's position advances only after the broker has acknowledged the dead letter. Its
//! timestamp is that of its writing, since retention counts from there: an old record would
//! be deleted from its dead-letter topic before anybody saw it.

use std::sync::Arc;

use ackwell_core::engine::{Event, Failure, FirstFailure, RunId};
use jiff::Timestamp;
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

use super::mailbox::Mailbox;
use super::observation::{Observation, Observer};
use super::spec::{Spec, StartError};
use super::writer::{Destination, WriteError, Writer, answered};
use crate::dead_letters::{DeadLetter, Format, Target, Verdict, first_told, last_told, take_off};
use crate::mutation::{self, Fault};
use crate::origin::{as_dead_letter, is_return};
use crate::record::{Headers, Record};
use crate::returned;

/// Bytes of a failure's reason that are kept.
const REASON_BYTES_MAX: usize = 1_024;
/// The same where the record fills its topic's limit: enough to say what it was.
const REASON_BYTES_MIN: usize = 80;

/// Writes dead letters.
#[derive(Clone)]
pub(super) struct DeadLetterWriter {
    group: Arc<str>,
    target: Arc<Target>,
    writer: Writer,
    observer: Arc<dyn Observer>,
}

impl DeadLetterWriter {
    /// Makes the dead-letter topics that are missing.
    pub(super) async fn open(
        spec: &Spec,
        target: &Target,
        writer: Writer,
    ) -> Result<Self, StartError> {
        for origin in origins(&spec.topics) {
            for topic in target.topics_for(origin) {
                let prepared = writer.prepare(origin, &topic).await;
                prepared.map_err(|reason| StartError::DeadLetterTopic {
                    listener: spec.listener.clone(),
                    topic,
                    reason,
                })?;
            }
        }
        Ok(DeadLetterWriter {
            group: spec.group.as_str().into(),
            target: Arc::new(target.clone()),
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
        let writer = DeadLetterWriter {
            writer: self.writer.claiming(&letter.record),
            ..self.clone()
        };
        if mutation::is(Fault::DeadLetterNotAwaited) {
            let result = Ok(());
            mailbox.send(Event::Recovered { recovery, result });
        }
        let work = async move {
            let result = writer.put(&letter).await;
            mailbox.send(Event::Recovered { recovery, result });
        };
        tasks.spawn_on(work, runtime);
    }

    /// Writes one dead letter and returns when it is safe.
    pub(super) async fn put(&self, letter: &Letter) -> Result<(), String> {
        let write = async {
            let sent = self.send(letter).await;
            sent.map_err(|error| self.explain(letter, &error))
        };
        let result = answered(write).await;
        self.tell(letter, &result);
        result
    }

    async fn send(&self, letter: &Letter) -> Result<(), WriteError> {
        let origin = letter.record.origin();
        let topic = self.topic_for(letter);
        self.writer.prepare(origin.topic, &topic).await?;
        let to = Destination {
            topic,
            partition: Some(origin.partition),
        };
        let kept = letter.kept();
        for most in [REASON_BYTES_MAX, REASON_BYTES_MIN] {
            let added = letter.added(&self.group, self.target.headers(), most);
            match self
                .writer
                .write(&letter.record, (&kept, &added), &to)
                .await
            {
                Err(error) if error.is_too_large() && most > REASON_BYTES_MIN => {}
                written => return written,
            }
        }
        Ok(())
    }

    fn topic_for(&self, letter: &Letter) -> String {
        let origin = letter.record.origin();
        self.target.topic_for(origin.topic, letter.failure.class)
    }

    fn explain(&self, letter: &Letter, error: &WriteError) -> String {
        let record = &letter.record;
        if !error.is_too_large() {
            return format!(
                "the dead letter of {} is not written: {error}",
                record.place()
            );
        }
        format!(
            "the dead letter of {}, {} bytes and its headers, is larger than {} takes; raise `max.message.bytes` of that topic, and the record is written at the next attempt",
            record.place(),
            record.size(),
            self.topic_for(letter),
        )
    }

    fn tell(&self, letter: &Letter, result: &Result<(), String>) {
        let (topic, partition) = (letter.record.topic(), letter.record.partition());
        let offset = letter.record.offset();
        match result {
            Ok(()) => {
                let (class, bytes) = (letter.failure.class, letter.record.size());
                tracing::warn!(topic, partition, offset, %class, "a record was dead-lettered");
                self.observer.observe(&Observation::DeadLettered {
                    topic,
                    partition,
                    offset,
                    class,
                    bytes,
                });
            }
            Err(error) => {
                tracing::error!(
                    topic,
                    partition,
                    offset,
                    error,
                    "a dead letter could not be written"
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

/// The topics whose dead letters are to be expected: retry topics bring back records of others,
/// and what a pattern will match is not known.
fn origins(topics: &[String]) -> impl Iterator<Item = &String> {
    let is_origin = |topic: &&String| {
        let mut others = topics.iter().filter(|other| other != topic);
        !topic.starts_with('^') && !others.any(|other| is_return(topic, other))
    };
    topics.iter().filter(is_origin)
}

/// A record and why it can't be handled.
pub(super) struct Letter {
    pub(super) record: Record,
    pub(super) failure: Failure,
    pub(super) attempts: u32,
    /// How it failed first, if it failed more than once here.
    pub(super) first: Option<FirstFailure>,
}

impl Letter {
    /// The record's headers, without those that a retry topic, a replay or an earlier dead letter
    /// has added: they are said anew.
    fn kept(&self) -> Headers {
        let record = &self.record;
        let mut kept = record.headers().clone();
        if as_dead_letter(record).is_some() || record.origin() != record.place() {
            take_off(&mut kept);
        }
        kept
    }

    /// Where the record was first read, in which group it failed and why. A dead letter of a dead
    /// letter keeps what the first one says, and adds its own reason to that one's.
    fn added(&self, group: &str, format: Format, reason_max: usize) -> Headers {
        let Letter {
            record,
            failure,
            attempts,
            ..
        } = self;
        let letter = as_dead_letter(record);
        let (origin, group) = letter.unwrap_or_else(|| (record.origin(), group));
        let reason = match letter {
            Some(_) => {
                let before = DeadLetter::new(record.clone());
                let before = before.reason().unwrap_or_default();
                &*format!("{} (it is a dead letter: {before})", failure.summary)
            }
            None => &failure.summary,
        };
        let first = self.first_failure();
        let first = first.map(|first| first.shortened(reason_max));
        format.write(&Verdict {
            origin,
            stamped_by_broker: record.is_stamped_by_broker(),
            group,
            class: failure.class,
            reason: shortened(reason, reason_max),
            attempts: *attempts,
            at: Timestamp::now(),
            first: first.as_ref(),
        })
    }

    /// How it failed first, if this is not its first failure. What a dead letter holds has failed
    /// before.
    fn first_failure(&self) -> Option<returned::FirstFailure> {
        let Letter { record, first, .. } = self;
        if as_dead_letter(record).is_some() {
            let headers = record.headers();
            return first_told(headers).or_else(|| last_told(headers));
        }
        returned::FirstFailure::of(record, first.as_ref())
    }
}

fn shortened(reason: &str, most: usize) -> &str {
    let end = reason.floor_char_boundary(most);
    reason.get(..end).unwrap_or(reason)
}
