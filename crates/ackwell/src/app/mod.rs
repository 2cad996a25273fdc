//! An app: what a service consists of, started, watched and stopped as one.

mod broker;
mod check;
mod clash;
mod error;
mod plan;
mod replicas;
mod running;
mod supervise;
#[cfg(test)]
mod tests;
mod topics;

use std::any::{Any, TypeId};
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

pub use error::StartError;
pub use running::RunningApp;
use tower_layer::Layer;

use crate::config::Config;
use crate::failure::{Alert, Failure, FailureListener, Hook, Raised};
use crate::layer::{ErasedLayer, Next, Request};
use crate::listener::Listener;
use crate::observe::Metrics;
use crate::service::Service;
use crate::topic::TopicDeclaration;

/// Listeners, services and the state that they share.
///
/// ```no_run
/// # use ackwell::{App, Listener, config::Config, extract::Text};
/// # async fn print(Text(text): Text) { println!("{text}"); }
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// App::new(Config::load()?)
///     .named("printer")
///     .listener(Listener::on("audit-events").handle(print))
///     .run()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "an app does nothing until it is run or started"]
pub struct App {
    config: Config,
    name: Option<Cow<'static, str>>,
    states: HashMap<TypeId, Box<dyn Any + Send + Sync>>,
    listeners: Vec<Listener>,
    layers: Vec<ErasedLayer>,
    services: Vec<Box<dyn Service>>,
    topics: Vec<TopicDeclaration>,
    hooks: Vec<Hook>,
    metrics: Metrics,
}

impl App {
    /// An app without listeners yet.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            name: None,
            states: HashMap::new(),
            listeners: Vec::new(),
            layers: Vec::new(),
            services: Vec::new(),
            topics: Vec::new(),
            hooks: Vec::new(),
            metrics: Metrics::new(),
        }
    }

    /// The service's name: the group of listeners that name none, and the Kafka client id.
    pub fn named(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// A value for handlers ([`State`](crate::extract::State)) and for extractors that need one,
    /// such as a database. A second value of the same type replaces the first.
    pub fn state<T: Clone + Send + Sync + 'static>(mut self, value: T) -> Self {
        self.states.insert(TypeId::of::<T>(), Box::new(value));
        self
    }

    /// A listener.
    pub fn listener(mut self, listener: impl Into<Listener>) -> Self {
        self.listeners.push(listener.into());
        self
    }

    /// Stands around the handlers of all listeners, around their own layers and around the app's
    /// layers added before: see [`layer`](crate::layer).
    pub fn layer<L>(mut self, layer: L) -> Self
    where
        L: Layer<Next> + Send + Sync + 'static,
        L::Service: tower_service::Service<Request, Response = ()> + Clone + Send + Sync + 'static,
        <L::Service as tower_service::Service<Request>>::Error: Into<Failure>,
        <L::Service as tower_service::Service<Request>>::Future: Send,
    {
        self.layers.push(ErasedLayer::new(layer));
        self
    }

    /// A background service.
    pub fn service(mut self, service: impl Service) -> Self {
        self.services.push(Box::new(service));
        self
    }

    /// A topic that is sent to, to be created or checked at the start like those listened to.
    pub fn topic(mut self, topic: impl Into<TopicDeclaration>) -> Self {
        self.topics.push(topic.into());
        self
    }

    /// Who hears of failed attempts, and of what becomes of their records, in any of the app's
    /// listeners; may be called more than once.
    pub fn on_failure(mut self, listener: impl FailureListener) -> Self {
        self.hooks.push(Hook::new(listener));
        self
    }

    /// Calls when failures in all of the app's listeners together become too many.
    pub fn alert(mut self, alert: Alert, call: impl Fn(&Raised) + Send + Sync + 'static) -> Self {
        self.hooks.push(Hook::alert(alert, call));
        self
    }

    /// The app's metrics, to add one's own or to hand to a [`Producer`](crate::Producer).
    pub fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    /// Checks everything that can be checked, then starts.
    ///
    /// If no broker answers, the app starts nevertheless, is not ready, says why, and goes on
    /// trying: services may come up before their broker.
    ///
    /// # Errors
    /// When settings contradict each other, listeners clash, an extractor's need is missing, or
    /// a topic has fewer partitions than declared.
    ///
    /// # Cancel safety
    /// Dropped, what has started is stopped in the background.
    pub async fn start(self) -> Result<RunningApp, StartError> {
        supervise::start(plan::plan(self)?).await
    }

    /// Starts, and stops gracefully on SIGINT or SIGTERM.
    ///
    /// # Errors
    /// As [`App::start`], and when starting fails later on.
    pub async fn run(self) -> Result<(), StartError> {
        let app = self.start().await?;
        tokio::select! {
            ended = app.wait() => return ended,
            () = running::interrupted() => {}
        }
        app.stop().await
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App")
            .field("name", &self.name)
            .field("listeners", &self.listeners)
            .field("services", &self.services.len())
            .finish_non_exhaustive()
    }
}
