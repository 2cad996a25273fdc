//! The order system on three brokers of which some go away: the promise holds, and health says what is the matter.
//!
//! `scripts/three-brokers.sh` starts the cluster and runs this; the tests take turns on it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests fail as tests do, and say how long it took"
)]

mod system;

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use serde_json::{Value, json};
use system::{System, terminate, until};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// What the services send to each other.
const TOPICS: [&str; 2] = ["stock-valid-request", "stock-valid-response"];
const BROKERS: usize = 3;
/// How long a broker's answer is awaited.
const ANSWER: Duration = Duration::from_secs(5);
/// Between two orders of a customer: enough to have some in work at every moment.
const PAUSE: Duration = Duration::from_millis(30);
/// Orders of a customer that wait for their end: then it waits for one of them, so that a slow machine is not given
/// more than it can finish in time.
const WAITING_MAX: usize = 100;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs three brokers: scripts/three-brokers.sh"]
async fn a_leader_killed_under_load_is_replaced_and_the_services_go_on_without_it() {
    let mut shop = Shop::open(Cluster::start().await).await;
    let customer = shop.customer("killed");
    shop.confirmed(50).await;

    let leader = shop.cluster.leader().await;
    let killed = Instant::now();
    shop.cluster.order("kill", leader).await;
    let before = shop.count("CONFIRMED").await;
    shop.confirmed(before + 200).await;
    shop.ready().await;
    println!(
        "at work without broker {leader} after {:?}",
        killed.elapsed()
    );
    shop.close(vec![customer]).await;

    shop.cluster.order("restart", leader).await;
    shop.cluster.in_sync().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs three brokers: scripts/three-brokers.sh"]
async fn every_broker_is_restarted_under_load_and_no_order_is_lost_or_doubled() {
    let mut shop = Shop::open(Cluster::start().await).await;
    let customers = vec![shop.customer("first"), shop.customer("second")];
    for broker in 1..=BROKERS {
        shop.cluster.in_sync().await;
        shop.cluster.order("restart", broker).await;
        let before = shop.count("CONFIRMED").await;
        shop.confirmed(before + 50).await;
    }
    shop.cluster.in_sync().await;
    shop.ready().await;
    shop.close(customers).await;
}

/// With one broker away, topics that need all three can't be written to.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs three brokers: scripts/three-brokers.sh"]
async fn without_enough_in_sync_replicas_orders_wait_and_health_says_what_is_missing() {
    let cluster = Cluster::start().await;
    cluster.make_topics_that_need_all().await;
    let mut shop = Shop::open(cluster).await;
    let customer = shop.customer("waiting");
    shop.confirmed(20).await;

    let broker = shop.cluster.leader().await;
    shop.cluster.order("kill", broker).await;
    for service in shop.services() {
        let said = shop.unready(service, "replicas in sync and needs 3").await;
        println!("{said}");
        assert!(shop.is_alive(service).await, "a restart would not help");
    }
    let before = shop.count("CONFIRMED").await;
    shop.some_wait().await;
    assert_eq!(
        shop.count("CONFIRMED").await,
        before,
        "accepted, and waiting"
    );

    shop.cluster.order("restart", broker).await;
    shop.ready().await;
    shop.close(vec![customer]).await;
    shop.cluster.in_sync().await;
}

/// Two of three: no leader can be chosen, and the third knows of nothing.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs three brokers: scripts/three-brokers.sh"]
async fn without_a_majority_orders_wait_and_health_says_so_and_then_all_goes_on() {
    let mut shop = Shop::open(Cluster::start().await).await;
    let customer = shop.customer("patient");
    shop.confirmed(20).await;

    for broker in [1, 2] {
        shop.cluster.order("pause", broker).await;
    }
    for service in shop.services() {
        println!("{}", shop.unready(service, "").await);
        assert!(shop.is_alive(service).await, "a restart would not help");
    }
    shop.some_wait().await;

    for broker in [1, 2] {
        shop.cluster.order("continue", broker).await;
    }
    shop.ready().await;
    shop.close(vec![customer]).await;
    shop.cluster.in_sync().await;
}

/// A cluster of `scripts/kafka.sh`, emptied, and a folder for services on it.
struct Cluster {
    system: System,
    admin: AdminClient<DefaultClientContext>,
}

impl Cluster {
    async fn start() -> Self {
        let system = System::on_a_broker().await;
        let brokers = system.broker.split(',').count();
        assert_eq!(brokers, BROKERS, "KAFKA_BOOTSTRAP_SERVERS names {brokers}");
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &system.broker);
        let admin = config.create().unwrap();
        Self { system, admin }
    }

    /// Tells `scripts/kafka.sh` what to do to a broker; it knows the cluster by its first port.
    async fn order(&self, order: &str, broker: usize) {
        let first = self.system.broker.split(',').next().unwrap();
        let port = first.rsplit(':').next().unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/kafka.sh");
        let output = Command::new(script)
            .args([order, &broker.to_string(), port])
            .output()
            .await
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{order} {broker}: {said}");
    }

    async fn make_topics_that_need_all(&self) {
        let topics = TOPICS.map(|name| {
            NewTopic::new(name, 6, TopicReplication::Fixed(-1)).set("min.insync.replicas", "3")
        });
        let made = self.admin.create_topics(&topics, &AdminOptions::new());
        for made in made.await.unwrap() {
            made.unwrap();
        }
    }

    /// The broker that leads a partition of the requests.
    async fn leader(&self) -> usize {
        until(async || {
            let found = self.partitions();
            let leader = found?.first()?.0;
            usize::try_from(leader).ok()
        })
        .await
    }

    /// Waits until all three have everything, as one does before the next may be taken away.
    async fn in_sync(&self) {
        until(async || {
            let whole = |(leader, in_sync): &(i32, usize)| *leader > 0 && *in_sync == BROKERS;
            self.partitions()?.iter().all(whole).then_some(())
        })
        .await;
    }

    /// Of each partition the leader, and how many replicas are in sync; `None` if nobody answers.
    fn partitions(&self) -> Option<Vec<(i32, usize)>> {
        let fetch = || self.admin.inner().fetch_metadata(None, ANSWER);
        let metadata = tokio::task::block_in_place(fetch).ok()?;
        let mut topics: Vec<_> = metadata.topics().iter().collect();
        topics.sort_by_key(|topic| !TOPICS.contains(&topic.name()));
        let partitions = topics.into_iter().flat_map(|topic| topic.partitions());
        Some(
            partitions
                .map(|partition| (partition.leader(), partition.isr().len()))
                .collect(),
        )
    }
}

