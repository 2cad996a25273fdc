//! Starting and stopping: every service in one process, or one alone.
//!
//! What can fail at once is tried first, before anything has run: ports, then the data
//! folder, then the databases. Stopping goes the other way round: no new requests,
//! then the records in work, then the broker under both.

use std::io::{self, Write, stdout};
use std::time::{Duration, Instant};

use ackwell::config::Config;
use ackwell::{App, RunningApp, StartError};
use ackwell_broker::Broker;
use ackwell_http::{Server, bind, ops};
use ackwell_sql::{Database, Migration, Relay};
use axum::Router;
use clap::ValueEnum;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::{Orders, Settings};
use crate::{notification, order, payment, product, user, web};

/// How soon a service that vanished is replaced by another instance: Kafka's default of
/// 45 s is for slow networks, and orders wait for it.
const SESSION_TIMEOUT: (&str, &str) = ("session.timeout.ms", "10000");
/// The data folder's lock allows one process on the embedded broker, so it can have one
/// name in its groups: after a crash it takes its own place again, without waiting until
/// the one that crashed times out (static membership, KIP-345).
const INSTANCE_ID: (&str, &str) = ("group.instance.id", "orders");
/// How long to wait for a port or the data folder to become free: what a process held that
/// was killed a moment ago is given back only when it has vanished.
const FREE_WAIT: Duration = Duration::from_secs(2);
/// How often to look meanwhile.
const FREE_PAUSE: Duration = Duration::from_millis(50);
/// How long the broker may take to write down everything at the end.
const BROKER_STOP_MAX: Duration = Duration::from_secs(10);

/// Why the program could not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    /// Settings that can't be used together.
    #[error(transparent)]
    Config(#[from] ackwell::config::Error),
    /// A port is taken.
    #[error("the {service} service can't listen")]
    Listen {
        /// Which service.
        service: &'static str,
        /// The address and the mend.
        #[source]
        cause: io::Error,
    },
    /// The embedded broker does not start.
    #[error("the embedded broker can't start{}", mend(.0))]
    Broker(#[source] ackwell_broker::Error),
    /// A database can't be opened.
    #[error(transparent)]
    Database(#[from] ackwell_sql::Error),
    /// A saga's declaration is not sound; or a timeout in the settings is out of range.
    #[error(transparent)]
    Saga(#[from] ackwell_sql::saga::PlanError),
    /// A service does not start, or ended by itself.
    #[error(transparent)]
    App(#[from] StartError),
    /// The data folder can't be written to.
    #[error("noting the broker's address in the data folder failed")]
    Note(#[source] io::Error),
    /// No signal handler.
    #[error("listening for signals failed")]
    Signal(#[source] io::Error),
}

fn mend(error: &ackwell_broker::Error) -> &'static str {
    if error.is_folder_in_use() {
        " (another `orders` runs on this data folder: stop it, or name another by --data or ACKWELL_DATA)"
    } else if error.is_address_in_use() {
        " (choose another port by --broker-port or ORDERS_BROKER_PORT, 0 picks a free one; or name a Kafka by KAFKA_BOOTSTRAP_SERVERS)"
    } else {
        ""
    }
}

/// The services. What each is, its own module declares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Name {
    /// Takes orders, keeps what becomes of them.
    Order,
    /// Has products with stock, reserves it.
    Product,
    /// Charges customers, and refunds them.
    Payment,
    /// Keeps users.
    User,
    /// Tells customers how their orders ended, prepares the shipping.
    Notification,
}

impl Name {
    /// The word on the command line, in the addresses that are printed, and for the database.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Order => "order",
            Self::Product => "product",
            Self::Payment => "payment",
            Self::User => "user",
            Self::Notification => "notification",
        }
    }

    fn port(self, orders: &Orders) -> u16 {
        match self {
            Self::Order => orders.order_port,
            Self::Product => orders.product_port,
            Self::Payment => orders.payment_port,
            Self::User => orders.user_port,
            Self::Notification => orders.notification_port,
        }
    }

    async fn declare(self, scope: &Scope<'_>) -> Result<Declared, ServeError> {
        Ok(match self {
            Self::Order => order::declare(scope).await?,
            Self::Product => product::declare(scope).await?,
            Self::Payment => payment::declare(scope).await?,
            Self::User => user::declare(scope).await?,
            Self::Notification => notification::declare(scope).await?,
        })
    }
}

/// A service, declared: what it listens to and sends, and what it answers.
pub(crate) struct Declared {
    /// Its listeners and topics.
    pub(crate) app: App,
    /// Its paths.
    pub(crate) routes: Router,
}

/// What a service is declared with.
pub(crate) struct Scope<'a> {
    /// All settings.
    pub(crate) settings: &'a Settings,
    config: &'a Config,
}

impl Scope<'_> {
    /// A database of the service's own: a file, or a schema on the server.
    ///
    /// # Errors
    /// When it can't be opened.
    pub(crate) async fn database(
        &self,
        name: &str,
        migrations: &[Migration],
    ) -> Result<Database, ackwell_sql::Error> {
        Database::open(&self.settings.database_url(name), migrations).await
    }

    /// An app whose handlers write to `db`, and whose events are published from there.
    pub(crate) fn app(&self, name: &'static str, db: &Database) -> App {
        App::new(self.config.clone())
            .named(name)
            .state(db.clone())
            .service(Relay::new(db.clone()))
    }
}

