//! One dead-letter topic, looked at.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::audit::{self, Action, Done, Entry};
use super::filter::{Filter, Position};
use super::letter::DeadLetter;
use super::policy::{SUFFIXES, parking_topic};
use crate::config::Config;
use crate::reader::{ReadError, Reader, Span};
use crate::record::Record;

/// Dead letters of a page, at most.
pub const PAGE_MAX: usize = 1_000;
/// How alike two names must be for "did you mean" (Jaro-Winkler; 1 is the same).
const ALIKE: f64 = 0.8;

/// Why dead letters could not be looked at or moved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A topic could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// There is no such topic.
    #[error("there is no topic {topic}{}", .alike.as_ref().map(|alike| format!("; did you mean {alike}?")).unwrap_or_default())]
    NoTopic {
        /// Its name.
        topic: String,
        /// A topic of a similar name.
        alike: Option<String>,
    },
    /// The topic of the audit trail could not be made.
    #[error("the audit trail {topic} can't be kept, so nothing was moved: {reason}")]
    Audit {
        /// The topic.
        topic: String,
        /// What went wrong.
        reason: String,
    },
    /// The producer could not be started, or the trail could not be written.
    #[error(transparent)]
    Send(#[from] crate::producer::SendError),
    /// What is asked for contradicts itself.
    #[error("{0}")]
    Asked(&'static str),
    /// A task of ours panicked.
    #[error("reading was interrupted")]
    Interrupted,
}

/// A dead-letter topic at a glance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overview {
    /// Its name.
    pub topic: String,
    /// Its partitions.
    pub partitions: usize,
    /// Offsets from its beginning to its end: the dead letters, where it is not compacted.
    pub letters: u64,
}

/// Dead letters of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kind {
    /// How many.
    pub letters: u64,
    /// Bytes of their keys, values and headers.
    pub bytes: u64,
    /// How many of them were replayed or parked.
    pub done: u64,
}

/// A dead letter and what has become of it.
#[derive(Clone, Debug)]
pub struct Found {
    /// The dead letter.
    pub letter: DeadLetter,
    /// What was done with it; nothing yet, for most.
    pub done: Option<Action>,
}

/// Some of the dead letters, in the order of their positions.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// At most as many as asked for.
    pub found: Vec<Found>,
    /// Where to go on; `None` when there are no more.
    pub next: Option<Position>,
}

/// The dead letters of one topic: to look at them, search them and send them back.
///
/// ```no_run
/// use ackwell::Config;
/// use ackwell::dead_letters::{DeadLetterQueue, Filter, Replay};
///
/// # async fn example() -> Result<(), ackwell::dead_letters::Error> {
/// let queue = DeadLetterQueue::new(&Config::default(), "order-events.DLQ");
/// let locked = Filter { reason: Some("locked".to_owned()), ..Filter::all() };
/// let page = queue.page(&locked, None, 20).await?;
/// println!("{} at least", page.found.len());
/// let report = queue.replay(Replay::of(locked, "ada"), |_| ()).await?;
/// println!("{} replayed, {} failed", report.replayed, report.failed);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct DeadLetterQueue {
    pub(super) config: Config,
    pub(super) topic: Arc<str>,
}

impl DeadLetterQueue {
    /// The dead letters of `topic`, the dead-letter topic itself.
    pub fn new(config: &Config, topic: impl Into<Arc<str>>) -> Self {
        Self {
            config: config.clone(),
            topic: topic.into(),
        }
    }

