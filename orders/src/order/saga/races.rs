//! What happens at the same time, or in the wrong order, driven on purpose. A payment that succeeds after its
//! timeout is tried on the whole system (`orders/tests/orders_saga.rs`), two monitors on one deadline by the
//! framework (`crates/sql/tests/sql_sagas.rs`).

use std::time::Duration;

use ackwell::Config;
use ackwell::observe::{Health, Kind, Metrics};
use ackwell::service::{Service, ServiceContext};
use ackwell_sql::saga::{Answer, Refusal, Resolution, Status as SagaStatus};
use ackwell_sql::{Database, params};
use jiff::Timestamp;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{OrderSaga, OrderSagas};
use crate::config::{Flow, Orders};
use crate::error::Error;
use crate::events::payment::PaymentMethod;
use crate::events::saga_id;
use crate::money::Cents;
use crate::order::request::NewOrder;
use crate::order::store::{self, Advanced};
use crate::order::{Input, Item, Status, order_id};

const SOON: u64 = 20;
const LONG: u64 = 3_600_000;
const LIMIT: Duration = Duration::from_secs(60);

/// An order service without its listeners: the test says what comes in.
struct Shop {
    _folder: TempDir,
    db: Database,
    sagas: OrderSagas,
    order: Uuid,
}

impl Shop {
    /// With one order in flow B.
    async fn with_an_order(confirmation_timeout_ms: u64) -> Self {
        let orders = Orders {
            reservation_timeout_ms: LONG,
            payment_timeout_ms: LONG,
            confirmation_timeout_ms,
            ..Orders::default()
        };
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("order.db").display());
        let db = Database::open(&url, store::MIGRATIONS).await.unwrap();
        let sagas = OrderSagas::new(OrderSaga::new(&orders)).unwrap();
        let unit_price = "1.50".parse().unwrap();
        let order = NewOrder {
            customer_id: "7".to_owned(),
            items: vec![Item {
                product_id: "cd-01".to_owned(),
                quantity: 2,
                unit_price,
            }],
            total: Cents::total([(2, unit_price)]).unwrap(),
            payment_method: PaymentMethod::Card,
        };
        let mut tx = db.begin();
        let at = Timestamp::now();
        store::place(&mut tx, "k", &order, Flow::Saga, &sagas, at)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        Self {
            _folder: folder,
            db,
            sagas,
            order: order_id("k"),
        }
    }

    async fn hears(&self, event_type: &str) -> Answer {
        let mut tx = self.db.begin();
        let id = saga_id(self.order);
        let answer = self.sagas.reply(&mut tx, id, event_type, None).await;
        tx.commit().await.unwrap();
        answer.unwrap()
    }

    /// The order service carries out the saga's last command.
    async fn confirms(&self) -> Advanced {
        let mut tx = self.db.begin();
        let (at, cause) = (Timestamp::now(), Some(Uuid::now_v7()));
        let input = Input::SagaConfirms;
        let advanced = store::advance(&mut tx, self.order, input, None, at, cause).await;
        tx.commit().await.unwrap();
        advanced.unwrap()
    }

    async fn resolved(&self, resolution: Resolution) -> Result<Answer, Error> {
        let mut tx = self.db.begin();
        let id = saga_id(self.order);
        let answer = self
            .sagas
            .resolve(&mut tx, id, resolution, "looked at")
            .await?;
        tx.commit().await?;
        Ok(answer)
    }

    async fn cancelled(&self) -> Answer {
        let mut tx = self.db.begin();
        let id = saga_id(self.order);
        let answer = self.sagas.cancel(&mut tx, id, "changed my mind").await;
        tx.commit().await.unwrap();
        answer.unwrap()
    }

    async fn status(&self) -> (Status, SagaStatus) {
        let order = store::order(&self.db, self.order).await.unwrap().unwrap();
        let saga = self.sagas.view(&self.db, saga_id(self.order)).await;
        let phase = saga.unwrap().unwrap().summary.phase;
        (order.status, phase.status())
    }

    /// Lets deadlines fire until the saga has this status.
    async fn watched_until(&self, status: SagaStatus) {
        let stop = CancellationToken::new();
        let reporter = Health::default().add(Kind::Service, "sagas");
        let cx =
            ServiceContext::detached(Config::default(), Metrics::new(), reporter, stop.clone());
        let monitor = Box::new(self.sagas.monitor(self.db.clone()));
        let task = tokio::spawn(monitor.run(cx));
        let waiting = async {
            while self.status().await.1 != status {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(LIMIT, waiting).await.unwrap();
        stop.cancel();
        task.await.unwrap().unwrap();
    }

    /// Stock and money are there, and nobody has confirmed the order in time.
    async fn in_review() -> Self {
        let service = Self::with_an_order(SOON).await;
        service.hears("InventoryReserved").await;
        service.hears("PaymentCharged").await;
        service.watched_until(SagaStatus::ManualReview).await;
        service
    }

    async fn sent(&self) -> Vec<String> {
        let sql = "SELECT value FROM ackwell_outbox WHERE topic <> 'saga-events' ORDER BY id";
        let rows = self.db.query(sql, params![]).await.unwrap();
        let event_type = |row: &ackwell_sql::Row| {
            let value: Vec<u8> = row.get(0).unwrap();
            let value: serde_json::Value = serde_json::from_slice(&value).unwrap();
            value["event_type"].as_str().unwrap().to_owned()
        };
        rows.iter().map(event_type).collect()
    }
}

#[tokio::test]
async fn a_confirmation_that_comes_after_its_timeout_ends_the_review() {
    let service = Shop::in_review().await;
    assert_eq!(service.status().await.0, Status::ManualReview);
    assert_eq!(service.confirms().await, Advanced::To(Status::Confirmed));
    service.hears("OrderConfirmed").await;
    let ended = (Status::Confirmed, SagaStatus::Completed);
    assert_eq!(service.status().await, ended);
    let order = store::order(&service.db, service.order).await.unwrap();
    let states: Vec<_> = order
        .unwrap()
        .history
        .iter()
        .map(|change| change.status)
        .collect();
    assert!(Status::is_legal_history(&states), "{states:?}");
}

#[tokio::test]
async fn a_review_is_confirmed_by_hand() {
    let service = Shop::in_review().await;
    service.resolved(Resolution::Confirm).await.unwrap();
    assert_eq!(service.sent().await.last().unwrap(), "ConfirmOrder");
    assert_eq!(service.confirms().await, Advanced::To(Status::Confirmed));
    service.hears("OrderConfirmed").await;
    let ended = (Status::Confirmed, SagaStatus::Completed);
    assert_eq!(service.status().await, ended);
}

#[tokio::test]
async fn a_review_is_cancelled_by_hand_and_a_confirmation_on_its_way_changes_nothing() {
    let service = Shop::in_review().await;
    service.resolved(Resolution::Cancel).await.unwrap();
    let late = service.confirms().await;
    assert_eq!(late, Advanced::TooLate(Status::Cancelled));
    service.hears("PaymentRefunded").await;
    service.hears("InventoryReleased").await;
    let ended = (Status::Cancelled, SagaStatus::Compensated);
    assert_eq!(service.status().await, ended);
}

#[tokio::test]
async fn an_order_that_was_confirmed_meanwhile_is_not_cancelled_by_hand() {
    let service = Shop::in_review().await;
    service.confirms().await;
    let refused = service.resolved(Resolution::Cancel).await;
    assert!(matches!(refused, Err(Error::Overtaken(_))), "{refused:?}");
    service.hears("OrderConfirmed").await;
    let ended = (Status::Confirmed, SagaStatus::Completed);
    assert_eq!(service.status().await, ended);
}

#[tokio::test]
async fn cancelled_before_the_reservation_it_is_released_and_a_late_reservation_again() {
    let service = Shop::with_an_order(LONG).await;
    let cancelled = service.cancelled().await;
    assert_eq!(cancelled, Answer::Moved(SagaStatus::Compensating));
    assert_eq!(service.status().await.0, Status::Cancelled);
    service.hears("InventoryReleased").await;
    assert_eq!(service.status().await.1, SagaStatus::Compensated);
    // A product service without a mark would say this now.
    service.hears("InventoryReserved").await;
    let sent = service.sent().await;
    let releases = sent.iter().filter(|sent| *sent == "ReleaseInventory");
    assert_eq!(releases.count(), 2, "{sent:?}");
}

#[tokio::test]
async fn a_cancel_that_comes_after_the_last_command_is_refused() {
    let service = Shop::with_an_order(LONG).await;
    service.hears("InventoryReserved").await;
    service.hears("PaymentCharged").await;
    assert_eq!(
        service.cancelled().await,
        Answer::Refused(Refusal::PastReturn)
    );
    assert_eq!(service.status().await.0, Status::Pending);
}
