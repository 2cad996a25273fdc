//! A batch handler bound to its listener: decodes the records, calls it, says who failed.

use std::marker::PhantomData;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::Erased;
use crate::batch::{BatchHandler, Outcomes};
use crate::container::RecordHandler;
use crate::context::{Context, Setup, SetupError, Shared};
use crate::extensions::Extensions;
use crate::extract::FromRecord;
use crate::failure::{Class, Failure};
use crate::record::Record;
use crate::trace;

pub(crate) struct TypedBatch<H, A> {
    handler: H,
    arguments: PhantomData<fn() -> A>,
}

impl<H, A> TypedBatch<H, A> {
    pub(crate) fn new(handler: H) -> Self {
        Self {
            handler,
            arguments: PhantomData,
        }
    }
}

impl<H: BatchHandler<A>, A: 'static> Erased for TypedBatch<H, A> {
    fn prepare(&self, setup: &mut Setup<'_>) -> Result<(), SetupError> {
        setup.settles_by_outcomes()?;
        setup.handler(H::prepare)
    }

    fn bind(&self, shared: Arc<Shared>) -> Arc<dyn RecordHandler> {
        let handler = self.handler.clone();
        Arc::new(Bound {
            handler,
            shared,
            arguments: PhantomData,
        })
    }
}

struct Bound<H, A> {
    handler: H,
    shared: Arc<Shared>,
    arguments: PhantomData<fn() -> A>,
}

/// The records of a list that could be decoded.
struct Decoded<T> {
    items: Vec<T>,
    taken: Vec<Record>,
    /// Places of those that are skipped.
    skipped: Vec<usize>,
    /// The record before which the list ends.
    refused: Option<(usize, Failure)>,
    records: usize,
}

impl<H: BatchHandler<A>, A: 'static> Bound<H, A> {
    fn decode(&self, records: &[Record], attempt: u32) -> Option<Decoded<H::Item>> {
        let first = records.first()?.clone();
        let mut cx = Context::new(first, attempt, Extensions::new(), Arc::clone(&self.shared));
        let mut decoded = Decoded {
            items: Vec::with_capacity(records.len()),
            taken: Vec::with_capacity(records.len()),
            skipped: Vec::new(),
            refused: None,
            records: records.len(),
        };
        for (index, record) in records.iter().enumerate() {
            if index > 0 {
                cx.turn_to(record, record.earlier_attempts().saturating_add(1));
            }
            match H::Item::from_record(&mut cx) {
                Ok(item) => {
                    decoded.items.push(item);
                    decoded.taken.push(record.clone());
                }
                Err(failure) => {
                    let failure = self.shared.refused(failure);
                    if failure.class() != Class::Skip {
                        decoded.refused = Some((index, failure));
                        break;
                    }
                    log_skipped(record, &failure);
                    decoded.skipped.push(index);
                }
            }
        }
        Some(decoded)
    }
}

impl<H: BatchHandler<A>, A: 'static> RecordHandler for Bound<H, A> {
    fn call(
        &self,
        record: Record,
        attempt: u32,
        extensions: Extensions,
    ) -> BoxFuture<'static, Result<(), Failure>> {
        self.call_batch(vec![record], attempt, extensions)
    }

    fn is_batch(&self) -> bool {
        true
    }

    fn call_batch(
        &self,
        records: Vec<Record>,
        attempt: u32,
        extensions: Extensions,
    ) -> BoxFuture<'static, Result<(), Failure>> {
        let Some(decoded) = self.decode(&records, attempt) else {
            return Box::pin(std::future::ready(Ok(())));
        };
        let Decoded {
            items,
            taken,
            skipped,
            refused,
            records,
        } = decoded;
        let places = Places {
            items: items.len(),
            skipped,
            refused,
            records,
        };
        if items.is_empty() {
            return Box::pin(std::future::ready(places.end(Ok(()))));
        }
        let cause = match &*taken {
            [alone] => Some(alone.clone()),
            // There is no saying which of them an event follows from.
            _ => None,
        };
        let mut cx = Context::of_batch(taken, attempt, extensions, Arc::clone(&self.shared));
        let handling = match self.handler.call(items, &mut cx) {
            Ok(handling) => handling,
            Err(failure) => return Box::pin(std::future::ready(places.end(Err(failure)))),
        };
        Box::pin(async move {
            places.end(match cause {
                Some(cause) => trace::following(cause, handling).await,
                None => handling.await,
            })
        })
    }
}

/// Where the items stand among the records.
struct Places {
    items: usize,
    skipped: Vec<usize>,
    refused: Option<(usize, Failure)>,
    records: usize,
}

impl Places {
    /// The end of all records, by the end of the items.
    fn end(self, items: Result<(), Failure>) -> Result<(), Failure> {
        let end = self
            .refused
            .as_ref()
            .map_or(self.records, |(index, _)| *index);
        let mut outcomes = match items {
            Ok(()) => Outcomes {
                failed: Vec::new(),
                whole: None,
                end,
                by_handler: false,
            },
            Err(failure) => Outcomes::from_failure(failure, self.items),
        };
        if let Some((index, _)) = outcomes.failed.last()
            && *index >= self.items
        {
            let (index, items) = (*index, self.items);
            return Err(Failure::new(
                Class::Stop,
                format!("the handler names record {index} of a batch of {items}"),
            ));
        }
        if outcomes.by_handler {
            for (index, _) in &mut outcomes.failed {
                *index = self.record_of(*index);
            }
            outcomes.end = if outcomes.end >= self.items {
                end
            } else {
                self.record_of(outcomes.end)
            };
        }
        if let Some(refused) = self.refused
            && outcomes.whole.is_none()
            && outcomes.end == end
        {
            outcomes.end = end + 1;
            outcomes.failed.push(refused);
        }
        if outcomes.failed.is_empty() && outcomes.whole.is_none() {
            Ok(())
        } else {
            Err(outcomes.into())
        }
    }

    fn record_of(&self, item: usize) -> usize {
        let skipped = self.skipped.iter();
        skipped.fold(item, |at, skipped| at + usize::from(*skipped <= at))
    }
}

fn log_skipped(record: &Record, failure: &Failure) {
    tracing::warn!(
        topic = record.topic(),
        partition = record.partition(),
        offset = record.offset(),
        class = Class::Skip.as_str(),
        reason = failure.summary(),
        "a record of a batch is skipped",
    );
}