/// The services at work, with customers.
struct Shop {
    cluster: Cluster,
    processes: Vec<Child>,
}

impl Shop {
    async fn open(mut cluster: Cluster) -> Self {
        // Whose topics these tests look at.
        cluster.system.file("ackwell.toml", system::CHOREOGRAPHY);
        let (order, order_url) = cluster.system.serve("order").await;
        let (product, product_url) = cluster.system.serve("product").await;
        let (payment, _) = cluster.system.serve("payment").await;
        let (notification, _) = cluster.system.serve("notification").await;
        (cluster.system.order, cluster.system.product) = (order_url, product_url);
        cluster.system.put_product("cd-01", 1_000_000).await;
        Self {
            cluster,
            processes: vec![order, product, payment, notification],
        }
    }

    fn services(&self) -> [&str; 2] {
        [&self.cluster.system.order, &self.cluster.system.product]
    }

    /// Someone who orders one piece after the other until told to stop. Every order is accepted:
    /// what is away is behind the services.
    fn customer(&self, name: &'static str) -> Customer {
        let stop = CancellationToken::new();
        let (http, stopped) = (self.cluster.system.http.clone(), stop.clone());
        let url = format!("{}/orders", self.cluster.system.order);
        let orders = tokio::spawn(async move {
            let (mut placed, mut waiting) = (0, VecDeque::new());
            while !stopped.is_cancelled() {
                let oldest = match waiting.len() {
                    WAITING_MAX => waiting.pop_front(),
                    _ => None,
                };
                let order = match oldest {
                    None => {
                        placed += 1;
                        place(&http, &url, name, placed).await
                    }
                    Some(order) if is_final(&http, &format!("{url}/{order}")).await => continue,
                    // Those behind it may be final all the same.
                    Some(order) => order,
                };
                waiting.push_back(order);
                tokio::time::sleep(PAUSE).await;
            }
            placed
        });
        Customer { stop, orders }
    }

