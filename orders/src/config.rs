//! The settings of the order system: section `[orders]`, beside those of every service.
//!
//! Whether Kafka was named decides whether the embedded broker is started, so it is
//! asked of the settings themselves: a default is not an answer.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ackwell::config::{self, Config, Problem, Sources};
use serde::Deserialize;

use crate::money::Cents;

/// Section `[orders]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Orders {
    /// `ORDERS_HOST`: where the services listen; loopback, unless told otherwise.
    pub(crate) host: String,
    /// `ORDERS_ORDER_PORT`; 0 picks a free one.
    pub(crate) order_port: u16,
    /// `ORDERS_PRODUCT_PORT`; 0 picks a free one.
    pub(crate) product_port: u16,
    /// `ORDERS_PAYMENT_PORT`; 0 picks a free one.
    pub(crate) payment_port: u16,
    /// `ORDERS_USER_PORT`; 0 picks a free one.
    pub(crate) user_port: u16,
    /// `ORDERS_NOTIFICATION_PORT`; 0 picks a free one.
    pub(crate) notification_port: u16,
    /// `ORDERS_BROKER_PORT`: the embedded broker's, on loopback; 0 picks a free one.
    pub(crate) broker_port: u16,
    /// `ORDERS_ORDER_URL`: where the import finds the order service.
    pub(crate) order_url: Option<String>,
    /// `ORDERS_PRODUCT_URL`: where the import finds the product service.
    pub(crate) product_url: Option<String>,
    /// `ORDERS_FLOW`: which way new orders go; those on their way stay on theirs.
    pub(crate) flow: Flow,
    /// `ORDERS_RESERVATION_TIMEOUT_MS`: how long a saga waits for stock before it cancels the order; 5 min. Orders
    /// that are accepted faster than they are worked on wait here, and waiting is no reason to cancel them.
    pub(crate) reservation_timeout_ms: u64,
    /// `ORDERS_PAYMENT_TIMEOUT_MS`: how long a saga waits for the payment before it cancels the order and has
    /// refunded what may have been charged; 60 s.
    pub(crate) payment_timeout_ms: u64,
    /// `ORDERS_CONFIRMATION_TIMEOUT_MS`: how long a saga waits for the confirmation before a person must decide;
    /// 60 s.
    pub(crate) confirmation_timeout_ms: u64,
    /// `ORDERS_SAGA_RETENTION_DAYS`: how long a finished saga is kept with its history; 30. The order itself is kept.
    pub(crate) saga_retention_days: u32,
    /// `PAYMENT_LIMIT`: up to which amount the simulated gateway approves a card.
    pub(crate) payment_limit: Cents,
    /// `ORDERS_SLOW_PAYMENT_MS`: how long the simulated gateway takes for the payment method `slow`; 90 s, longer
    /// than the payment's timeout, which is what the method is there to show.
    pub(crate) slow_payment_ms: u64,
}

impl Orders {
    /// Whether payments by the method `slow`, which are there to come after their timeout, come before it.
    pub(crate) fn slow_payment_is_in_time(&self) -> bool {
        self.slow_payment_ms <= self.payment_timeout_ms
    }

    /// How long a finished saga is kept.
    pub(crate) fn saga_retention(&self) -> Duration {
        Duration::from_secs(u64::from(self.saga_retention_days) * 24 * 3600)
    }
}

/// Which way an order goes to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Flow {
    /// Flow A: order service and product service speak with each other.
    Choreography,
    /// Flow B: a saga reserves, charges and confirms.
    Saga,
}

impl Flow {
    /// The word for the setting and for the database.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Choreography => "choreography",
            Self::Saga => "saga",
        }
    }

    /// The flow with this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        [Self::Choreography, Self::Saga]
            .into_iter()
            .find(|flow| flow.name() == name)
    }
}

impl Default for Orders {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            order_port: 8080,
            product_port: 8081,
            payment_port: 8082,
            user_port: 8083,
            notification_port: 8084,
            broker_port: 9092,
            order_url: None,
            product_url: None,
            flow: Flow::Saga,
            reservation_timeout_ms: 300_000,
            payment_timeout_ms: 60_000,
            confirmation_timeout_ms: 60_000,
            saga_retention_days: 30,
            payment_limit: Cents::from_stored(1_000_000),
            slow_payment_ms: 90_000,
        }
    }
}

/// A flag that stands for a setting: the setting, the flag, its value.
pub(crate) type Flag = (&'static str, &'static str, Option<String>);

