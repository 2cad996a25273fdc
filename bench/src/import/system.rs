//! The order system in its two forms: all in one process on the embedded broker and SQLite, and each
//! service alone on Apache Kafka and PostgreSQL.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::process::{Child, cpu, cpu_with_children, output};
use crate::server::{Apache, HOW, Postgres};
use crate::{Outcome, note};

/// The services that orders need, each with the setting that tells the others where it is.
const SERVICES: [(&str, &str); 4] = [
    ("order", "ORDERS_ORDER_URL"),
    ("product", "ORDERS_PRODUCT_URL"),
    ("payment", "ORDERS_PAYMENT_URL"),
    ("notification", "ORDERS_NOTIFICATION_URL"),
];

pub(super) struct System {
    orders: PathBuf,
    data: String,
    /// What `orders` has to know besides, in each of its commands.
    environment: Vec<(&'static str, String)>,
    parts: Vec<(&'static str, Child)>,
    /// Dropped, and with that stopped, after the parts that need them.
    servers: Option<(Apache, Postgres)>,
}

impl System {
    /// Everything in one process.
    pub(super) fn embedded(orders: PathBuf, data: &Path) -> Outcome<Self> {
        note("starting orders");
        let mut system = Self::empty(orders, data, None)?;
        system.start("orders", &["all"])?;
        Ok(system)
    }

    /// One process for each service, on servers that are started for it.
    pub(super) fn cluster(orders: PathBuf, data: &Path) -> Outcome<Self> {
        note("starting Apache Kafka and PostgreSQL");
        let servers = (Apache::start("")?, Postgres::start()?);
        let bootstrap = servers.0.broker.address().to_owned();
        let database = servers.1.url().to_owned();
        let mut system = Self::empty(orders, data, Some(servers))?;
        system.environment = vec![
            ("KAFKA_BOOTSTRAP_SERVERS", bootstrap),
            ("DATABASE_URL", database),
        ];
        for (service, place) in SERVICES {
            note(&format!("starting the {service} service"));
            let port = format!("--{service}-port=0");
            let address = system.start(service, &["serve", service, &port])?;
            system
                .environment
                .push((place, format!("http://{address}")));
        }
        Ok(system)
    }

    fn empty(orders: PathBuf, data: &Path, servers: Option<(Apache, Postgres)>) -> Outcome<Self> {
        let data = data.to_str().ok_or("the data folder's name is not text")?;
        Ok(System {
            orders,
            data: data.to_owned(),
            environment: Vec::new(),
            parts: Vec::new(),
            servers,
        })
    }

    /// Starts a process of it; returns the second address that it names. The first is the broker's.
    fn start(&mut self, name: &'static str, arguments: &[&str]) -> Outcome<String> {
        let arguments = [arguments, &["--data", &self.data]].concat();
        let child = Child::start(&self.orders, &arguments, &self.environment, 2)?;
        let address = child.addresses().get(1).map(ToString::to_string);
        self.parts.push((name, child));
        address.ok_or_else(|| format!("{name} named no address").into())
    }

    /// Runs `orders import` or `orders audit` against it; returns whether that ended well, and what
    /// was printed.
    pub(super) fn run(&self, command: &str, arguments: &[&str]) -> Outcome<(bool, String)> {
        let arguments = [&[command], arguments, &["--data", &self.data]].concat();
        output(&self.orders, &arguments, &self.environment)
    }

    /// Its own processes, without the servers.
    pub(super) fn processes(&self) -> Vec<u32> {
        self.parts.iter().map(|(_, child)| child.id()).collect()
    }

    /// CPU time so far, of each process and server.
    pub(super) fn cpu(&self) -> Outcome<Vec<(&'static str, Duration)>> {
        let own = self
            .parts
            .iter()
            .map(|(name, child)| (*name, cpu(child.id())));
        let servers = self.servers.iter().flat_map(|(apache, postgres)| {
            [
                ("Apache Kafka", cpu(apache.process)),
                ("PostgreSQL", cpu_with_children(postgres.process())),
            ]
        });
        own.chain(servers)
            .map(|(name, cpu)| Ok((name, cpu?)))
            .collect()
    }

    /// Its form, for a report.
    pub(super) fn form(&self) -> String {
        match self.servers {
            None => "orders all in one process, SQLite, embedded broker".to_owned(),
            Some(_) => format!("a process for each service, PostgreSQL, Apache Kafka {HOW}"),
        }
    }

    pub(super) fn stop(self) -> Outcome<()> {
        for (_, child) in self.parts {
            child.stop()?;
        }
        Ok(())
    }
}
