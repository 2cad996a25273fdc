//! What the tests of listeners and relays have in common: a schema and two events.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

#[path = "../database_url/mod.rs"]
pub mod database_url;

use std::borrow::Cow;

use ackwell::{Event, Topic};
use ackwell_sql::{Database, Migration, params};
use database_url::database_url;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

pub const SCHEMA: &[Migration] = &[
    Migration::new(
        "items",
        "CREATE TABLE items (id INTEGER PRIMARY KEY) STRICT",
    )
    .postgres("CREATE TABLE items (id BIGINT PRIMARY KEY)"),
    Migration::new(
        "effects",
        "CREATE TABLE effects (place INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL, \
         number INTEGER NOT NULL, worker TEXT NOT NULL) STRICT",
    )
    .postgres(
        "CREATE TABLE effects (place BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, \
         key TEXT NOT NULL, number BIGINT NOT NULL, worker TEXT NOT NULL)",
    ),
];

/// Something happened to an item.
#[derive(Debug, Serialize, Deserialize)]
pub struct Happened {
    pub item: i64,
}

impl Event for Happened {
    const TOPIC: Topic<Self> = Topic::new("happenings");

    fn event_type(&self) -> &'static str {
        "Happened"
    }

    fn knows(event_type: &str) -> bool {
        event_type == "Happened"
    }

    /// Ten items are one aggregate.
    fn aggregate_id(&self) -> Cow<'_, str> {
        (self.item % 10).to_string().into()
    }
}

/// An event of any size.
#[derive(Debug, Serialize, Deserialize)]
pub struct Large {
    pub text: String,
}

impl Event for Large {
    const TOPIC: Topic<Self> = Topic::new("large");

    fn event_type(&self) -> &'static str {
        "Large"
    }

    fn knows(event_type: &str) -> bool {
        event_type == "Large"
    }

    fn aggregate_id(&self) -> Cow<'_, str> {
        "k".into()
    }
}

pub fn url(folder: &TempDir) -> String {
    database_url(folder.path())
}

pub async fn open(folder: &TempDir) -> Database {
    Database::open(&url(folder), SCHEMA).await.unwrap()
}

pub async fn ids(db: &Database) -> Vec<i64> {
    let rows = db
        .query("SELECT id FROM items ORDER BY id", params![])
        .await
        .unwrap();
    rows.iter().map(|row| row.get(0).unwrap()).collect()
}

/// The items in the outbox, in its order.
pub async fn outbox(db: &Database) -> Vec<i64> {
    let rows = db
        .query("SELECT value FROM ackwell_outbox ORDER BY id", params![])
        .await
        .unwrap();
    rows.iter()
        .map(|row| {
            let value: Vec<u8> = row.get(0).unwrap();
            serde_json::from_slice::<Happened>(&value).unwrap().item
        })
        .collect()
}