/// Variables of the interface, and the settings that they stand for.
pub(crate) const VARIABLES: [(&str, &str); 16] = [
    ("ORDERS_HOST", "orders.host"),
    ("ORDERS_ORDER_PORT", "orders.order_port"),
    ("ORDERS_PRODUCT_PORT", "orders.product_port"),
    ("ORDERS_PAYMENT_PORT", "orders.payment_port"),
    ("ORDERS_USER_PORT", "orders.user_port"),
    ("ORDERS_NOTIFICATION_PORT", "orders.notification_port"),
    ("ORDERS_BROKER_PORT", "orders.broker_port"),
    ("ORDERS_ORDER_URL", "orders.order_url"),
    ("ORDERS_PRODUCT_URL", "orders.product_url"),
    ("ORDERS_FLOW", "orders.flow"),
    (
        "ORDERS_RESERVATION_TIMEOUT_MS",
        "orders.reservation_timeout_ms",
    ),
    ("ORDERS_PAYMENT_TIMEOUT_MS", "orders.payment_timeout_ms"),
    (
        "ORDERS_CONFIRMATION_TIMEOUT_MS",
        "orders.confirmation_timeout_ms",
    ),
    ("ORDERS_SAGA_RETENTION_DAYS", "orders.saga_retention_days"),
    ("PAYMENT_LIMIT", "orders.payment_limit"),
    ("ORDERS_SLOW_PAYMENT_MS", "orders.slow_payment_ms"),
];

/// All settings, checked.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// What every service needs to know.
    pub(crate) service: Config,
    /// What this program needs to know.
    pub(crate) orders: Orders,
    /// Whether a Kafka was named; otherwise the embedded broker is started.
    pub(crate) kafka_named: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Named {
    bootstrap_servers: Option<String>,
}

impl Settings {
    /// Reads the file, the environment and `flags`.
    ///
    /// # Errors
    /// When a setting is unknown, malformed or contradicts another.
    pub(crate) fn load(file: Option<PathBuf>, flags: Vec<Flag>) -> Result<Self, config::Error> {
        let sources = file.into_iter().fold(Sources::new(), Sources::file);
        Self::from_sources(sources, flags)
    }

    pub(crate) fn from_sources(sources: Sources, flags: Vec<Flag>) -> Result<Self, config::Error> {
        let sources = VARIABLES
            .into_iter()
            .fold(sources, |sources, (name, key)| sources.variable(name, key));
        let sources = flags
            .into_iter()
            .fold(sources, |sources, (key, flag, value)| match value {
                Some(value) => sources.set(key, value, flag),
                None => sources,
            });
        let mut settings = sources.read()?;
        let service = settings.config()?;
        let orders = settings.section("orders")?;
        let named: Named = settings.section("kafka")?;
        settings.finish()?;
        Ok(Self {
            service,
            orders,
            kafka_named: named.bootstrap_servers.is_some(),
        })
    }

    /// The database of the service called `name`. On a server it is a schema of its own.
    pub(crate) fn database_url(&self, name: &str) -> String {
        let file = || {
            format!(
                "sqlite:{}",
                self.service.data.join(format!("{name}.db")).display()
            )
        };
        match &self.service.database.url {
            None => file(),
            Some(url) if is_server(url) => in_schema(url, &format!("{name}_service")),
            Some(url) => url.clone(),
        }
    }

    /// Refuses one file for several services: each owns its own.
    ///
    /// # Errors
    /// When `database.url` names a file.
    pub(crate) fn refuse_one_database(&self) -> Result<(), config::Error> {
        let Some(url) = &self.service.database.url else {
            return Ok(());
        };
        if is_server(url) {
            return Ok(());
        }
        let what = format!("`{url}` is one database, and each service owns its own");
        let problem = Problem::new("database.url", what)
            .mend("remove it (each service keeps a file in the data folder), name a PostgreSQL server, or run each by `orders serve`");
        Err(problem.into())
    }

    /// Notes where the embedded broker listens, for the audit: its port may have been picked.
    ///
    /// # Errors
    /// When the data folder can't be written to.
    pub(crate) fn note_broker(&self, address: SocketAddr) -> io::Result<()> {
        std::fs::write(self.broker_note(), address.to_string())
    }

    /// Where the embedded broker of a running `orders` on this data folder listens.
    pub(crate) fn noted_broker(&self) -> String {
        let noted = std::fs::read_to_string(self.broker_note()).ok();
        let address: Option<SocketAddr> = noted.and_then(|text| text.trim().parse().ok());
        address.map_or_else(
            || format!("127.0.0.1:{}", self.orders.broker_port),
            |address| address.to_string(),
        )
    }

    fn broker_note(&self) -> PathBuf {
        self.service.data.join("broker.address")
    }

    /// Where the order service is reached from this machine.
    pub(crate) fn order_url(&self) -> String {
        self.orders
            .order_url
            .clone()
            .unwrap_or_else(|| self.local(self.orders.order_port))
    }

    /// Where the product service is reached from this machine.
    pub(crate) fn product_url(&self) -> String {
        self.orders
            .product_url
            .clone()
            .unwrap_or_else(|| self.local(self.orders.product_port))
    }