    /// How many orders have this status.
    async fn count(&self, status: &str) -> usize {
        let (mut count, mut after) = (0, String::new());
        loop {
            let url = format!(
                "{}/orders?limit=1000&status={status}&after={after}",
                self.cluster.system.order
            );
            let page = self.cluster.system.get(url).await;
            count += page["orders"].as_array().unwrap().len();
            match page["next"].as_str() {
                Some(next) => next.clone_into(&mut after),
                None => return count,
            }
        }
    }

    /// Waits until so many orders are confirmed.
    async fn confirmed(&self, count: usize) {
        until(async || (self.count("CONFIRMED").await >= count).then_some(())).await;
    }

    /// Waits until more orders have been accepted that are not confirmed, or as many as the one customer has.
    async fn some_wait(&self) {
        let enough = (self.count("PENDING").await + 20).min(WAITING_MAX);
        until(async || (self.count("PENDING").await >= enough).then_some(())).await;
    }

    async fn probe(&self, url: String) -> (u16, Value) {
        let response = self.cluster.system.http.get(url).send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    async fn is_alive(&self, service: &str) -> bool {
        self.probe(format!("{service}/healthz")).await.0 == 200
    }

    /// Waits until a service says that it is not ready, for a reason with this in it; what it says.
    async fn unready(&self, service: &str, part: &str) -> String {
        let since = Instant::now();
        let mut last = Value::Null;
        loop {
            let (status, said) = self.probe(format!("{service}/readyz")).await;
            let reasons = said["reasons"].to_string();
            if status == 503 && reasons.contains(part) {
                return format!("after {:?}: {reasons}", since.elapsed());
            }
            assert!(
                since.elapsed() < system::PATIENCE,
                "`{part}` is not in {reasons}, and was not in {last}"
            );
            last = said["reasons"].clone();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn ready(&self) {
        for service in self.services() {
            let url = format!("{service}/readyz");
            until(async || (self.probe(url.clone()).await.0 == 200).then_some(())).await;
        }
    }

    /// The customers stop, every order that they placed becomes confirmed, the books are clean, and
    /// the services stop.
    async fn close(&mut self, customers: Vec<Customer>) {
        let mut placed = 0;
        for customer in customers {
            customer.stop.cancel();
            placed += customer.orders.await.unwrap();
        }
        self.confirmed(placed).await;
        let books = self.cluster.system.clean_audit().await;
        assert_eq!(books["orders"]["total"], placed, "{books}");
        assert_eq!(books["orders"]["confirmed"], placed, "{books}");
        assert_eq!(books["confirmed_units"], books["units"]["reserved"]);
        println!("{placed} orders, each confirmed once");
        for mut process in self.processes.drain(..) {
            terminate(&process).await;
            assert!(process.wait().await.unwrap().success());
        }
    }
}

/// Orders one piece; the order's id.
async fn place(http: &reqwest::Client, url: &str, name: &str, number: usize) -> String {
    let request = http
        .post(url)
        .header("Idempotency-Key", format!("{name}-{number}"))
        .json(&json!({
            "customer_id": name,
            "items": [{"product_id": "cd-01", "quantity": 1, "unit_price": "1.00"}],
        }));
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 202);
    let order: Value = response.json().await.unwrap();
    order["order_id"].as_str().unwrap().to_owned()
}

async fn is_final(http: &reqwest::Client, url: &str) -> bool {
    let order: Value = http.get(url).send().await.unwrap().json().await.unwrap();
    order["status"] != "PENDING"
}

struct Customer {
    stop: CancellationToken,
    orders: JoinHandle<usize>,
}
