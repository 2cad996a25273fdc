//! How runs are carried out one by one, filtered, and as lists.

use std::sync::{Arc, Mutex};

use ackwell_core::Timestamp;
use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::run::{Ended, ProgressSink};
use super::{Control, OneByOne, Run, UnitOfWork};
use crate::batch::{Batch, BatchError, BatchHandler};
use crate::container::RecordHandler;
use crate::context::{Shared, States};
use crate::extensions::Extensions;
use crate::extract::{Attempt, Json, Offset};
use crate::failure::{Class, Failure};
use crate::handler::{Erased, TypedBatch};
use crate::listener::{Filter, OnUndecodable};
use crate::record::{Headers, Record};
use crate::returned::{FirstFailure, Returned};

struct Unheard;

impl ProgressSink for Unheard {
    fn progress(&self, _: usize) {}
}

fn record(offset: i64) -> Record {
    let value = offset.to_string();
    Record::new("t", 0, offset, None, Some(value.as_bytes()))
}

/// One that was read at `read` on a retry topic, and had failed at `failed`.
fn returned(read: i64, failed: i64) -> Record {
    let value = failed.to_string();
    let record = Record::new("t.retry.1", 0, read, None, Some(value.as_bytes()));
    let returned = Returned {
        topic: "t".into(),
        partition: 0,
        offset: failed,
        timestamp: -1,
        number: 1,
        attempts: 1,
        due: Timestamp::from_millis(0),
        first: FirstFailure {
            timestamp: Bytes::new(),
            class: Bytes::new(),
            reason: Bytes::new(),
        },
    };
    record.returned(returned, Headers::new())
}

fn shared(on_undecodable: OnUndecodable) -> Arc<Shared> {
    Arc::new(Shared {
        group: "g".into(),
        states: States::default(),
        on_undecodable,
        on_unknown_event: on_undecodable,
        undecodable: prometheus_client::metrics::counter::Counter::default(),
        listener: None,
    })
}

fn batch<H: BatchHandler<A>, A: 'static>(handler: H) -> Arc<dyn RecordHandler> {
    TypedBatch::new(handler).bind(shared(OnUndecodable::DeadLetter))
}

/// The lists that a handler was given.
type Lists = Arc<Mutex<Vec<Vec<i64>>>>;

fn lists(of: &Lists) -> Vec<Vec<i64>> {
    of.lock().unwrap().clone()
}

async fn carried_out(
    handler: Arc<dyn RecordHandler>,
    filter: Option<Filter>,
    records: Vec<Record>,
    attempt: u32,
) -> Ended {
    let control = Arc::new(Control::default());
    let run = Run::new(
        "g".into(),
        handler,
        Box::new(Unheard),
        control,
        records,
        attempt,
    );
    let mut run = run.filtered(filter);
    OneByOne.carry_out(&mut run).await;
    run.finish()
}

/// A handler of lists of offsets that notes them and then answers.
fn noting<R>(
    seen: &Lists,
    answer: impl Fn(&[i64]) -> R + Clone + Send + Sync + 'static,
) -> impl Fn(Batch<Offset>) -> BoxFuture<'static, R> + Clone + Send + Sync + 'static
where
    R: Send + 'static,
{
    let seen = Arc::clone(seen);
    move |Batch(offsets): Batch<Offset>| {
        let offsets: Vec<_> = offsets.into_iter().map(|Offset(offset)| offset).collect();
        let answer = answer(&offsets);
        seen.lock().unwrap().push(offsets);
        Box::pin(std::future::ready(answer))
    }
}

fn refuse(poison: i64) -> impl Fn(&[i64]) -> Result<(), Failure> + Clone + Send + Sync + 'static {
    move |offsets| match offsets.contains(&poison) {
        true => Err(Failure::permanent("poison")),
        false => Ok(()),
    }
}

#[tokio::test]
async fn a_list_is_handled_in_one_call() {
    let seen = Lists::default();
    let ended = carried_out(
        batch(noting(&seen, |_| ())),
        None,
        (0..100).map(record).collect(),
        1,
    )
    .await;
    assert_eq!((ended.settled, ended.failure.is_none()), (100, true));
    assert_eq!(lists(&seen).len(), 1);
}

#[tokio::test]
async fn a_poison_record_ends_alone_and_its_neighbours_are_settled() {
    for poison in [0, 37, 99] {
        let seen = Lists::default();
        let records = (0..100).map(record).collect();
        let ended = carried_out(batch(noting(&seen, refuse(poison))), None, records, 1).await;
        assert_eq!(ended.settled as i64, poison);
        let failure = ended.failure.unwrap();
        assert_eq!(
            (failure.class(), failure.summary()),
            (Class::Permanent, "poison")
        );
        assert_eq!(lists(&seen).last().unwrap(), &[poison]);
        assert!(lists(&seen).len() <= 16, "{:?}", lists(&seen));
    }
}

#[tokio::test]
async fn a_record_that_failed_before_comes_alone() {
    let seen = Lists::default();
    let records = (0..10).map(record).collect();
    let ended = carried_out(batch(noting(&seen, |_| ())), None, records, 3).await;
    assert_eq!(ended.settled, 10);
    assert_eq!(lists(&seen), [vec![0], (1..10).collect()]);
}

