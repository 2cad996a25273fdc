//! Handlers that take the records of a run as a list.
//!
//! One call, one commit, and with a transaction one transaction for the whole list: that is what a
//! bulk insert or a bulk request wants. What hurts about lists elsewhere is that one bad record
//! takes its neighbours along; here it never does.
//!
//! ```
//! use ackwell::extract::{Event, State};
//! use ackwell::{Batch, Failure, Listener};
//! # use std::borrow::Cow;
//! # use ackwell::Topic;
//! # #[derive(serde::Serialize, serde::Deserialize)]
//! # struct OrderPlaced { order_id: String }
//! # impl ackwell::Event for OrderPlaced {
//! #     const TOPIC: Topic<Self> = Topic::new("order-events");
//! #     const TYPES: &'static [&'static str] = &["OrderPlaced"];
//! #     fn event_type(&self) -> &'static str { "OrderPlaced" }
//! #     fn aggregate_id(&self) -> Cow<'_, str> { Cow::Borrowed(&self.order_id) }
//! # }
//! # #[derive(Clone)]
//! # struct Search;
//! # impl Search { async fn index(&self, _: &[Event<OrderPlaced>]) -> Result<(), Failure> { Ok(()) } }
//!
//! async fn index(Batch(orders): Batch<Event<OrderPlaced>>, State(search): State<Search>) -> Result<(), Failure> {
//!     search.index(&orders).await
//! }
//!
//! let listener = Listener::on("order-events").group("search").run_limit(200).handle_batch(index);
//! # let _ = listener;
//! ```
//!
//! # What a list holds
//!
//! What waits in one lane, in order, up to [`run_limit`](crate::listener::ListenerBuilder::run_limit)
//! records; never less than one, never records of two partitions. Nobody waits for a list to fill:
//! while one is handled, the next gathers, so lists grow with the load. Where a call is dear and
//! records trickle in, [`batch_wait`](crate::listener::ListenerBuilder::batch_wait) has them wait for
//! company, for so long at most.
//!
//! # What a handler may answer
//!
//! | it answers | what happens |
//! |---|---|
//! | nothing, or `Ok(())` | all are settled |
//! | `Err(error)`, which names no record | unavailable and stop concern the listener, as always. Otherwise the list is repeated in halves until the record to blame stands alone; its class decides about it, the others are settled on the way |
//! | [`Err(BatchError::at(i, error))`](BatchError) | those before `i` are settled, the class of the error decides about `i`, those behind it come again |
//! | `Vec<Result<(), E>>`, one for each | those that are `Ok` are settled; the class decides about the first that failed; the other failed ones come again |
//!
//! A record that failed is alone in its list when it comes again, so its retries concern nobody
//! else; those behind it in its lane wait, as always. A panic counts as an error that names no
//! record, and is permanent for the record to blame.
//!
//! Whoever works without a transaction sees a list's records again after a failure that names none:
//! what was done for them before it has to bear repetition. In a transaction everything is taken
//! back before the list is repeated.
//!
//! What can't be decoded never reaches the handler: the list ends before it, the listener's
//! [`OnUndecodable`](crate::OnUndecodable) decides about it alone, and the next list begins behind.

use std::fmt;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::context::{Context, Setup, SetupError};
use crate::extract::{Attempt, Extension, FromRecord, Partition, State, TopicName};
use crate::failure::{Class, Classify, Failure};

/// The records of a list, each taken from its record by the extractor `T`: at least one, in order.
///
/// `T` is any extractor of a record: `Batch<Event<E>>`, `Batch<Record>`, or a tuple of up to four
/// such as `Batch<(Key, Event<E>)>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch<T>(
    /// One for each record.
    pub Vec<T>,
);

impl<T> IntoIterator for Batch<T> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// An extractor that means the same for a whole list: state, a transaction, the partition. Its
/// [`Context`] shows the records that the handler is given as [`Context::records`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` belongs to one record, not to a batch",
    label = "can't be asked for beside a `Batch`",
    note = "what each record has goes into the batch: `Batch<{Self}>`, or a tuple as in `Batch<(Key, Event<E>)>`",
    note = "beside the batch, a handler can ask for `State`, `TopicName`, `Partition`, `Attempt`, `Extension` and a transaction"
)]
pub trait FromBatch: FromRecord {}