/// Broker and services in one process, until SIGINT or SIGTERM.
pub(crate) async fn all(settings: &Settings) -> Result<(), ServeError> {
    let mut signals = Signals::new().map_err(ServeError::Signal)?;
    settings.refuse_one_database()?;
    let ports = listen(settings, Name::value_variants()).await?;
    let broker = start_broker(settings).await?;
    if let Some(broker) = &broker {
        let noted = settings.note_broker(broker.local_addr());
        noted.map_err(ServeError::Note)?;
    }
    let config = service_config(settings, broker.as_ref());
    let outcome = run(&mut signals, settings, &config, ports).await;
    if let Some(broker) = broker {
        stop_broker(broker).await?;
    }
    outcome
}

/// One service, until SIGINT or SIGTERM. Several may share a data folder.
pub(crate) async fn one(settings: &Settings, name: Name) -> Result<(), ServeError> {
    let mut signals = Signals::new().map_err(ServeError::Signal)?;
    let ports = listen(settings, &[name]).await?;
    let config = service_config(settings, None);
    run(&mut signals, settings, &config, ports).await
}

/// A service at work: its listeners and its HTTP server.
struct Service {
    name: &'static str,
    app: RunningApp,
    url: String,
    http: JoinHandle<io::Result<()>>,
    stop_http: CancellationToken,
}

impl Service {
    async fn start(
        name: Name,
        port: TcpListener,
        settings: &Settings,
        config: &Config,
    ) -> Result<Self, ServeError> {
        let Declared { app, routes } = name.declare(&Scope { settings, config }).await?;
        let app = app.start().await?;
        let url = port.local_addr().map_or_else(
            |_| "unknown".to_owned(),
            |address| format!("http://{address}"),
        );
        let stop_http = CancellationToken::new();
        let server = Server::new(routes.merge(ops(&app))).limits(web::limits());
        let http = tokio::spawn(server.serve(port, stop_http.clone().cancelled_owned()));
        Ok(Self {
            name: name.word(),
            app,
            url,
            http,
            stop_http,
        })
    }

    /// Finishes the requests in work, then the records in work.
    async fn stop(self) -> Result<(), StartError> {
        self.stop_http.cancel();
        match self.http.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(service = self.name, %error, "HTTP server broke down")
            }
            Err(error) => tracing::error!(service = self.name, %error, "HTTP server was lost"),
        }
        self.app.stop().await
    }
}

