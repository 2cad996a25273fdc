//! Listeners with a transaction: each record applied once, whole or not at all.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "helpers of tests"
)]

mod events;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use ackwell::extract::Offset;
use ackwell::unit::Rehearsal;
use ackwell::{Class, Classify, EVENT_ID, Failure, Headers, Record};
use ackwell_sql::{Database, Error, Tx, params};
use events::database_url::is_postgres;
use events::{Happened, ids, open, outbox};
use tokio::sync::Notify;
use uuid::Uuid;

fn record(offset: i64, id: Option<Uuid>) -> Record {
    let mut headers = Headers::new();
    if let Some(id) = id {
        headers.push(EVENT_ID, id.to_string());
    }
    Record::new("t", 0, offset, Some(b"k"), Some(b"v")).with_headers(headers)
}

fn records(offsets: std::ops::Range<i64>) -> Vec<Record> {
    offsets
        .map(|offset| record(offset, Some(Uuid::now_v7())))
        .collect()
}

/// Writes the record's offset and emits it.
async fn apply(Offset(offset): Offset, mut tx: Tx) -> Result<(), Error> {
    tx.execute("INSERT INTO items (id) VALUES ($1)", params![offset])
        .await?;
    tx.emit(&Happened { item: offset }).await
}

fn listener(db: &Database) -> Rehearsal {
    Rehearsal::new("g", db.clone(), apply).unwrap()
}

#[tokio::test]
async fn a_handler_that_asks_for_a_transaction_needs_a_database() {
    let error = Rehearsal::new("g", (), apply).unwrap_err();
    assert!(error.to_string().contains("Database"), "{error}");
}

#[tokio::test]
async fn a_run_shares_one_commit() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder).await;
    let end = listener(&db).deliver(records(0..500)).await;
    assert_eq!((end.settled, end.duplicates), (500, 0));
    assert_eq!((ids(&db).await.len(), outbox(&db).await.len()), (500, 500));
    // On PostgreSQL a group has 60 members at most, and is old sooner.
    let commits_max = if is_postgres() { 250 } else { 20 };
    assert!(db.counts().commits < commits_max, "{:?}", db.counts());
}

#[tokio::test]
async fn a_redelivery_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder).await;
    let listener = listener(&db);
    let delivered = records(0..10);
    listener.deliver(delivered.clone()).await;
    let end = listener.deliver(delivered).await;
    assert_eq!((end.settled, end.duplicates), (10, 10));
    assert!(end.failure.is_none());
    assert_eq!((ids(&db).await.len(), outbox(&db).await.len()), (10, 10));
    assert_eq!(db.counts().duplicates, 10);
}

#[tokio::test]
async fn an_event_produced_twice_counts_once_even_within_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder).await;
    let id = Some(Uuid::now_v7());
    let end = listener(&db)
        .deliver(vec![record(1, id), record(2, id), record(3, None)])
        .await;
    assert_eq!((end.settled, end.duplicates), (3, 1));
    assert_eq!(ids(&db).await, [1, 3]);
}

#[tokio::test]
async fn records_without_an_id_are_known_by_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder).await;
    let listener = listener(&db);
    for _ in 0..2 {
        let end = listener
            .deliver(vec![record(1, None), record(2, None)])
            .await;
        assert_eq!(end.settled, 2);
    }
    assert_eq!(ids(&db).await, [1, 2]);
}

#[tokio::test]
async fn groups_do_not_take_each_others_records_for_duplicates() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder).await;
    let count =
        async |_: Offset, mut tx: Tx| -> Result<(), Error> { tx.emit(&Happened { item: 0 }).await };
    let delivered = records(0..3);
    for group in ["a", "b"] {
        Rehearsal::new(group, db.clone(), count)
            .unwrap()
            .deliver(delivered.clone())
            .await;
    }
    assert_eq!(outbox(&db).await.len(), 6);
}

#[tokio::test]
async fn a_handler_can_not_swallow_a_duplicate() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder).await;
    let effects = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&effects);
    let stubborn = move |Offset(offset): Offset, mut tx: Tx| {
        let counted = Arc::clone(&counted);
        async move {
            let (insert, params) = ("INSERT INTO items (id) VALUES ($1)", params![offset]);
            tokio::select! {
                biased;
                _ = tx.execute(insert, params) => {}
                () = std::future::ready(()) => {}
            }
            let _swallowed = tx.emit(&Happened { item: offset }).await;
            counted.fetch_add(1, SeqCst);
        }
    };
    let listener = Rehearsal::new("g", db.clone(), stubborn).unwrap();
    let delivered = records(0..3);
    listener.deliver(delivered.clone()).await;
    let end = listener.deliver(delivered).await;
    assert_eq!((end.settled, end.duplicates), (3, 3));
    assert_eq!(effects.load(SeqCst), 3);
    assert_eq!(outbox(&db).await.len(), 3);
}