impl<T: Clone + Send + Sync + 'static> FromBatch for State<T> {}
impl<T: Clone + Send + 'static> FromBatch for Extension<T> {}
impl FromBatch for TopicName {}
impl FromBatch for Partition {}
impl FromBatch for Attempt {}

/// An async function that takes a [`Batch`] first, and up to seven [`FromBatch`] extractors.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't handle batches",
    label = "not a batch handler",
    note = "a batch handler is an `async fn` whose first argument is `Batch<T>`, with up to 7 more that implement `FromBatch`; its future must be `Send`",
    note = "it returns `()`, `Result<(), E>` where `E: Classify` (or `Failure`, or `BatchError`), or a `Vec` with one `Result<(), E>` for each record"
)]
pub trait BatchHandler<Arguments>: Clone + Send + Sync + 'static {
    /// What is taken from each record.
    type Item: FromRecord;

    /// Calls it with the items and what else it asks for.
    ///
    /// # Errors
    /// With the failure of an extractor; the function has then not been called.
    fn call(
        &self,
        items: Vec<Self::Item>,
        cx: &mut Context,
    ) -> Result<BoxFuture<'static, Result<(), Failure>>, Failure>;

    /// Asks every extractor what it will need.
    ///
    /// # Errors
    /// When something is missing.
    fn prepare(setup: &mut Setup<'_>) -> Result<(), SetupError>;
}

/// What a batch handler may return.
#[diagnostic::on_unimplemented(
    message = "a batch handler can't return `{Self}`",
    label = "neither `()`, nor `Result<(), E>`, nor one `Result<(), E>` for each record",
    note = "implement `ackwell::Classify` for the error type to say whether it is transient, permanent, .."
)]
pub trait BatchOutcome {
    /// The verdict on `records` records.
    ///
    /// # Errors
    /// With a classified failure, which may name the records that it concerns.
    fn into_result(self, records: usize) -> Result<(), Failure>;
}

impl BatchOutcome for () {
    fn into_result(self, _: usize) -> Result<(), Failure> {
        Ok(())
    }
}

impl<E: Into<Failure>> BatchOutcome for Result<(), E> {
    fn into_result(self, _: usize) -> Result<(), Failure> {
        self.map_err(Into::into)
    }
}

impl<E: Into<Failure>> BatchOutcome for Vec<Result<(), E>> {
    fn into_result(self, records: usize) -> Result<(), Failure> {
        if self.len() != records {
            let outcomes = self.len();
            return Err(Failure::new(
                Class::Stop,
                format!("the handler gave {outcomes} outcomes for {records} records"),
            ));
        }
        let outcomes = self.into_iter().enumerate();
        let failed = outcomes.filter_map(|(index, end)| Some((index, end.err()?.into())));
        match Outcomes::of(failed.collect(), records) {
            Some(outcomes) => Err(outcomes.into()),
            None => Ok(()),
        }
    }
}

macro_rules! batch_handler {
    ($($argument:ident),*) => {
        #[expect(clippy::allow_attributes, reason = "some arities use every name")]
        #[allow(non_snake_case, unused_variables, reason = "type names double as variables")]
        impl<F, R, T, $($argument,)*> BatchHandler<(Batch<T>, $($argument,)*)> for F
        where
            F: Fn(Batch<T>, $($argument),*) -> R + Clone + Send + Sync + 'static,
            R: Future + Send + 'static,
            R::Output: BatchOutcome,
            T: FromRecord,
            $($argument: FromBatch,)*
        {
            type Item = T;

            fn call(&self, items: Vec<T>, cx: &mut Context) -> Result<BoxFuture<'static, Result<(), Failure>>, Failure> {
                let count = items.len();
                $(let $argument = $argument::from_record(cx)?;)*
                let handling = self(Batch(items), $($argument),*);
                Ok(Box::pin(async move { handling.await.into_result(count) }))
            }

            fn prepare(setup: &mut Setup<'_>) -> Result<(), SetupError> {
                setup.each_of_batch::<T>()?;
                $($argument::prepare(setup)?;)*
                Ok(())
            }
        }
    };
}

