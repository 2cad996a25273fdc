//! Questions to the broker whose answers take time.
//!
//! The client answers them only to a caller that waits, up to seconds when a broker is away. A
//! thread of its own waits, one question after another, while the poll thread goes on.

use std::collections::HashMap;
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ackwell_core::offset::CommitOffset;
use ackwell_core::seek::{LogRange, SeekTo};
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::command::SeekRequest;
use super::commit::Keeper;
use super::consumer::{Client, Named};
use super::mailbox::{Mailbox, Message};

/// How long committed positions are awaited, per attempt.
const COMMITTED_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the broker may take to say what a log holds.
const RANGE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a broker that was away may take to show that it is back.
const LOOK_TIMEOUT: Duration = Duration::from_millis(500);
/// Between attempts to read committed positions.
const PAUSE: Duration = Duration::from_millis(250);

/// Committed positions.
pub(super) type Positions = HashMap<Named, Committed>;

/// What a group has committed for a partition.
#[derive(Debug, Clone)]
pub(super) struct Committed {
    pub(super) at: CommitOffset,
    pub(super) metadata: String,
    /// What had no room in the metadata.
    pub(super) snapshot: Option<Vec<u8>>,
}

/// A question.
#[derive(Debug)]
pub(super) enum Lookup {
    /// Where the group stands. Asked again until there is an answer: without it, nothing could
    /// be read anyway.
    Committed(Vec<Named>),
    /// What a log holds.
    Range(SeekRequest),
    /// Whether these topics can be reached and are in order.
    Topics {
        topics: Vec<String>,
        /// Whether this client may work for its group again is asked as well.
        group: bool,
    },
}

/// An answer.
#[derive(Debug)]
pub(super) enum Found {
    Committed(Vec<Named>, Positions),
    /// Committed positions could not be read; the question is repeated.
    NotYet(KafkaError),
    Range(SeekRequest, Result<Range, String>),
    Topics(Looked),
}

/// What a look at the topics has found.
#[derive(Debug, Default)]
pub(super) struct Looked {
    /// Those that the broker does not know.
    pub(super) missing: Vec<String>,
    /// Whether anything else is wrong, or not known.
    pub(super) in_doubt: bool,
}

/// What a log holds, and where a wanted time begins in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) log: LogRange,
    pub(super) at_time: Option<i64>,
}