    fn local(&self, port: u16) -> String {
        let host = match self.orders.host.as_str() {
            "0.0.0.0" | "::" | "[::]" => "127.0.0.1",
            host => host,
        };
        format!("http://{host}:{port}")
    }
}

fn is_server(url: &str) -> bool {
    url.starts_with("postgres://") || url.starts_with("postgresql://")
}

/// The URL with this schema. One that it names already tells several systems on a server apart, and
/// comes before it.
fn in_schema(url: &str, schema: &str) -> String {
    let (address, parameters) = url.split_once('?').unwrap_or((url, ""));
    let mut schema = schema.to_owned();
    let mut kept = Vec::new();
    for parameter in parameters.split('&').filter(|text| !text.is_empty()) {
        match parameter.strip_prefix("schema=") {
            Some(system) => schema = format!("{system}_{schema}"),
            None => kept.push(parameter),
        }
    }
    let schema = format!("schema={schema}");
    kept.push(&schema);
    format!("{address}?{}", kept.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(environment: &[(&str, &str)], flags: Vec<Flag>) -> Result<Settings, config::Error> {
        Settings::from_sources(
            Sources::new().with_environment(environment.iter().copied()),
            flags,
        )
    }

    #[test]
    fn without_settings_everything_runs_here() {
        let settings = with(&[], vec![]).unwrap();
        assert_eq!(settings.orders, Orders::default());
        assert!(!settings.kafka_named);
        assert_eq!(settings.order_url(), "http://127.0.0.1:8080");
        assert_eq!(
            settings.database_url("order"),
            "sqlite:./ackwell-data/order.db"
        );
    }

    #[test]
    fn naming_kafka_switches_the_embedded_broker_off_even_at_its_own_address() {
        let settings = with(&[("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9092")], vec![]).unwrap();
        assert!(settings.kafka_named);
    }

    #[test]
    fn flags_beat_the_environment() {
        let flag = ("orders.order_port", "--order-port", Some("0".to_owned()));
        let settings = with(
            &[("ORDERS_ORDER_PORT", "9"), ("ORDERS_PRODUCT_PORT", "7")],
            vec![flag],
        )
        .unwrap();
        assert_eq!(
            (settings.orders.order_port, settings.orders.product_port),
            (0, 7)
        );
    }

    #[test]
    fn the_limit_of_payments_is_an_exact_amount_and_the_flow_a_name() {
        let settings = with(
            &[("PAYMENT_LIMIT", "300.00"), ("ORDERS_FLOW", "saga")],
            vec![],
        )
        .unwrap();
        assert_eq!(settings.orders.payment_limit.to_string(), "300.00");
        assert_eq!(settings.orders.flow, Flow::Saga);
        for (name, value) in [("PAYMENT_LIMIT", "much"), ("ORDERS_FLOW", "both")] {
            let refused = with(&[(name, value)], vec![]).unwrap_err().to_string();
            assert!(refused.contains("orders."), "{refused}");
        }
    }

    #[test]
    fn a_slow_payment_comes_after_the_timeout_unless_a_setting_says_otherwise() {
        assert!(!Orders::default().slow_payment_is_in_time());
        let settings = with(&[("ORDERS_SLOW_PAYMENT_MS", "5000")], vec![]).unwrap();
        assert!(settings.orders.slow_payment_is_in_time());
    }

    #[test]
    fn unknown_and_malformed_settings_are_refused_by_name() {
        let unknown = with(&[("ACKWELL_ORDERS__ODER_PORT", "1")], vec![])
            .unwrap_err()
            .to_string();
        assert!(
            unknown.contains("orders.oder_port") && unknown.contains("order_port"),
            "{unknown}"
        );
        let malformed = with(&[("ORDERS_ORDER_PORT", "70000")], vec![])
            .unwrap_err()
            .to_string();
        assert!(malformed.contains("orders.order_port"), "{malformed}");
    }

    #[test]
    fn one_database_is_not_shared_by_two_services() {
        let settings = with(&[("DATABASE_URL", "sqlite:one.db")], vec![]).unwrap();
        assert!(
            settings
                .refuse_one_database()
                .unwrap_err()
                .to_string()
                .contains("each service owns its own")
        );
        assert_eq!(settings.database_url("order"), "sqlite:one.db");
    }

    #[test]
    fn on_a_server_each_service_has_a_schema_of_its_own() {
        let url = |url| {
            let settings = with(&[("DATABASE_URL", url)], vec![]).unwrap();
            settings.refuse_one_database().unwrap();
            ["order", "product"].map(|name| settings.database_url(name))
        };
        assert_eq!(
            url("postgres://u:p@db/shop"),
            [
                "postgres://u:p@db/shop?schema=order_service",
                "postgres://u:p@db/shop?schema=product_service"
            ]
        );
        assert_eq!(
            url("postgresql://db/shop?schema=blue&connect_timeout=3")[0],
            "postgresql://db/shop?connect_timeout=3&schema=blue_order_service"
        );
    }
}
