//! Background services: what runs beside the listeners, such as the outbox relay.

use std::error::Error;

use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::context::SetupError;
use crate::observe::{Metrics, Reporter, Status};
use crate::producer::{Producer, SendError};
use crate::topic::TopicDeclaration;

/// What a service may end with; any error will do, a text too.
pub type ServiceError = Box<dyn Error + Send + Sync>;

/// Something that runs as long as the app does.
///
/// ```
/// use ackwell::service::{Service, ServiceContext, ServiceError};
/// use futures_util::future::BoxFuture;
///
/// struct Heartbeat;
///
/// impl Service for Heartbeat {
///     fn name(&self) -> String {
///         "heartbeat".to_owned()
///     }
///
///     fn run(self: Box<Self>, cx: ServiceContext) -> BoxFuture<'static, Result<(), ServiceError>> {
///         Box::pin(async move {
///             cx.running();
///             cx.stopped().await;
///             Ok(())
///         })
///     }
/// }
/// ```
pub trait Service: Send + 'static {
    /// Its name in health and logs; unique in the app.
    fn name(&self) -> String;

    /// Looks at what the app is declared to do, before anything starts: `read` are the topics that
    /// listeners with a [unit of work](crate::unit::UnitOfWork) of their own read, as declared.
    ///
    /// # Errors
    /// When the service's settings contradict it; the app then does not start.
    fn check(&self, read: &[TopicDeclaration]) -> Result<(), SetupError> {
        let _ = read;
        Ok(())
    }

    /// Runs until [`ServiceContext::stopped`]. It says [`ServiceContext::running`] when it is at
    /// work; until then the app is not ready. A service that returns before it was told to stop,
    /// by an error, a panic or simply by returning, has failed and makes the app not alive.
    fn run(self: Box<Self>, cx: ServiceContext) -> BoxFuture<'static, Result<(), ServiceError>>;
}

/// What a service is given. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ServiceContext {
    pub(crate) config: Config,
    pub(crate) metrics: Metrics,
    pub(crate) health: Reporter,
    pub(crate) stop: CancellationToken,
}

impl ServiceContext {
    /// A context outside an app: for tests and for services that are run by hand.
    pub fn detached(
        config: Config,
        metrics: Metrics,
        health: Reporter,
        stop: CancellationToken,
    ) -> Self {
        Self {
            config,
            metrics,
            health,
            stop,
        }
    }

    /// The app's configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The app's metrics, to add one's own.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Reports that it is at work.
    pub fn running(&self) {
        self.health.report(Status::Running);
    }

    /// Reports that it can't work as it should, and why.
    pub fn degraded(&self, reason: impl Into<String>) {
        self.health.report(Status::Degraded(reason.into()));
    }

    /// A producer of its own, with the app's settings and metrics.
    ///
    /// # Errors
    /// When the client refuses its settings.
    pub fn producer(&self) -> Result<Producer, SendError> {
        Producer::observed(&self.config, &self.metrics)
    }

    /// Whether it has been told to stop.
    pub fn is_stopped(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Waits until it is told to stop.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// The token behind [`ServiceContext::stopped`], to hand to tasks of its own.
    pub fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }
}