    /// The dead-letter topics, known by their names: those ending as ours or Spring's do, and
    /// parking topics.
    ///
    /// # Errors
    /// When the broker can't be reached.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn list(config: &Config) -> Result<Vec<Overview>, Error> {
        let config = config.clone();
        off_thread(move |stop| {
            let reader = Reader::open(&config.kafka, "")?;
            let mut topics = reader.topics()?;
            topics.retain(|topic| is_dead_letter_topic(topic));
            topics.sort_unstable();
            let mut overviews = Vec::with_capacity(topics.len());
            for topic in topics {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let spans = reader.spans_of(&topic)?;
                overviews.push(Overview {
                    partitions: spans.len(),
                    letters: spans.iter().map(length).sum(),
                    topic,
                });
            }
            Ok(overviews)
        })
        .await
    }

    /// The topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Where its dead letters are parked.
    pub fn parking_topic(&self) -> String {
        parking_topic(&self.topic)
    }

    /// The topic of its audit trail.
    pub fn audit_topic(&self) -> String {
        audit::topic(&self.topic)
    }

    /// The dead letter at a position; `None` if there is none.
    ///
    /// # Errors
    /// When the broker can't be reached, or there is no such topic.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn get(&self, position: Position) -> Result<Option<Found>, Error> {
        let filter = Filter::positions([position]);
        let page = self.page(&filter, None, 1).await?;
        Ok(page.found.into_iter().next())
    }

    /// The first `limit` dead letters (at most [`PAGE_MAX`]) that meet the filter, behind the
    /// position `after`.
    ///
    /// # Errors
    /// When the broker can't be reached, or there is no such topic.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn page(
        &self,
        filter: &Filter,
        after: Option<Position>,
        limit: usize,
    ) -> Result<Page, Error> {
        let (queue, filter) = (self.clone(), filter.clone());
        let limit = limit.clamp(1, PAGE_MAX);
        off_thread(move |stop| {
            let mut page = Page::default();
            queue.scan(&filter, after, stop, |found| {
                if page.found.len() == limit {
                    let last = page.found.last();
                    page.next = last.map(|found| found.letter.position());
                    return ControlFlow::Break(());
                }
                page.found.push(found);
                ControlFlow::Continue(())
            })?;
            Ok(page)
        })
        .await
    }

    /// Counts the dead letters that meet the filter, by the class of their failure.
    ///
    /// # Errors
    /// When the broker can't be reached, or there is no such topic.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn count(&self, filter: &Filter) -> Result<BTreeMap<String, Kind>, Error> {
        let (queue, filter) = (self.clone(), filter.clone());
        off_thread(move |stop| {
            let mut kinds: BTreeMap<String, Kind> = BTreeMap::new();
            queue.scan(&filter, None, stop, |Found { letter, done }| {
                let class = letter.class_name().unwrap_or("unknown");
                let kind = kinds.entry(class.to_owned()).or_default();
                kind.letters += 1;
                kind.bytes += letter.record().size() as u64;
                kind.done += u64::from(done.is_some());
                ControlFlow::Continue(())
            })?;
            Ok(kinds)
        })
        .await
    }

    /// The latest entries of the audit trail, oldest first, at most `limit` and 10,000.
    ///
    /// # Errors
    /// When the broker can't be reached.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn history(&self, limit: usize) -> Result<Vec<Entry>, Error> {
        let queue = self.clone();
        off_thread(move |_| Ok(audit::history(&queue.config, &queue.topic, limit)?)).await
    }

    /// Gives `each` the dead letters that meet the filter, partition by partition, one in memory
    /// at a time. Blocks.
    pub(super) fn scan(
        &self,
        filter: &Filter,
        after: Option<Position>,
        stop: &AtomicBool,
        mut each: impl FnMut(Found) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let mut reader = Reader::open(&self.config.kafka, &self.topic)?;
        let present = reader.spans()?;
        if present.is_empty() {
            return Err(self.missing(&reader.topics()?));
        }
        let done = Done::read(&self.config, &self.topic, &present)?;
        let mut spans = narrowed(filter, after, &present);
        if let Some(since) = filter.since {
            spans = reader.since(since.as_millisecond(), &spans)?;
        }
        let mut broken = false;
        for span in spans {
            reader.read(&[span], |record| {
                let flow = if stop.load(Ordering::Relaxed) {
                    ControlFlow::Break(())
                } else {
                    give(record, filter, &done, &mut each)
                };
                broken = flow.is_break();
                flow
            })?;
            if broken {
                break;
            }
        }
        Ok(())
    }

    fn missing(&self, topics: &[String]) -> Error {
        let alike = |topic: &&String| strsim::jaro_winkler(topic, &self.topic);
        let best = topics
            .iter()
            .filter(|topic| is_dead_letter_topic(topic) && alike(topic) > ALIKE)
            .max_by(|a, b| alike(a).total_cmp(&alike(b)));
        Error::NoTopic {
            topic: self.topic.to_string(),
            alike: best.cloned(),
        }
    }
}