/// On a server the mark and the first statement travel together; what the statement says of a duplicate is nobody's
/// business.
#[tokio::test]
async fn a_duplicate_is_one_whatever_its_first_statement_would_have_said() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder).await;
    let listener = listener(&db);
    let mut delivered = records(0..4);
    listener.deliver(delivered.clone()).await;
    // Between two that are new: what they do stays, and what comes with the duplicates does not.
    delivered.insert(2, records(10..11).remove(0));
    delivered.push(records(11..12).remove(0));
    let end = listener.deliver(delivered).await;
    assert!(end.failure.is_none(), "{:?}", end.failure);
    assert_eq!((end.settled, end.duplicates), (6, 4));
    assert_eq!(ids(&db).await, [0, 1, 2, 3, 10, 11]);
    assert_eq!(outbox(&db).await, [0, 1, 2, 3, 10, 11]);
}

#[tokio::test]
async fn a_record_that_fails_is_taken_back_alone() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder).await;
    let picky = async |Offset(offset): Offset, mut tx: Tx| -> Result<(), Failure> {
        tx.execute("INSERT INTO items (id) VALUES ($1)", params![offset])
            .await?;
        tx.emit(&Happened { item: offset }).await?;
        if offset == 3 {
            Err(Failure::permanent("three is refused"))
        } else {
            Ok(())
        }
    };
    let listener = Rehearsal::new("g", db.clone(), picky).unwrap();
    let end = listener.deliver(records(0..6)).await;
    assert_eq!(end.settled, 3);
    assert_eq!(end.failure.unwrap().summary(), "three is refused");
    assert_eq!(ids(&db).await, [0, 1, 2]);
    assert_eq!(outbox(&db).await.len(), 3);
}

#[tokio::test]
async fn a_panic_takes_back_only_its_record() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder).await;
    let panicking = async |Offset(offset): Offset, mut tx: Tx| -> Result<(), Error> {
        tx.execute("INSERT INTO items (id) VALUES ($1)", params![offset])
            .await?;
        assert_ne!(offset, 2);
        Ok(())
    };
    let listener = Rehearsal::new("g", db.clone(), panicking).unwrap();
    let end = listener.deliver(records(0..4)).await;
    assert_eq!(
        (end.settled, end.failure.unwrap().class()),
        (2, Class::Permanent)
    );
    assert_eq!(ids(&db).await, [0, 1]);
}

#[tokio::test]
async fn a_failed_statement_that_the_handler_swallows_fails_the_record() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder).await;
    let careless = async |Offset(offset): Offset, mut tx: Tx| {
        let _ = tx
            .execute("INSERT INTO items (id) VALUES ($1)", params![offset])
            .await;
        let _ = tx
            .execute("INSERT INTO items (id) VALUES ($1)", params![offset])
            .await;
    };
    let listener = Rehearsal::new("g", db.clone(), careless).unwrap();
    let end = listener.deliver(records(0..2)).await;
    assert_eq!(
        (end.settled, end.failure.unwrap().class()),
        (0, Class::Permanent)
    );
    assert!(ids(&db).await.is_empty());
}

#[tokio::test]
async fn a_handler_that_leaves_the_database_alone_waits_for_those_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder).await;
    let even = async |Offset(offset): Offset, mut tx: Tx| -> Result<(), Error> {
        if offset % 2 == 0 {
            tx.execute("INSERT INTO items (id) VALUES ($1)", params![offset])
                .await?;
        }
        Ok(())
    };
    let end = Rehearsal::new("g", db.clone(), even)
        .unwrap()
        .deliver(records(0..7))
        .await;
    assert_eq!(end.settled, 7);
    assert_eq!(ids(&db).await, [0, 2, 4, 6]);
    assert_eq!(db.counts().members, 4);
}

#[tokio::test]
async fn a_handler_that_waits_before_its_first_statement_keeps_nobody_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder).await;
    let (gate, slow) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
    let (opened, reached) = (Arc::clone(&gate), Arc::clone(&slow));
    let handler = move |Offset(offset): Offset, mut tx: Tx| {
        let (opened, reached) = (Arc::clone(&opened), Arc::clone(&reached));
        async move {
            if offset == 2 {
                reached.store(true, SeqCst);
                opened.notified().await;
            }
            tx.execute("INSERT INTO items (id) VALUES ($1)", params![offset])
                .await
                .map(drop)
        }
    };
    let listener = Rehearsal::new("g", db.clone(), handler).unwrap();
    let delivering = tokio::spawn(async move { listener.deliver(records(0..4)).await });
    while !slow.load(SeqCst) {
        tokio::task::yield_now().await;
    }
    // What came before it is committed, and others write, while it waits.
    let mut tx = db.begin();
    tx.execute("INSERT INTO items (id) VALUES (100)", params![])
        .await
        .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(ids(&db).await, [0, 1, 100]);
    gate.notify_one();
    assert_eq!(delivering.await.unwrap().settled, 4);
    assert_eq!(ids(&db).await, [0, 1, 2, 3, 100]);
}

