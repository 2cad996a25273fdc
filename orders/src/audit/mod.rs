//! `orders audit`: are the books right?
//!
//! The databases, the gateway's ledger and the topics are read and compared, order by
//! order and product by product. The services may run meanwhile: only orders that were accepted before
//! the audit began are judged, those in flight are given time to settle, and places
//! are read against the stream (topics, then the other databases, then `order.db`), so that
//! whatever is seen has its cause in what is read after it.
//!
//! Memory is bounded: orders are judged in passes, each over a share of the ids.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ackwell::config::Kafka;
use ackwell::reader::ReadError;
use ackwell_broker::Broker;
use ackwell_sql::Database;
use uuid::Uuid;

use self::facts::Facts;
use self::report::Report;
use crate::config::Settings;
use crate::error::Error;
use crate::order::Status;
use crate::{notification, order, payment, product};

mod accounts;
mod books;
mod ending;
mod facts;
mod money;
pub(crate) mod report;
mod topics;
mod trail;

/// Orders judged in one pass, some 150 MiB of facts.
const ORDERS_A_PASS: i64 = 200_000;
/// The pause before looking again at what may still settle.
const PAUSE: Duration = Duration::from_millis(250);

/// Why the books could not be checked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuditError {
    /// Nothing there.
    #[error("there is no {}: nothing to audit. Another data folder is named by --data or ACKWELL_DATA", .0.display())]
    Nothing(PathBuf),
    /// A database can't be read.
    #[error(transparent)]
    Database(#[from] Error),
    /// A topic can't be read.
    #[error(transparent)]
    Topic(#[from] ReadError),
    /// The embedded broker does not start on the data folder.
    #[error("starting the broker on the data folder")]
    Broker(#[from] ackwell_broker::Error),
    /// A blocking task was lost.
    #[error("reading the topics was broken off")]
    Lost(#[from] tokio::task::JoinError),
}

impl From<ackwell_sql::Error> for AuditError {
    fn from(error: ackwell_sql::Error) -> Self {
        Self::Database(error.into())
    }
}

/// Checks the books; orders in flight have until `settle` to become final.
///
/// # Errors
/// [`AuditError`] when they can't be read. That they differ is no error.
pub(crate) async fn run(settings: &Settings, settle: Duration) -> Result<Report, AuditError> {
    let orders = open(settings, "order", order::store::MIGRATIONS).await?;
    let products = open(settings, "product", product::store::MIGRATIONS).await?;
    let (kafka, broker) = reach_broker(settings).await?;
    let audit = Audit {
        cutoff: books::last_order(&orders).await?,
        orders,
        products,
        payments: open(settings, "payment", payment::store::MIGRATIONS).await?,
        ledger: open(settings, "gateway", payment::simulated::MIGRATIONS).await?,
        notifications: open(settings, "notification", notification::store::MIGRATIONS).await?,
        kafka,
    };
    let outcome = audit
        .settled(Instant::now() + settle, broker.is_none())
        .await;
    if let Some(broker) = broker {
        broker.shutdown().await?;
    }
    outcome
}

async fn open(
    settings: &Settings,
    name: &str,
    migrations: &[ackwell_sql::Migration],
) -> Result<Database, AuditError> {
    let file = settings.service.data.join(format!("{name}.db"));
    if settings.service.database.url.is_none() && !file.exists() {
        return Err(AuditError::Nothing(file));
    }
    Ok(Database::open(&settings.database_url(name), migrations).await?)
}

/// Where the topics are: on the Kafka that was named, on the embedded broker of a running
/// `orders`, or in the data folder of one that does not run; then a broker is started on it.
async fn reach_broker(settings: &Settings) -> Result<(Kafka, Option<Broker>), AuditError> {
    let kafka = settings.service.kafka.clone();
    if settings.kafka_named {
        return Ok((kafka, None));
    }
    let mut config = ackwell_broker::Config::new(settings.service.data.join("broker"));
    config.listen = "127.0.0.1:0".to_owned();
    match Broker::start(config).await {
        Ok(broker) => {
            let bootstrap_servers = broker.local_addr().to_string();
            Ok((
                Kafka {
                    bootstrap_servers,
                    ..kafka
                },
                Some(broker),
            ))
        }
        Err(error) if error.is_folder_in_use() => {
            let bootstrap_servers = settings.noted_broker();
            Ok((
                Kafka {
                    bootstrap_servers,
                    ..kafka
                },
                None,
            ))
        }
        Err(error) => Err(error.into()),
    }
}

struct Audit {
    orders: Database,
    products: Database,
    payments: Database,
    ledger: Database,
    notifications: Database,
    kafka: Kafka,
    /// The last order that is judged.
    cutoff: i64,
}

impl Audit {
    /// Checks until the books are clean or the time to settle is over. Where nothing
    /// runs, nothing settles.
    async fn settled(&self, deadline: Instant, alive: bool) -> Result<Report, AuditError> {
        let over = || !alive || Instant::now() >= deadline;
        while !over() && books::pending(&self.orders, self.cutoff).await? > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        loop {
            let report = self.check().await?;
            if report.is_clean() || over() {
                return Ok(report);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn check(&self) -> Result<Report, AuditError> {
        let mut report = Report::default();
        let passes = u128::try_from(self.cutoff / ORDERS_A_PASS + 1).unwrap_or(1);
        for pass in 0..passes {
            self.judge(Share { pass, passes }, &mut report).await?;
        }
        for sentence in books::applied_twice(&self.orders, &self.products).await? {
            report.differ(sentence);
        }
        for shelf in books::shelves(&self.products).await? {
            report.products += 1;
            report.units.stocked += shelf.stocked;
            report.units.stock += shelf.stock;
            report.units.reserved += shelf.reserved;
            shelf
                .differences()
                .into_iter()
                .for_each(|sentence| report.differ(sentence));
        }
        Ok(report.close())
    }

    /// Judges the orders of one share.
    async fn judge(&self, share: Share, report: &mut Report) -> Result<(), AuditError> {
        let (kafka, facts) = (self.kafka.clone(), HashMap::new());
        let reading = tokio::task::spawn_blocking(move || trail::read(&kafka, share, facts));
        let (mut facts, trail) = reading.await??;
        self.read_accounts(share, &mut facts, report).await?;
        books::reservations(&self.products, |order, reservation| {
            if share.has(order) {
                facts.entry(order).or_default().reservation = Some(reservation);
            }
        })
        .await?;
        books::orders(&self.orders, |order| {
            if !share.has(order.order_id) {
                return;
            }
            let known = facts.entry(order.order_id).or_default();
            if order.seq > self.cutoff {
                known.newer = true;
                return;
            }
            known.order = Some(order.fact);
            report.orders.count(order.fact.status);
            if order.fact.status == Status::Confirmed {
                report.confirmed_units += order.units;
                report.confirmed_total = report.confirmed_total.plus(order.total);
            }
            report.differ_on(order.order_id, order.differences);
        })
        .await?;
        let whole = trail.whole();
        for (order, facts) in &facts {
            report.differ_on(order, facts.differences(whole));
        }
        if share.pass == 0 {
            trail.note(report);
        }
        Ok(())
    }

    /// Payment, ledger and notification: against the stream, too.
    async fn read_accounts(
        &self,
        share: Share,
        facts: &mut HashMap<Uuid, Facts>,
        report: &mut Report,
    ) -> Result<(), AuditError> {
        let mut of = |order: Uuid, note: &mut dyn FnMut(&mut Facts)| {
            if share.has(order) {
                note(facts.entry(order).or_default());
            }
        };
        accounts::notifications(&self.notifications, |order, kind| {
            of(order, &mut |facts| *facts.ending.told.of(kind) = true);
        })
        .await?;
        accounts::shipments(&self.notifications, |order, items| {
            of(order, &mut |facts| facts.ending.shipment = Some(items));
        })
        .await?;
        accounts::payments(&self.payments, |order, payment| {
            of(order, &mut |facts| facts.money.payment = Some(payment));
        })
        .await?;
        accounts::ledger(&self.ledger, |booked| {
            of(booked.order_id, &mut |facts| {
                facts
                    .money
                    .ledger
                    .book(booked.charge_id, booked.amount, booked.refunded);
                report.charged = report.charged.plus(booked.amount);
                report.refunded = report.refunded.plus(booked.refunded.unwrap_or_default());
            });
        })
        .await?;
        Ok(())
    }
}

/// The orders of one pass. Ids are spread evenly, so their remainders are fair shares.
#[derive(Debug, Clone, Copy)]
struct Share {
    pass: u128,
    passes: u128,
}

impl Share {
    fn has(self, order: Uuid) -> bool {
        order.as_u128() % self.passes == self.pass
    }
}
