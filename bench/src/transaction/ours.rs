//! Ackwell's side: an app with one listener and a database, all settings at their defaults.

use std::borrow::Cow;
use std::path::Path;
use std::time::Duration;

use ackwell::extract::{Event, State};
use ackwell::{App, Listener, Topic, TopicDeclaration};
use ackwell_sql::{Database, Migration, Tx, params};

use super::{ANSWERS, Requested, Reserved};
use crate::Outcome;
use crate::listener::{config, runtime, until_done};
use crate::meter::Meter;
use crate::target::Broker;

const MIGRATIONS: &[Migration] = &[Migration::new(
    "stock",
    "CREATE TABLE stock (product INTEGER PRIMARY KEY, reserved INTEGER NOT NULL) STRICT;
     WITH RECURSIVE products (id) AS (SELECT 0 UNION ALL SELECT id + 1 FROM products WHERE id < 99)
     INSERT INTO stock SELECT id, 0 FROM products;",
)];

/// Between two looks at what is committed.
const LOOK: Duration = Duration::from_millis(1);

pub(super) fn run(
    broker: &Broker,
    group: &str,
    topic: &str,
    database: &Path,
    meter: &'static Meter,
) -> Outcome<()> {
    let url = format!("sqlite:{}", database.display());
    let runtime = runtime()?;
    let database = runtime.block_on(Database::open(&url, MIGRATIONS))?;
    let listener = Listener::on(TopicDeclaration::named(topic.to_owned()))
        .group(group.to_owned())
        .handle(reserve);
    let app = App::new(config(broker))
        .named("bench")
        .state(database.clone())
        .state(meter)
        .listener(listener);
    until_done(&runtime, app, durable(database, meter))
}

/// Waits until every record's transaction is on disk: by hand it is before the next one begins.
async fn durable(database: Database, meter: &Meter) {
    meter.all().await;
    while database.counts().members < meter.expected() {
        tokio::time::sleep(LOOK).await;
    }
    meter.finish();
}

async fn reserve(
    Event(requested): Event<Requested>,
    State(meter): State<&'static Meter>,
    mut tx: Tx,
) -> Result<(), ackwell_sql::Error> {
    let Requested {
        order,
        product,
        quantity,
    } = requested;
    tx.execute(
        "UPDATE stock SET reserved = reserved + $2 WHERE product = $1",
        params![product, quantity],
    )
    .await?;
    tx.emit(&Reserved {
        order,
        product,
        quantity,
    })
    .await?;
    meter.count();
    Ok(())
}

impl ackwell::Event for Requested {
    const TOPIC: Topic<Self> = Topic::new("bench-requests");

    fn event_type(&self) -> &'static str {
        "StockRequested"
    }

    fn knows(event_type: &str) -> bool {
        event_type == "StockRequested"
    }

    fn aggregate_id(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.order)
    }
}

impl ackwell::Event for Reserved {
    const TOPIC: Topic<Self> = Topic::new(ANSWERS);

    fn event_type(&self) -> &'static str {
        "StockReserved"
    }

    fn knows(event_type: &str) -> bool {
        event_type == "StockReserved"
    }

    fn aggregate_id(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.order)
    }
}
