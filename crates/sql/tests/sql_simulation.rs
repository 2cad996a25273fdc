//! Random units of work, in any interleaving, dropped and failing anywhere, against a model:
//! each is in the database whole or not at all, and nobody is left waiting.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "helpers of tests"
)]

mod events;

use std::collections::BTreeSet;
use std::time::Duration;

use ackwell_sql::{Database, Settings, params};
use events::database_url::is_postgres;
use events::{Happened, ids, outbox};
use proptest::prelude::*;
use tokio::time::timeout;

/// What one unit does, and how it ends.
#[derive(Debug, Clone)]
struct Script {
    steps: Vec<Step>,
    end: End,
}

#[derive(Debug, Clone)]
enum Step {
    /// Inserts the next id, and emits it.
    Write,
    /// Lets others go first, this many times.
    Wait(u8),
    /// Violates a key.
    Fail,
}

#[derive(Debug, Clone, PartialEq)]
enum End {
    Commit,
    Drop,
    /// Polls the commit once, then drops it.
    Abandon,
    /// Is dropped wherever it is after so many turns of the others.
    Cut(u8),
}

/// What the database must hold of a unit.
#[derive(Debug, PartialEq)]
enum Fate {
    All,
    Nothing,
    AllOrNothing,
}

fn script() -> impl Strategy<Value = Script> {
    let step = prop_oneof![
        6 => Just(Step::Write),
        3 => (0..4_u8).prop_map(Step::Wait),
        1 => Just(Step::Fail),
    ];
    let end = prop_oneof![
        6 => Just(End::Commit),
        1 => Just(End::Drop),
        1 => Just(End::Abandon),
        2 => (0..40_u8).prop_map(End::Cut),
    ];
    (prop::collection::vec(step, 1..6), end).prop_map(|(steps, end)| Script { steps, end })
}

async fn play(db: Database, number: i64, script: Script) -> Fate {
    let mut tx = db.begin();
    let mut next = number * 100;
    for step in &script.steps {
        let result = match step {
            Step::Write => {
                next += 1;
                let insert = tx
                    .execute("INSERT INTO items (id) VALUES ($1)", params![next])
                    .await;
                match insert {
                    Ok(_) => tx.emit(&Happened { item: next }).await,
                    Err(error) => Err(error),
                }
            }
            Step::Wait(turns) => {
                for _ in 0..*turns {
                    tokio::task::yield_now().await;
                }
                Ok(())
            }
            Step::Fail => tx
                .execute("INSERT INTO items (id) VALUES (0)", params![])
                .await
                .map(drop),
        };
        if result.is_err() {
            return Fate::Nothing;
        }
    }
    match script.end {
        End::Drop => Fate::Nothing,
        End::Abandon => {
            let mut commit = Box::pin(tx.commit());
            match futures_util::poll!(commit.as_mut()) {
                std::task::Poll::Ready(Ok(())) => Fate::All,
                std::task::Poll::Ready(Err(_)) => Fate::Nothing,
                std::task::Poll::Pending => Fate::AllOrNothing,
            }
        }
        End::Commit | End::Cut(_) => match tx.commit().await {
            Ok(()) => Fate::All,
            Err(_) => Fate::Nothing,
        },
    }
}

/// Plays a script, or a part of it.
async fn unit(db: Database, number: i64, script: Script) -> Fate {
    let End::Cut(turns) = script.end else {
        return play(db, number, script).await;
    };
    let mut playing = Box::pin(play(db, number, script));
    for _ in 0..turns {
        if let std::task::Poll::Ready(fate) = futures_util::poll!(playing.as_mut()) {
            return fate;
        }
        tokio::task::yield_now().await;
    }
    Fate::AllOrNothing
}

async fn simulate(scripts: Vec<Script>, settings: Settings, threads: bool) {
    let folder = tempfile::tempdir().unwrap();
    let db = Database::open_with(&events::url(&folder), events::SCHEMA, settings)
        .await
        .unwrap();
    write_first(&db).await;
    let mut tasks = Vec::new();
    for (number, script) in (1_i64..).zip(&scripts) {
        let task = unit(db.clone(), number, script.clone());
        tasks.push(if threads {
            tokio::spawn(task)
        } else {
            tokio::task::spawn_local(task)
        });
    }
    let mut fates = Vec::new();
    for task in tasks {
        fates.push(
            timeout(Duration::from_secs(20), task)
                .await
                .expect("nobody waits for ever")
                .unwrap(),
        );
    }
    // Whatever happened, the database is at hand for the next one.
    let mut tx = db.begin();
    tx.execute("INSERT INTO items (id) VALUES (1000000)", params![])
        .await
        .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(db.waiting(), 0);
    check(&scripts, &fates, &db).await;
}

async fn write_first(db: &Database) {
    let mut tx = db.begin();
    tx.execute("INSERT INTO items (id) VALUES (0)", params![])
        .await
        .unwrap();
    tx.commit().await.unwrap();
}

async fn check(scripts: &[Script], fates: &[Fate], db: &Database) {
    let found: BTreeSet<i64> = ids(db).await.into_iter().collect();
    let emitted: BTreeSet<i64> = outbox(db).await.into_iter().collect();
    for (number, (script, fate)) in (1_i64..).zip(scripts.iter().zip(fates)) {
        let writes = script
            .steps
            .iter()
            .filter(|step| matches!(step, Step::Write))
            .count() as i64;
        let expected: BTreeSet<i64> = (1..=writes).map(|place| number * 100 + place).collect();
        let there: BTreeSet<i64> = found
            .range(number * 100..number * 100 + 100)
            .copied()
            .collect();
        let sent: BTreeSet<i64> = emitted
            .range(number * 100..number * 100 + 100)
            .copied()
            .collect();
        assert_eq!(there, sent, "unit {number}: rows and events differ");
        match fate {
            Fate::All => assert_eq!(there, expected, "unit {number}: committed"),
            Fate::Nothing => assert!(there.is_empty(), "unit {number}: not committed"),
            Fate::AllOrNothing => {
                assert!(
                    there.is_empty() || there == expected,
                    "unit {number}: half of it"
                );
            }
        }
    }
}

fn settings(group_members: usize) -> Settings {
    let mut settings = Settings::default();
    settings.group_members = group_members;
    settings
}

/// Each has a database of its own, and a dozen connections to a server.
fn cases() -> u32 {
    if is_postgres() { 12 } else { 48 }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn units_are_whole_on_one_thread(
        scripts in prop::collection::vec(script(), 1..30),
        members in 1..20_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, simulate(scripts, settings(members), false));
    }

    #[test]
    fn units_are_whole_on_several_threads(
        scripts in prop::collection::vec(script(), 1..60),
        members in 1..20_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(3)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(simulate(scripts, settings(members), true));
    }
}
