//! Lists of records in one transaction: each record applied once, whole lists or none of them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod events;

use std::sync::{Arc, Mutex};

use ackwell::extract::{Json, Offset, State};
use ackwell::unit::{Rehearsal, Rehearsed};
use ackwell::{Batch, BatchError, Class, EVENT_ID, Failure, Headers, Record};
use ackwell_sql::{Database, Error, Tx, params};
use events::{ids, open};
use uuid::Uuid;

fn record(offset: i64, id: Uuid) -> Record {
    let mut headers = Headers::new();
    headers.push(EVENT_ID, id.to_string());
    let value = offset.to_string();
    Record::new("t", 0, offset, Some(b"k"), Some(value.as_bytes())).with_headers(headers)
}

fn records(offsets: std::ops::Range<i64>) -> Vec<Record> {
    offsets
        .map(|offset| record(offset, Uuid::now_v7()))
        .collect()
}

/// What a handler was given, list by list.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<Vec<i64>>>>);

impl Seen {
    fn lists(&self) -> Vec<Vec<i64>> {
        self.0.lock().unwrap().clone()
    }
}

async fn insert(tx: &mut Tx, items: &[i64]) -> Result<(), Error> {
    for item in items {
        tx.execute("INSERT INTO items (id) VALUES ($1)", params![*item])
            .await?;
    }
    Ok(())
}

async fn rehearse<H, A>(database: &Database, handler: H, records: Vec<Record>) -> Rehearsed
where
    H: ackwell::BatchHandler<A>,
    A: 'static,
{
    let rehearsal = Rehearsal::of_batches("g", database.clone(), handler).unwrap();
    rehearsal.deliver(records).await
}

fn noting<F>(
    seen: &Seen,
    fails: F,
) -> impl Fn(Batch<Json<i64>>, Tx) -> futures_util::future::BoxFuture<'static, Result<(), Failure>>
+ Clone
+ Send
+ Sync
+ 'static
where
    F: Fn(&[i64]) -> Result<(), Failure> + Clone + Send + Sync + 'static,
{
    let seen = seen.clone();
    move |Batch(items), mut tx| {
        let items: Vec<_> = items.into_iter().map(|Json(item)| item).collect();
        seen.0.lock().unwrap().push(items.clone());
        let fails = fails.clone();
        Box::pin(async move {
            insert(&mut tx, &items).await?;
            fails(&items)
        })
    }
}

#[tokio::test]
async fn a_list_commits_once_and_a_redelivery_never_reaches_the_handler() {
    let folder = tempfile::tempdir().unwrap();
    let database = open(&folder).await;
    let (seen, records) = (Seen::default(), records(0..100));
    let handler = noting(&seen, |_| Ok(()));
    let first = rehearse(&database, handler.clone(), records.clone()).await;
    assert_eq!((first.settled, first.duplicates), (100, 0));
    assert_eq!(database.counts().commits, 1);
    let again = rehearse(&database, handler, records).await;
    assert_eq!((again.settled, again.duplicates), (100, 100));
    assert_eq!(seen.lists().len(), 1);
    assert_eq!(ids(&database).await.len(), 100);
}

#[tokio::test]
async fn duplicates_are_taken_out_of_a_list_and_the_rest_is_handled() {
    let folder = tempfile::tempdir().unwrap();
    let database = open(&folder).await;
    let (seen, records) = (Seen::default(), records(0..10));
    let handler = noting(&seen, |_| Ok(()));
    rehearse(&database, handler.clone(), records[3..6].to_vec()).await;
    let all = rehearse(&database, handler.clone(), records).await;
    assert_eq!((all.settled, all.duplicates), (10, 3));
    assert_eq!(seen.lists()[1], [0, 1, 2, 6, 7, 8, 9]);

    // Produced twice, with one id.
    let id = Uuid::now_v7();
    let twice = vec![record(20, id), record(21, Uuid::now_v7()), record(22, id)];
    let ended = rehearse(&database, handler, twice).await;
    assert_eq!((ended.settled, ended.duplicates), (3, 1));
    assert_eq!(seen.lists()[2], [20, 21]);
}

