//! Dead letters are sent back to where they came from, or put aside.
//!
//! A letter counts as moved when the broker has acknowledged its copy, and that is then noted in
//! the audit trail. A crash in between sends it once more: the record keeps its identity (its
//! event id, or where it was first read), so a transactional listener applies it once.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use jiff::Timestamp;
use tokio::sync::mpsc;

use super::audit::{self, Action, Entry};
use super::decide::{Edit, Move, Rules, decide};
use super::filter::{Filter, Position};
use super::letter::DeadLetter;
use super::queue::{DeadLetterQueue, Error, Found};
use crate::config::{Acks, Config};
use crate::producer::{OutgoingRecord, Producer, RecordMetadata, SendError};
use crate::reader::{ReadError, Reader};

/// Dead letters that are under way at a time: read ahead, then sent and awaited together.
const UNDER_WAY_MAX: usize = 64;
/// Failures of a report that are told one by one.
const TOLD_MAX: usize = 100;
/// Replays after which a record is parked, unless told otherwise.
pub const HOPS_MAX: u32 = 3;

/// What to replay, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// Which dead letters.
    pub filter: Filter,
    /// What is changed before they are sent.
    pub edit: Edit,
    /// Those too that were replayed or parked before. A transactional listener recognises them as
    /// long as its inbox remembers them.
    pub again: bool,
    /// How often a record may have been replayed; beyond, it is parked. Default [`HOPS_MAX`].
    pub hops_max: u32,
    /// All are parked instead.
    pub park: bool,
    /// Nothing is sent, and nothing is noted.
    pub dry_run: bool,
    /// Who does it, for the audit trail.
    pub by: String,
}

impl Replay {
    /// A replay of those that meet `filter`, by somebody.
    pub fn of(filter: Filter, by: impl Into<String>) -> Self {
        Self {
            filter,
            edit: Edit::default(),
            again: false,
            hops_max: HOPS_MAX,
            park: false,
            dry_run: false,
            by: by.into(),
        }
    }

    fn check(&self) -> Result<(), Error> {
        if self.edit.is_for_one() && self.filter.positions.len() != 1 {
            return Err(Error::Asked(
                "another key or value is for one dead letter; name it by its position",
            ));
        }
        if self.park && !self.edit.is_none() {
            return Err(Error::Asked("what is parked is not edited"));
        }
        Ok(())
    }
}

/// What a replay has done so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Dead letters that meet the filter.
    pub matched: u64,
    /// Of these, replayed or parked before and therefore left alone.
    pub left: u64,
    /// Sent to where they came from; in a dry run, those that would be.
    pub replayed: u64,
    /// Put aside; in a dry run, those that would be.
    pub parked: u64,
    /// Not moved, and still to be replayed.
    pub failed: u64,
    /// Why, for the first 100.
    pub failures: Vec<(Position, String)>,
}

impl Report {
    fn fail(&mut self, position: Position, why: String) {
        self.failed += 1;
        if self.failures.len() < TOLD_MAX {
            self.failures.push((position, why));
        }
    }

    fn moved(&mut self, action: Action) {
        match action {
            Action::Replay => self.replayed += 1,
            Action::Park => self.parked += 1,
        }
    }
}

impl DeadLetterQueue {
    /// Replays dead letters, in the order of their positions, and reports after each few.
    ///
    /// Each goes to the topic on which it was first read, to its partition there if that exists
    /// (another key chooses another one), with its key, value and headers as they were, and
    /// `original.*` and `replay.hops` beside them. Its timestamp is that of the replay, since
    /// retention counts from there.
    ///
    /// One that can't be sent is told in the report and stays to be replayed; the others go on.
    ///
    /// # Errors
    /// When the topic can't be read or the audit trail can't be written. What was noted in the
    /// trail by then is done.
    ///
    /// # Cancel safety
    /// Dropped, those under way may be sent without being noted; they are sent again by the next
    /// replay, and recognised.
    pub async fn replay(
        &self,
        replay: Replay,
        mut progress: impl FnMut(&Report),
    ) -> Result<Report, Error> {
        replay.check()?;
        let mut sender = Sender::open(self, replay.dry_run).await?;
        let (queue, filter) = (self.clone(), replay.filter.clone());
        let (give, mut found) = mpsc::channel(UNDER_WAY_MAX);
        let reading = tokio::task::spawn_blocking(move || {
            queue.scan(&filter, None, &AtomicBool::new(false), |found| {
                // The receiver is gone when the replay was dropped.
                match give.blocking_send(found) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(_) => ControlFlow::Break(()),
                }
            })
        });
        let mut report = Report::default();
        let mut some = Vec::with_capacity(UNDER_WAY_MAX);
        while found.recv_many(&mut some, UNDER_WAY_MAX).await > 0 {
            sender.move_some(&mut some, &replay, &mut report).await?;
            progress(&report);
        }
        reading.await.unwrap_or(Err(Error::Interrupted))?;
        Ok(report)
    }
}