/// Starts the services, says where everything is, waits for a signal or the end of one, and stops.
async fn run(
    signals: &mut Signals,
    settings: &Settings,
    config: &Config,
    ports: Vec<(Name, TcpListener)>,
) -> Result<(), ServeError> {
    let mut services = Vec::with_capacity(ports.len());
    for (name, port) in ports {
        services.push(Service::start(name, port, settings, config).await?);
    }
    let broker = if settings.kafka_named {
        "kafka"
    } else {
        "broker"
    };
    let address = &config.kafka.bootstrap_servers;
    say(format_args!("{broker:<21}{address}"));
    for Service { name, url, .. } in &services {
        say(format_args!("{:<21}{url}", format!("{name} service")));
    }
    say(format_args!("{:<21}{}", "data", config.data.display()));
    let outcome = tokio::select! {
        () = signals.next() => Ok(()),
        ended = until_one_ends(&services) => ended,
    };
    say(format_args!("stopping"));
    let stopping = async {
        for stopped in futures_util::future::join_all(services.into_iter().map(Service::stop)).await
        {
            stopped?;
        }
        outcome
    };
    tokio::select! {
        stopped = stopping => Ok(stopped?),
        () = signals.next() => {
            say(format_args!("stopped at once, at the second signal"));
            Ok(())
        }
    }
}

/// Says when all are at work; answers when one has ended.
async fn until_one_ends(services: &[Service]) -> Result<(), StartError> {
    let ready = async {
        for service in services {
            service.app.ready().await?;
        }
        say(format_args!("ready"));
        std::future::pending::<Result<(), StartError>>().await
    };
    let ended = futures_util::future::select_all(
        services.iter().map(|service| Box::pin(service.app.wait())),
    );
    tokio::select! {
        ended = ready => ended,
        (ended, ..) = ended => ended,
    }
}

/// All ports, before anything has run.
async fn listen(
    settings: &Settings,
    names: &[Name],
) -> Result<Vec<(Name, TcpListener)>, ServeError> {
    let mut ports = Vec::with_capacity(names.len());
    for name in names {
        let address = format!("{}:{}", settings.orders.host, name.port(&settings.orders));
        let in_use = |error: &io::Error| error.kind() == io::ErrorKind::AddrInUse;
        let bound = once_free(async || bind(&address).await, in_use).await;
        let service = name.word();
        ports.push((
            *name,
            bound.map_err(|cause| ServeError::Listen { service, cause })?,
        ));
    }
    Ok(ports)
}

async fn start_broker(settings: &Settings) -> Result<Option<Broker>, ServeError> {
    if settings.kafka_named {
        return Ok(None);
    }
    let mut config = ackwell_broker::Config::new(settings.service.data.join("broker"));
    config.listen = format!("127.0.0.1:{}", settings.orders.broker_port);
    let in_use =
        |error: &ackwell_broker::Error| error.is_folder_in_use() || error.is_address_in_use();
    let started = once_free(async || Broker::start(config.clone()).await, in_use).await;
    started.map(Some).map_err(ServeError::Broker)
}

/// Tries until it succeeds, fails for another reason, or [`FREE_WAIT`] is over.
async fn once_free<T, E>(
    mut attempt: impl AsyncFnMut() -> Result<T, E>,
    in_use: impl Fn(&E) -> bool,
) -> Result<T, E> {
    let deadline = Instant::now() + FREE_WAIT;
    loop {
        match attempt().await {
            Err(error) if in_use(&error) && Instant::now() < deadline => {
                tokio::time::sleep(FREE_PAUSE).await;
            }
            outcome => return outcome,
        }
    }
}

/// The settings of every service here; consumer properties of the user's own win.
fn service_config(settings: &Settings, broker: Option<&Broker>) -> Config {
    let mut config = settings.service.clone();
    let mut default = |(name, value): (&str, &str)| {
        config
            .kafka
            .consumer
            .entry(name.to_owned())
            .or_insert_with(|| value.to_owned());
    };
    default(SESSION_TIMEOUT);
    if let Some(broker) = broker {
        default(INSTANCE_ID);
        config.kafka.bootstrap_servers = broker.local_addr().to_string();
    }
    config
}

async fn stop_broker(broker: Broker) -> Result<(), ServeError> {
    match tokio::time::timeout(BROKER_STOP_MAX, broker.shutdown()).await {
        Ok(stopped) => stopped.map_err(ServeError::Broker),
        Err(_) => {
            tracing::warn!("the broker did not stop in time; it recovers at its next start");
            Ok(())
        }
    }
}

/// One line for people and for programs that look for addresses. That nobody reads it is
/// no reason to stop.
fn say(line: std::fmt::Arguments<'_>) {
    let mut out = stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

/// SIGINT (Ctrl-C) and SIGTERM.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(not(unix))]
impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {})
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