#[tokio::test]
async fn what_all_records_need_is_no_reason_to_take_a_list_apart() {
    for class in [Class::Unavailable, Class::Stop] {
        let seen = Lists::default();
        let away = move |_: &[i64]| Err::<(), _>(Failure::new(class, "away"));
        let records = (0..10).map(record).collect();
        let ended = carried_out(batch(noting(&seen, away)), None, records, 1).await;
        assert_eq!((ended.settled, lists(&seen).len()), (0, 1));
        assert_eq!(ended.failure.unwrap().class(), class);
    }
}

#[tokio::test]
async fn a_handler_that_names_the_failed_record_is_not_asked_again() {
    let seen = Lists::default();
    let third = |_: &[i64]| Err(BatchError::at(3, Failure::permanent("no")));
    let records = (0..10).map(record).collect();
    let ended = carried_out(batch(noting(&seen, third)), None, records, 1).await;
    assert_eq!((ended.settled, lists(&seen).len()), (3, 1));
    assert_eq!(ended.failure.unwrap().summary(), "no");
    assert!(
        ended.settled_behind.is_empty(),
        "nobody touched those behind"
    );

    let beyond = |_: &[i64]| Err(BatchError::at(10, Failure::permanent("no")));
    let records = (0..10).map(record).collect();
    let ended = carried_out(batch(noting(&seen, beyond)), None, records, 1).await;
    let failure = ended.failure.unwrap();
    assert_eq!((ended.settled, failure.class()), (0, Class::Stop));
    assert!(failure.summary().contains("record 10 of a batch of 10"));
}

#[tokio::test]
async fn what_is_settled_of_a_list_from_a_retry_topic_is_told_by_where_it_was_read() {
    let outcomes = |offsets: &[i64]| -> Vec<Result<(), Failure>> {
        let outcome = |offset: &i64| match offset {
            3 => Err(Failure::new(Class::Transient, "not yet")),
            _ => Ok(()),
        };
        offsets.iter().map(outcome).collect()
    };
    // They failed at 1, 3, 0 and 2, and came in that order.
    let records = [(0, 1), (1, 3), (2, 0), (3, 2)];
    let records = records.map(|(read, failed)| returned(read, failed)).into();
    let seen = Lists::default();
    let ended = carried_out(batch(noting(&seen, outcomes)), None, records, 1).await;
    assert_eq!(lists(&seen), [[1, 3, 0, 2]]);
    assert_eq!((ended.settled, ended.settled_behind), (1, vec![2, 3]));
}

#[tokio::test]
async fn each_record_of_a_list_may_have_its_own_outcome() {
    let seen = Lists::default();
    let odd = |offsets: &[i64]| -> Vec<Result<(), Failure>> {
        let outcome = |offset: &i64| match offset {
            2 | 5 => Err(Failure::new(Class::Transient, format!("no {offset}"))),
            _ => Ok(()),
        };
        offsets.iter().map(outcome).collect()
    };
    let records = (0..8).map(record).collect();
    let ended = carried_out(batch(noting(&seen, odd)), None, records, 1).await;
    assert_eq!((ended.settled, ended.settled_behind), (2, vec![3, 4, 6, 7]));
    assert_eq!(ended.failure.unwrap().summary(), "no 2");

    let short = |_: &[i64]| -> Vec<Result<(), Failure>> { vec![Ok(())] };
    let records = (0..8).map(record).collect();
    let ended = carried_out(batch(noting(&seen, short)), None, records, 1).await;
    assert_eq!(ended.settled, 0);
    assert_eq!(ended.failure.unwrap().class(), Class::Stop);
}

#[tokio::test]
async fn a_panic_is_the_fault_of_one_record() {
    async fn panics(Batch(items): Batch<Json<i64>>) {
        assert!(items.iter().all(|Json(item)| *item != 5), "five");
    }
    let records = (0..10).map(record).collect();
    let ended = carried_out(batch(panics), None, records, 1).await;
    assert_eq!(ended.settled, 5);
    let failure = ended.failure.unwrap();
    assert_eq!(failure.class(), Class::Permanent);
    assert!(failure.summary().contains("five"), "{failure}");
}

#[tokio::test]
async fn what_does_not_decode_never_reaches_the_handler_and_ends_the_list() {
    let records = || -> Vec<_> {
        let mut records: Vec<_> = (0..6).map(record).collect();
        records[2] = Record::new("t", 0, 2, None, Some(b"x"));
        records
    };
    for (policy, settled, class) in [
        (OnUndecodable::DeadLetter, 2, Some(Class::Permanent)),
        (OnUndecodable::Stop, 2, Some(Class::Stop)),
        (OnUndecodable::Skip, 6, None),
    ] {
        let seen = Lists::default();
        let noted = Arc::clone(&seen);
        let handler = move |Batch(items): Batch<(Offset, Json<i64>)>| {
            let items = items.into_iter().map(|(_, Json(item))| item);
            noted.lock().unwrap().push(items.collect());
            std::future::ready(())
        };
        let handler = TypedBatch::new(handler).bind(shared(policy));
        let ended = carried_out(handler, None, records(), 1).await;
        assert_eq!(ended.settled, settled);
        assert_eq!(ended.failure.map(|failure| failure.class()), class);
        let expected = match policy {
            OnUndecodable::Skip => vec![0, 1, 3, 4, 5],
            _ => vec![0, 1],
        };
        assert_eq!(lists(&seen), [expected]);
    }
}