/// The thread that asks.
pub(super) struct Lookups {
    questions: Sender<Lookup>,
    closing: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Lookups {
    pub(super) fn start(
        name: &str,
        client: Arc<Client>,
        keeper: Option<Keeper>,
        mailbox: Mailbox,
    ) -> io::Result<Self> {
        let (questions, inbox) = channel();
        let closing = Arc::new(AtomicBool::new(false));
        let asker = Asker {
            client,
            keeper,
            mailbox,
            closing: Arc::clone(&closing),
        };
        let thread = thread::Builder::new()
            .name(format!("lookup-{name}"))
            .spawn(move || asker.run(&inbox))?;
        Ok(Lookups {
            questions,
            closing,
            thread,
        })
    }

    /// Asks; the answer comes as a message. There is one question a partition that is sought, one an
    /// assignment and one a look for the broker, so their number is bounded by their askers.
    pub(super) fn ask(&self, question: Lookup) {
        if self.questions.send(question).is_err() {
            tracing::error!("the lookup thread is gone");
        }
    }

    /// Ends the thread after the question that it is at.
    pub(super) fn join(self) {
        let Lookups {
            questions,
            closing,
            thread,
        } = self;
        closing.store(true, Ordering::Release);
        drop(questions);
        if thread.join().is_err() {
            tracing::error!("the lookup thread panicked");
        }
    }
}

struct Asker {
    client: Arc<Client>,
    keeper: Option<Keeper>,
    mailbox: Mailbox,
    closing: Arc<AtomicBool>,
}

impl Asker {
    fn run(&self, inbox: &Receiver<Lookup>) {
        for question in inbox {
            if self.is_closing() {
                return;
            }
            let found = match question {
                Lookup::Committed(named) => self.committed(named),
                Lookup::Range(request) => {
                    let range = self.range(&request);
                    let range = range.map_err(|error| error.to_string());
                    Some(Found::Range(request, range))
                }
                Lookup::Topics { topics, group } => Some(self.topics(&topics, group)),
            };
            if let Some(found) = found {
                self.mailbox.tell(Message::Found(found));
            }
        }
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    fn committed(&self, named: Vec<Named>) -> Option<Found> {
        let mut list = TopicPartitionList::with_capacity(named.len());
        for (topic, partition) in &named {
            list.add_partition(topic, *partition);
        }
        while !self.is_closing() {
            let asked = list.clone();
            match self.stored(asked, COMMITTED_TIMEOUT) {
                Ok(found) => return Some(Found::Committed(named, self.positions(&found))),
                Err(error) => {
                    tracing::warn!(%error, "committed positions could not be read");
                    self.mailbox.tell(Message::Found(Found::NotYet(error)));
                    thread::sleep(PAUSE);
                }
            }
        }
        None
    }

    /// What the group has stored. An error of one partition is one of all: taken for a partition
    /// without a position, it would be read from its beginning, or from its end.
    fn stored(
        &self,
        asked: TopicPartitionList,
        limit: Duration,
    ) -> KafkaResult<TopicPartitionList> {
        let found = self.client.committed_offsets(asked, limit)?;
        let refused = found
            .elements()
            .iter()
            .find_map(|found| found.error().err());
        match refused {
            Some(error) => Err(error),
            None => Ok(found),
        }
    }

    fn positions(&self, found: &TopicPartitionList) -> Positions {
        let positions = positions(found);
        let keeper = self.keeper.as_ref();
        let mut snapshots = keeper.map_or_else(HashMap::new, |keeper| keeper.read(&positions));
        let committed = positions.into_iter().map(|(named, (at, metadata))| {
            let snapshot = snapshots.remove(&named);
            let committed = Committed {
                at,
                metadata,
                snapshot,
            };
            (named, committed)
        });
        committed.collect()
    }

    fn range(&self, request: &SeekRequest) -> KafkaResult<Range> {
        let (topic, partition) = (&*request.partition.topic, request.partition.partition);
        let client = &self.client;
        let (start, end) = client.fetch_watermarks(topic, partition, RANGE_TIMEOUT)?;
        let at_time = match request.to {
            SeekTo::Time(time) => {
                let mut list = TopicPartitionList::with_capacity(1);
                // Negative numbers have other meanings there; nothing is older than the epoch.
                let time = Offset::Offset(time.as_millis().max(0));
                list.add_partition_offset(topic, partition, time)?;
                let found = client.offsets_for_times(list, RANGE_TIMEOUT)?;
                let elements = found.elements();
                elements.first().and_then(|element| match element.offset() {
                    Offset::Offset(at) => Some(at),
                    _ => None,
                })
            }
            _ => None,
        };
        let log = LogRange { start, end };
        Ok(Range { log, at_time })
    }

    fn topics(&self, topics: &[String], group: bool) -> Found {
        let mut looked = Looked::default();
        if let Some(topic) = topics.first().filter(|_| group) {
            let mut list = TopicPartitionList::with_capacity(1);
            list.add_partition(topic, 0);
            looked.in_doubt = self.stored(list, LOOK_TIMEOUT).is_err();
        }
        for topic in topics {
            let found = self.client.fetch_metadata(Some(topic), LOOK_TIMEOUT);
            let error = found.map(|found| found.topics().iter().find_map(|topic| topic.error()));
            match error.map(|error| error.map(Code::from)) {
                Ok(None) => {}
                Ok(Some(Code::UnknownTopicOrPartition)) => looked.missing.push(topic.clone()),
                Ok(Some(_)) | Err(_) => looked.in_doubt = true,
            }
        }
        Found::Topics(looked)
    }
}

fn positions(found: &TopicPartitionList) -> HashMap<Named, (CommitOffset, String)> {
    let elements = found.elements();
    let known = elements.iter().filter(|element| element.error().is_ok());
    let positions = known.filter_map(|element| {
        let Offset::Offset(at) = element.offset() else {
            return None;
        };
        // The client library panics on metadata that is not UTF-8.
        let metadata = std::panic::catch_unwind(AssertUnwindSafe(|| element.metadata().to_owned()));
        let named = (element.topic().to_owned(), element.partition());
        Some((named, (CommitOffset(at), metadata.unwrap_or_default())))
    });
    positions.collect()
}
