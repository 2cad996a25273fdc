//! Ackwell's side: an app with one listener and a database, all settings at their defaults.

use std::borrow::Cow;
use std::time::Duration;

use ackwell::extract::{Event, State};
use ackwell::{App, Listener, Topic, TopicDeclaration};
use ackwell_sql::{Database, Migration, Tx, params};

use super::store::Store;
use super::{ANSWERS, Requested, Reserved};
use crate::Outcome;
use crate::listener::{config, runtime, until_done};
use crate::meter::Meter;
use crate::target::Broker;

/// Between two looks at what is committed.
const LOOK: Duration = Duration::from_millis(1);

pub(super) fn run(
    broker: &Broker,
    group: &str,
    topic: &str,
    store: &Store,
    products: u64,
    meter: &'static Meter,
) -> Outcome<()> {
    let runtime = runtime()?;
    let stock = [Migration::new("stock", store.stock())];
    let database = runtime.block_on(open(store, &stock, products))?;
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

async fn open(store: &Store, stock: &[Migration], products: u64) -> Outcome<Database> {
    let database = Database::open(&store.url(), stock).await?;
    let mut tx = database.begin();
    for product in 0..products as i64 {
        tx.execute("INSERT INTO stock VALUES ($1, 0)", params![product])
            .await?;
    }
    tx.commit().await?;
    Ok(database)
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