/// Sends copies and notes it.
struct Sender {
    queue: DeadLetterQueue,
    audit: String,
    /// None in a dry run.
    producer: Option<Producer>,
    /// Partitions of the topics to which copies go; 0 of one that does not exist.
    partitions: HashMap<String, i32>,
    parking: bool,
}

impl Sender {
    async fn open(queue: &DeadLetterQueue, dry_run: bool) -> Result<Self, Error> {
        let audit = queue.audit_topic();
        let producer = if dry_run {
            None
        } else {
            // Kept for ever: a replay that was forgotten would be repeated.
            let settings = [("retention.ms", "-1"), ("cleanup.policy", "delete")];
            let ensured = audit::ensure(&queue.config, &audit, 1, &settings).await;
            ensured.map_err(|reason| Error::Audit {
                topic: audit.clone(),
                reason,
            })?;
            Some(Producer::new(&careful(&queue.config))?)
        };
        Ok(Self {
            queue: queue.clone(),
            audit,
            producer,
            partitions: HashMap::new(),
            parking: false,
        })
    }

    async fn move_some(
        &mut self,
        some: &mut Vec<Found>,
        replay: &Replay,
        report: &mut Report,
    ) -> Result<(), Error> {
        let rules = Rules {
            edit: &replay.edit,
            hops_max: replay.hops_max,
            park: replay.park,
        };
        let mut moves = Vec::with_capacity(some.len());
        for Found { letter, done } in some.drain(..) {
            report.matched += 1;
            if done.is_some() && !replay.again {
                report.left += 1;
                continue;
            }
            match self.destined(decide(&letter, &rules)).await? {
                Ok(to) => moves.push((letter, to)),
                Err(why) => report.fail(letter.position(), why),
            }
        }
        self.carry_out(moves, replay, report).await
    }

    /// With a partition that its topic has.
    async fn destined(
        &mut self,
        decided: Result<Move, String>,
    ) -> Result<Result<Move, String>, Error> {
        let mut to = match decided {
            Ok(to) => to,
            Err(why) => return Ok(Err(why)),
        };
        let partitions = self.partitions_of(&to).await?;
        if partitions == 0 && self.producer.is_some() {
            return Ok(Err(format!("the topic {} does not exist", to.to)));
        }
        if let Some(partition) = to.partition.filter(|wanted| *wanted < partitions) {
            to.record = to.record.partition(partition);
        }
        Ok(Ok(to))
    }

    async fn partitions_of(&mut self, to: &Move) -> Result<i32, Error> {
        if let Some(known) = self.partitions.get(&to.to) {
            return Ok(*known);
        }
        let (config, topic) = (self.queue.config.clone(), to.to.clone());
        let own = Arc::clone(&self.queue.topic);
        let found = tokio::task::spawn_blocking(move || {
            let reader = Reader::open(&config.kafka, &topic)?;
            Ok::<_, ReadError>((reader.partitions_of(&topic)?, reader.partitions_of(&own)?))
        });
        let (mut count, own) = found.await.map_err(|_| Error::Interrupted)??;
        if count == 0 && to.action == Action::Park && self.producer.is_some() && !self.parking {
            self.parking = true;
            let made = audit::ensure_like(&self.queue.config, &to.to, own, &self.queue.topic).await;
            made.map_err(|reason| Error::Audit {
                topic: to.to.clone(),
                reason,
            })?;
            count = own;
        }
        self.partitions.insert(to.to.clone(), count);
        Ok(count)
    }