#[tokio::test]
async fn a_dropped_run_leaves_whole_records_only() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder).await;
    let reached = Arc::new(Notify::new());
    let at_two = Arc::clone(&reached);
    let stuck = move |Offset(offset): Offset, mut tx: Tx| {
        let at_two = Arc::clone(&at_two);
        async move {
            tx.execute("INSERT INTO items (id) VALUES ($1)", params![offset])
                .await?;
            if offset == 2 {
                at_two.notify_one();
                std::future::pending::<()>().await;
            }
            tx.emit(&Happened { item: offset }).await
        }
    };
    let stuck = Rehearsal::new("g", db.clone(), stuck).unwrap();
    let delivered = records(0..4);
    tokio::select! {
        _ = stuck.deliver(delivered.clone()) => panic!("it waits for ever"),
        () = reached.notified() => {}
    }
    let end = listener(&db).deliver(delivered).await;
    assert_eq!((end.settled, end.duplicates), (4, 2));
    assert_eq!(ids(&db).await, [0, 1, 2, 3]);
    assert_eq!(outbox(&db).await.len(), 4);
}

#[tokio::test]
async fn a_transaction_that_outlives_its_handler_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder).await;
    let (send, mut receive) = tokio::sync::mpsc::unbounded_channel();
    let leak = move |_: Offset, tx: Tx| {
        let send = send.clone();
        async move { drop(send.send(tx)) }
    };
    Rehearsal::new("g", db.clone(), leak)
        .unwrap()
        .deliver(records(0..1))
        .await;
    let mut tx = receive.recv().await.unwrap();
    let error = tx
        .execute("INSERT INTO items (id) VALUES (1)", params![])
        .await
        .unwrap_err();
    assert!(error.to_string().contains("after its end"), "{error}");
}

#[tokio::test]
async fn a_second_transaction_and_a_commit_in_a_handler_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder).await;
    let twice = async |_: Tx, _: Tx| {};
    let refused = Rehearsal::new("g", db.clone(), twice).unwrap_err();
    assert!(refused.to_string().contains("`Tx` twice"), "{refused}");
    let commits = async |Offset(offset): Offset, mut tx: Tx| {
        tx.execute("INSERT INTO items (id) VALUES ($1)", params![offset])
            .await?;
        let _swallowed = tx.commit().await;
        Ok::<_, Error>(())
    };
    let end = Rehearsal::new("g", db.clone(), commits)
        .unwrap()
        .deliver(records(0..1))
        .await;
    assert!(
        end.failure
            .unwrap()
            .summary()
            .contains("the container commits")
    );
    assert!(ids(&db).await.is_empty());
}

#[tokio::test]
async fn an_event_larger_than_a_message_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder).await;
    let mut tx = db.begin();
    let error = tx
        .emit(&events::Large {
            text: "x".repeat(1_000_000),
        })
        .await
        .unwrap_err();
    assert!(
        error.is_too_large() && error.class() == Class::Permanent,
        "{error:?}"
    );
    assert!(tx.commit().await.unwrap_err().is_too_large());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listeners_and_requests_share_the_database() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder).await;
    let lanes: Vec<_> = (0..8)
        .map(|lane| {
            let listener = listener(&db);
            tokio::spawn(async move {
                let mut settled = 0;
                for run in 0..5 {
                    let first = lane * 1000 + run * 100;
                    settled += listener.deliver(records(first..first + 50)).await.settled;
                }
                settled
            })
        })
        .collect();
    let requests: Vec<_> = (0..200)
        .map(|request| {
            let db = db.clone();
            tokio::spawn(async move {
                let mut tx = db.begin();
                let id = 100_000 + request;
                tx.execute("INSERT INTO items (id) VALUES ($1)", params![id])
                    .await?;
                tokio::task::yield_now().await;
                tx.emit(&Happened { item: id }).await?;
                if request % 7 == 0 {
                    Ok(())
                } else {
                    tx.commit().await
                }
            })
        })
        .collect();
    for lane in lanes {
        assert_eq!(lane.await.unwrap(), 250);
    }
    for request in requests {
        request.await.unwrap().unwrap();
    }
    let ids = ids(&db).await;
    assert_eq!(ids.len(), 2000 + 200 - 29);
    assert_eq!(outbox(&db).await.len(), ids.len());
}