#[tokio::test]
async fn a_poison_record_leaves_no_trace_and_its_neighbours_are_committed() {
    let folder = tempfile::tempdir().unwrap();
    let database = open(&folder).await;
    let (seen, records) = (Seen::default(), records(0..16));
    let handler = noting(&seen, |items| match items.contains(&11) {
        true => Err(Failure::permanent("eleven")),
        false => Ok(()),
    });
    let ended = rehearse(&database, handler.clone(), records.clone()).await;
    assert_eq!((ended.settled, ended.duplicates), (11, 0));
    assert_eq!(ended.failure.unwrap().summary(), "eleven");
    assert_eq!(ids(&database).await, (0..11).collect::<Vec<_>>());
    assert_eq!(seen.lists().last().unwrap(), &[11]);

    let behind = rehearse(&database, handler, records[12..].to_vec()).await;
    assert_eq!((behind.settled, behind.duplicates), (4, 0));
}

#[tokio::test]
async fn a_handler_that_names_the_record_has_those_before_it_committed_without_it() {
    let folder = tempfile::tempdir().unwrap();
    let database = open(&folder).await;
    async fn fifth(Batch(items): Batch<Json<i64>>, mut tx: Tx) -> Result<(), BatchError> {
        for (index, Json(item)) in items.into_iter().enumerate() {
            let inserted = insert(&mut tx, &[item]).await;
            inserted.map_err(|error| BatchError::at(index, error))?;
            if item == 5 {
                return Err(BatchError::at(index, Failure::permanent("five")));
            }
        }
        Ok(())
    }
    let ended = rehearse(&database, fifth, records(0..10)).await;
    assert_eq!(ended.settled, 5);
    assert_eq!(ended.failure.unwrap().summary(), "five");
    assert_eq!(ids(&database).await, [0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn outcomes_of_single_records_never_commit_what_failed() {
    let folder = tempfile::tempdir().unwrap();
    let database = open(&folder).await;
    async fn odd(Batch(items): Batch<Json<i64>>, mut tx: Tx) -> Vec<Result<(), Failure>> {
        let mut outcomes = Vec::new();
        for Json(item) in items {
            outcomes.push(match insert(&mut tx, &[item]).await {
                Ok(()) if item == 4 || item == 6 => Err(Failure::transient("not yet")),
                inserted => inserted.map_err(Failure::from),
            });
        }
        outcomes
    }
    let ended = rehearse(&database, odd, records(0..10)).await;
    assert_eq!(ended.settled, 4);
    assert_eq!(ended.failure.unwrap().class(), Class::Transient);
    assert_eq!(ids(&database).await, [0, 1, 2, 3]);
}

#[tokio::test]
async fn what_does_not_decode_is_not_marked_as_handled() {
    let folder = tempfile::tempdir().unwrap();
    let database = open(&folder).await;
    let mut records = records(0..6);
    let broken = Record::new("t", 0, 3, None, Some(b"x"));
    records[3] = broken.with_headers(records[3].headers().clone());
    let seen = Seen::default();
    let handler = noting(&seen, |_| Ok(()));
    for _ in 0..2 {
        let ended = rehearse(&database, handler.clone(), records.clone()).await;
        assert_eq!(ended.settled, 3);
        let failure = ended
            .failure
            .expect("it fails each time, and is no duplicate");
        assert_eq!(failure.class(), Class::Permanent);
    }
    assert_eq!(seen.lists(), [[0, 1, 2]]);
    assert_eq!(ids(&database).await, [0, 1, 2]);
}

#[tokio::test]
async fn a_statement_that_fails_takes_its_list_back_and_finds_the_record() {
    let folder = tempfile::tempdir().unwrap();
    let database = open(&folder).await;
    let mut tx = database.begin();
    insert(&mut tx, &[7]).await.unwrap();
    tx.commit().await.unwrap();
    let seen = Seen::default();
    let ended = rehearse(&database, noting(&seen, |_| Ok(())), records(0..10)).await;
    assert_eq!(ended.settled, 7, "the eighth violates a constraint");
    assert!(ended.failure.is_some());
    assert_eq!(ids(&database).await, (0..8).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_a_batch_cannot_give_is_found_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let database = open(&folder).await;
    async fn twice(_: Batch<Offset>, _: Tx, _: Tx) {}
    async fn within(_: Batch<(Offset, Tx)>) {}
    async fn without_state(_: Batch<Offset>, _: State<Seen>) {}
    let told = |refused: Result<Rehearsal, ackwell::SetupError>| refused.unwrap_err().to_string();
    let refused = told(Rehearsal::of_batches("g", database.clone(), twice));
    assert!(refused.contains("`Tx` twice"), "{refused}");
    let refused = told(Rehearsal::of_batches("g", database.clone(), within));
    assert!(
        refused.contains("`Tx` of each record of a batch"),
        "{refused}"
    );
    let refused = told(Rehearsal::of_batches("g", database.clone(), without_state));
    assert!(refused.contains("Seen"), "{refused}");
}
