//! Until when replies have been handled, asked of the brokers: [`Watermark`], with what it asks for.

use std::collections::BTreeMap;
use std::time::Duration;

use ackwell::config;
use ackwell::core::saga::{Ask, Watermark};
use ackwell::reader::{Partition, Positions, ReadError};
use jiff::Timestamp;

use super::rows::{from_core, to_core};
use crate::error::Chain;

/// Up to when deadlines may fire.
pub(super) enum Handled {
    /// Nobody has said where the replies are.
    ByTheClock,
    /// When these were read.
    Replies(Option<Box<Replies>>),
}

/// Why a deadline that is over is held.
#[derive(Debug)]
pub(super) enum Held {
    /// Replies may wait to be read.
    Unread,
    /// The brokers do not say.
    Unknown(String),
}

/// The replies of one group. It is handed to a blocking thread and back.
pub(super) struct Replies {
    kafka: config::Kafka,
    group: String,
    topics: Vec<String>,
    /// Connected when it is needed for the first time.
    positions: Option<Positions>,
    watermark: Watermark<Partition>,
    /// The positions of the last look, to see which stand still.
    before: BTreeMap<Partition, i64>,
}

impl Handled {
    pub(super) fn replies(
        kafka: config::Kafka,
        group: &str,
        topics: &[String],
        patience: Duration,
    ) -> Self {
        Self::Replies(Some(Box::new(Replies {
            kafka,
            group: group.to_owned(),
            topics: topics.to_vec(),
            positions: None,
            watermark: Watermark::new(patience),
            before: BTreeMap::new(),
        })))
    }

    /// Deadlines up to here have passed.
    pub(super) fn at(&self, now: Timestamp) -> Timestamp {
        match self {
            Self::ByTheClock => now,
            Self::Replies(None) => Timestamp::UNIX_EPOCH,
            Self::Replies(Some(replies)) => from_core(replies.watermark.at(to_core(now))),
        }
    }

    /// Finds out whether a deadline has passed; if not, why.
    ///
    /// # Cancel safety
    /// Not safe: cancelled, it is no longer known where the replies are.
    pub(super) async fn ask(&mut self, deadline: Timestamp) -> Option<Held> {
        let Self::Replies(place) = self else {
            return None;
        };
        let mut replies = place.take()?;
        let asked = tokio::task::spawn_blocking(move || {
            let asked = replies.ask(deadline);
            (replies, asked)
        });
        match asked.await {
            Ok((replies, asked)) => {
                *place = Some(replies);
                match asked {
                    Ok(true) => None,
                    Ok(false) => Some(Held::Unread),
                    Err(error) => Some(Held::Unknown(format!(
                        "deadlines of sagas wait, it is unknown which replies have been read: {}",
                        Chain(&error)
                    ))),
                }
            }
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

impl Replies {
    /// Whether all replies that came before this deadline are handled. Blocks.
    fn ask(&mut self, deadline: Timestamp) -> Result<bool, ReadError> {
        let deadline = to_core(deadline);
        if self.watermark.ask(deadline) == Ask::Ends {
            let asked_at = to_core(Timestamp::now());
            let ends = self.positions()?.ends()?;
            self.before.clear();
            self.watermark.ends(asked_at, ends);
        }
        if self.watermark.ask(deadline) == Ask::Positions {
            self.look()?;
        }
        Ok(self.watermark.ask(deadline) == Ask::Nothing)
    }

    fn look(&mut self) -> Result<(), ReadError> {
        let missing = self.watermark.missing();
        let missing: BTreeMap<_, _> = missing.map(|(at, end)| (at.clone(), end)).collect();
        let positions = self.positions()?;
        let mut found = positions.committed(missing.keys())?;
        for (partition, position) in &mut found {
            let Some(end) = missing.get(partition).copied() else {
                continue;
            };
            // It stands still: there may be nothing to read.
            let still = *position < end && self.before.get(partition) == Some(position);
            if still && !self.positions()?.has_record(partition, *position, end)? {
                *position = end;
            }
        }
        self.before = found.iter().cloned().collect();
        self.watermark.committed(found);
        Ok(())
    }

    fn positions(&mut self) -> Result<&Positions, ReadError> {
        match &mut self.positions {
            Some(positions) => Ok(positions),
            none => {
                let topics: Vec<_> = self.topics.iter().map(String::as_str).collect();
                Ok(none.insert(Positions::open(&self.kafka, &self.group, &topics)?))
            }
        }
    }
}