    /// Sends all, then notes how each has ended.
    async fn carry_out(
        &self,
        moves: Vec<(DeadLetter, Move)>,
        replay: &Replay,
        report: &mut Report,
    ) -> Result<(), Error> {
        let Some(producer) = &self.producer else {
            moves.iter().for_each(|(_, to)| report.moved(to.action));
            return Ok(());
        };
        let copies = moves.iter().map(|(_, to)| to.record.clone());
        let mut sent = producer.send_batch(copies).await;
        // Where a record fills its topic's limit, it goes without its first failure.
        for ((_, to), sent) in moves.iter().zip(&mut sent) {
            let too_large = sent.as_ref().is_err_and(SendError::is_too_large);
            if let Some(shorter) = to.shorter().filter(|_| too_large) {
                *sent = producer.send_record(shorter).await;
            }
        }
        let mut notes: Vec<OutgoingRecord> = Vec::with_capacity(sent.len());
        for ((letter, to), sent) in moves.iter().zip(sent) {
            match &sent {
                Ok(_) => report.moved(to.action),
                Err(error) => report.fail(letter.position(), told(error, &to.to)),
            }
            notes.push(entry(letter, to, replay, sent).record(&self.audit));
        }
        for noted in producer.send_batch(notes).await {
            noted?;
        }
        Ok(())
    }
}

fn entry(
    letter: &DeadLetter,
    to: &Move,
    replay: &Replay,
    sent: Result<RecordMetadata, SendError>,
) -> Entry {
    let Position { partition, offset } = letter.position();
    let (place, error) = match sent {
        Ok(at) => (
            Some(format!("{}/{}/{}", at.topic, at.partition, at.offset)),
            None,
        ),
        Err(error) => (None, Some(chain(&error))),
    };
    Entry {
        at: Timestamp::now(),
        by: replay.by.clone(),
        action: to.action,
        partition,
        offset,
        timestamp: letter.record().timestamp(),
        origin: letter.origin().map(|origin| origin.to_string()),
        to: place,
        hops: to.hops,
        edited: replay.edit.parts(),
        error,
    }
}

/// An error with its causes, and what to do about one of its topic's limit.
fn told(error: &SendError, topic: &str) -> String {
    let said = chain(error);
    if !error.is_too_large() {
        return said;
    }
    format!(
        "{said}; raise `max.message.bytes` of the topic {topic}, by 1 KiB for what a replay adds"
    )
}

/// An error with its causes, on one line.
fn chain(error: &SendError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// The producer's settings, with those on which a replay depends.
fn careful(config: &Config) -> Config {
    let mut config = config.clone();
    config.producer.acks = Acks::All;
    let properties = &mut config.kafka.producer;
    for (name, value) in [
        // What came from a topic that is gone must not bring it back.
        ("allow.auto.create.topics", "false"),
        // The topic's own limit decides what is too large, not the client's guess.
        ("message.max.bytes", "1000000000"),
        // One that fits must not be refused for the company that it keeps in a batch.
        ("batch.num.messages", "1"),
    ] {
        properties.insert(name.to_owned(), value.to_owned());
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_value_is_for_one_dead_letter() {
        let mut replay = Replay::of(Filter::all(), "me");
        assert!(replay.check().is_ok());
        replay.edit.value = Some(None);
        assert!(replay.check().is_err());
        replay.filter = Filter::positions(["0:1".parse().unwrap()]);
        assert!(replay.check().is_ok());
        replay.park = true;
        assert!(replay.check().is_err());
    }

    #[test]
    fn a_report_tells_so_many_failures_and_counts_all() {
        let mut report = Report::default();
        for offset in 0..500 {
            let position = Position {
                partition: 0,
                offset,
            };
            report.fail(position, "away".to_owned());
        }
        assert_eq!((report.failed, report.failures.len()), (500, TOLD_MAX));
    }
}