fn give(
    record: &Record,
    filter: &Filter,
    done: &Done,
    each: &mut impl FnMut(Found) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let letter = DeadLetter::new(record.clone());
    if !filter.matches(&letter) {
        return ControlFlow::Continue(());
    }
    let done = done.with(&letter);
    each(Found { letter, done })
}

/// The parts in which what the filter asks for can be.
fn narrowed(filter: &Filter, after: Option<Position>, present: &[Span]) -> Vec<Span> {
    let mut spans = Vec::new();
    for span in present {
        let mut span = *span;
        if let Some(after) = after {
            match after.partition.cmp(&span.partition) {
                std::cmp::Ordering::Greater => continue,
                std::cmp::Ordering::Equal => span.from = span.from.max(after.offset + 1),
                std::cmp::Ordering::Less => {}
            }
        }
        if !filter.positions.is_empty() {
            let offsets = filter.positions.iter();
            let mut offsets = offsets.filter(|position| position.partition == span.partition);
            let Some(first) = offsets.next().map(|position| position.offset) else {
                continue;
            };
            let last = offsets
                .next_back()
                .map_or(first, |position| position.offset);
            span.from = span.from.max(first);
            span.end = span.end.min(last.saturating_add(1));
        }
        spans.push(span);
    }
    spans
}

fn is_dead_letter_topic(topic: &str) -> bool {
    let parked = parking_topic("");
    let mut ends = SUFFIXES.iter().copied().chain([&*parked]);
    ends.any(|suffix| topic.len() > suffix.len() && topic.ends_with(suffix))
}

fn length(span: &Span) -> u64 {
    u64::try_from(span.end - span.from).unwrap_or(0)
}

/// Tells a reading thread that nobody waits for it any more.
struct Abandoned(Arc<AtomicBool>);

impl Drop for Abandoned {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Does work that blocks. It is told to stop when the future is dropped.
async fn off_thread<T: Send + 'static>(
    work: impl FnOnce(&AtomicBool) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let stop = Arc::new(AtomicBool::new(false));
    let _abandoned = Abandoned(Arc::clone(&stop));
    let done = tokio::task::spawn_blocking(move || work(&stop)).await;
    done.unwrap_or(Err(Error::Interrupted))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(partition: i32, from: i64, end: i64) -> Span {
        Span {
            partition,
            from,
            end,
        }
    }

    fn at(text: &str) -> Position {
        text.parse().unwrap()
    }

    #[test]
    fn a_page_goes_on_behind_the_last_one() {
        let present = [span(0, 0, 9), span(1, 3, 9), span(2, 0, 4)];
        assert_eq!(narrowed(&Filter::all(), None, &present), present);
        assert_eq!(
            narrowed(&Filter::all(), Some(at("1:5")), &present),
            [span(1, 6, 9), span(2, 0, 4)]
        );
    }

    #[test]
    fn chosen_positions_are_read_without_what_lies_before_and_behind() {
        let present = [span(0, 0, 9), span(1, 3, 9), span(2, 0, 4)];
        let filter = Filter::positions([at("1:4"), at("1:6"), at("2:9")]);
        let narrowed = narrowed(&filter, None, &present);
        assert_eq!(narrowed, [span(1, 4, 7), span(2, 9, 4)]);
    }

    #[test]
    fn dead_letter_topics_are_known_by_their_names() {
        for topic in ["orders.DLQ", "orders-dlt", "orders.DLT", "orders.parked"] {
            assert!(is_dead_letter_topic(topic), "{topic}");
        }
        for topic in ["orders", ".DLQ", "orders.DLQ.audit", "DLQ"] {
            assert!(!is_dead_letter_topic(topic), "{topic}");
        }
    }
}