batch_handler!();
batch_handler!(A);
batch_handler!(A, B);
batch_handler!(A, B, C);
batch_handler!(A, B, C, D);
batch_handler!(A, B, C, D, E);
batch_handler!(A, B, C, D, E, G);
batch_handler!(A, B, C, D, E, G, H);

/// One record of a list failed, the ones before it are handled, and those behind it were not
/// touched. What Spring's `BatchListenerFailedException` says.
///
/// ```
/// use ackwell::{Batch, BatchError, Failure, extract::Text};
///
/// async fn import(Batch(lines): Batch<Text>) -> Result<(), BatchError> {
///     for (index, Text(line)) in lines.iter().enumerate() {
///         if line.is_empty() {
///             return Err(BatchError::at(index, Failure::permanent("an empty line")));
///         }
///     }
///     Ok(())
/// }
/// # let _ = ackwell::Listener::on("lines").handle_batch(import);
/// ```
#[derive(Debug)]
pub struct BatchError {
    index: usize,
    failure: Failure,
}

impl BatchError {
    /// Record `index` (from 0, in the handler's list) failed. An index beyond the list stops the
    /// listener: which record is meant can't be known.
    pub fn at(index: usize, error: impl Into<Failure>) -> Self {
        let failure = error.into();
        Self { index, failure }
    }
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "record {} of the batch: {}", self.index, self.failure)
    }
}

impl std::error::Error for BatchError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.failure)
    }
}

impl Classify for BatchError {
    fn class(&self) -> Class {
        self.failure.class()
    }

    fn retry_after(&self) -> Option<Duration> {
        self.failure.wait()
    }
}

/// What became of the records of a list, where they did not all come to the same end. Travels
/// through layers as the cause of a failure.
#[derive(Debug)]
pub(crate) struct Outcomes {
    /// Which failed, in order.
    pub(crate) failed: Vec<(usize, Failure)>,
    /// The failure of those before `end` that names none of them.
    pub(crate) whole: Option<Failure>,
    /// How many from the front are handled or have failed; those behind were not touched.
    pub(crate) end: usize,
    /// Whether the handler itself failed: with a transaction, its work is taken back.
    pub(crate) by_handler: bool,
}

impl Outcomes {
    fn of(failed: Vec<(usize, Failure)>, records: usize) -> Option<Self> {
        (!failed.is_empty()).then_some(Self {
            failed,
            whole: None,
            end: records,
            by_handler: true,
        })
    }

    /// The same for any failure of a list of `records`.
    pub(crate) fn from_failure(mut failure: Failure, records: usize) -> Self {
        if let Some(outcomes) = failure.take_cause() {
            return outcomes;
        }
        if let Some(error) = failure.take_cause::<BatchError>() {
            let end = error.index.saturating_add(1);
            return Self {
                failed: vec![(error.index, error.failure)],
                whole: None,
                end,
                by_handler: true,
            };
        }
        Self {
            failed: Vec::new(),
            whole: Some(failure),
            end: records,
            by_handler: true,
        }
    }
}

impl fmt::Display for Outcomes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} records of a batch failed", self.failed.len())
    }
}

impl std::error::Error for Outcomes {}

impl From<Outcomes> for Failure {
    fn from(outcomes: Outcomes) -> Self {
        let named = outcomes.failed.first().map(|(_, failure)| failure);
        let (class, summary) = match outcomes.whole.as_ref().or(named) {
            Some(failure) => (failure.class(), failure.summary().to_owned()),
            None => (Class::Transient, outcomes.to_string()),
        };
        Failure::new(class, summary).with_source(outcomes)
    }
}