#[tokio::test]
async fn a_failed_list_with_skipped_records_blames_the_right_one() {
    async fn four(Batch(items): Batch<(Offset, Json<i64>)>) -> Result<(), BatchError> {
        match items.iter().position(|(_, Json(item))| *item == 4) {
            Some(at) => Err(BatchError::at(at, Failure::permanent("four"))),
            None => Ok(()),
        }
    }
    let mut records: Vec<_> = (0..6).map(record).collect();
    records[0] = Record::new("t", 0, 0, None, Some(b"x"));
    records[3] = Record::new("t", 0, 3, None, None);
    let handler = TypedBatch::new(four).bind(shared(OnUndecodable::Skip));
    let ended = carried_out(handler, None, records, 1).await;
    assert_eq!(ended.settled, 4);
    assert_eq!(ended.failure.unwrap().summary(), "four");
}

/// Notes what it is called with.
struct Noting(Arc<Mutex<Vec<(i64, u32)>>>);

impl RecordHandler for Noting {
    fn call(
        &self,
        record: Record,
        attempt: u32,
        _: Extensions,
    ) -> BoxFuture<'static, Result<(), Failure>> {
        self.0.lock().unwrap().push((record.offset(), attempt));
        let refused = record.offset() == 7;
        Box::pin(std::future::ready(match refused {
            true => Err(Failure::permanent("seven")),
            false => Ok(()),
        }))
    }
}

#[tokio::test]
async fn what_the_filter_passes_over_is_settled_without_a_call() {
    let even = || Some(Filter::new(|record| record.offset() % 2 == 0));
    let calls = Arc::new(Mutex::new(Vec::new()));
    let records = (1..10).map(record).collect();
    let ended = carried_out(Arc::new(Noting(Arc::clone(&calls))), even(), records, 1).await;
    assert_eq!((ended.settled, ended.filtered), (9, 5));
    assert_eq!(*calls.lock().unwrap(), [(2, 1), (4, 1), (6, 1), (8, 1)]);

    let none = Some(Filter::new(|_| false));
    let records = (1..10).map(record).collect();
    let ended = carried_out(Arc::new(Noting(Arc::clone(&calls))), none, records, 1).await;
    assert_eq!((ended.settled, ended.filtered), (9, 9));

    let seen = Lists::default();
    let records = (1..10).map(record).collect();
    let ended = carried_out(batch(noting(&seen, refuse(6))), even(), records, 1).await;
    assert_eq!((ended.settled, ended.filtered), (5, 3));
    assert_eq!(lists(&seen).last().unwrap(), &[6]);
}

#[tokio::test]
async fn a_filter_that_panics_fails_its_record_alone() {
    let filter = || {
        Some(Filter::new(|record| {
            assert!(record.offset() != 3, "three");
            true
        }))
    };
    let calls = Arc::new(Mutex::new(Vec::new()));
    let records = (0..6).map(record).collect();
    let ended = carried_out(Arc::new(Noting(Arc::clone(&calls))), filter(), records, 1).await;
    assert_eq!(ended.settled, 3);
    let failure = ended.failure.unwrap();
    assert_eq!(failure.summary(), "the filter panicked: three");

    let seen = Lists::default();
    let records = (0..6).map(record).collect();
    let ended = carried_out(batch(noting(&seen, |_| ())), filter(), records, 1).await;
    assert_eq!((ended.settled, lists(&seen)), (3, vec![vec![0, 1, 2]]));
    assert!(ended.failure.is_some());
}

#[tokio::test]
async fn a_handler_that_fails_behind_a_filter_holds_what_is_behind_it() {
    let odd = Some(Filter::new(|record| record.offset() % 2 == 1));
    let calls = Arc::new(Mutex::new(Vec::new()));
    let records = (4..10).map(record).collect();
    let ended = carried_out(Arc::new(Noting(calls)), odd, records, 1).await;
    assert_eq!((ended.settled, ended.filtered), (3, 2), "4, 5 and 6");
}

#[tokio::test]
async fn the_attempt_is_that_of_the_first_record() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&seen);
    let handler = move |Batch(items): Batch<(Offset, Attempt)>| {
        noted.lock().unwrap().extend(items);
        std::future::ready(())
    };
    carried_out(batch(handler), None, (0..3).map(record).collect(), 4).await;
    let expected = [
        (Offset(0), Attempt(4)),
        (Offset(1), Attempt(1)),
        (Offset(2), Attempt(1)),
    ];
    assert_eq!(*seen.lock().unwrap(), expected);
}
