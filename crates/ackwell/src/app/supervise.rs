//! From a plan to a running app, and to its end: one task owns everything that it started.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::StartError;
use super::broker::{Away, Broker};
use super::plan::{Plan, PlannedListener};
use super::running::RunningApp;
use super::topics::{self, Unready};
use crate::config::Config;
use crate::container;
use crate::failure::Notifier;
use crate::listener::ListenerHandle;
use crate::observe::{Reporter, Status};
use crate::retry::RetryPolicy;
use crate::service::{Service, ServiceContext};
use crate::topic::TopicDeclaration;

/// How long services may take to end after the listeners have; then they are aborted.
const SERVICE_WAIT: Duration = Duration::from_secs(10);

/// The first wait before starting is tried again; doubled up to [`START_WAIT_MAX`].
const START_WAIT: Duration = Duration::from_millis(250);

/// The longest wait, short enough that a service is up soon after its broker.
const START_WAIT_MAX: Duration = Duration::from_secs(2);

/// Starts `plan` and returns when it is started, when it can't be, or when no broker answers.
pub(super) async fn start(plan: Plan) -> Result<RunningApp, StartError> {
    let broker = Broker::new(&plan.config.kafka)?;
    let stop = CancellationToken::new();
    let (ending_sender, ending) = watch::channel(None);
    let (first_sender, first) = oneshot::channel();
    let handles = plan.listeners.iter().map(|planned| planned.handle.clone());
    let running = RunningApp::new(
        plan.health.clone(),
        plan.metrics.clone(),
        handles,
        ending,
        stop.clone(),
    );
    tokio::spawn(async move {
        let ended = supervise(plan, broker, stop, first_sender).await;
        ending_sender.send_replace(Some(ended));
    });
    match first.await {
        Ok(()) => Ok(running),
        Err(_) => running.wait().await.map(|()| running),
    }
}

/// Runs the app until `stop`. `first` hears when the first attempt to start has gone well or
/// found no broker; it is dropped when the app can't start.
async fn supervise(
    plan: Plan,
    broker: Broker,
    stop: CancellationToken,
    first: oneshot::Sender<()>,
) -> Result<(), StartError> {
    let Plan {
        config,
        topics,
        listeners,
        services,
        broker: broker_health,
        metrics,
        notifiers,
        ..
    } = plan;
    let of_listeners = listeners.iter().flat_map(|listener| &listener.notifiers);
    let notifiers: Vec<_> = of_listeners.chain(&notifiers).cloned().collect();
    let mut starting = Starting {
        health: &broker_health,
        stop: &stop,
        first: Some(first),
    };

    if starting.topics(&broker, &config, &topics).await?.is_none() {
        return Ok(());
    }
    broker_health.report(Status::Running);

    for PlannedListener { handle, .. } in &listeners {
        match starting.listener(handle).await {
            Ok(Some(())) => {}
            Ok(None) => break,
            Err(error) => {
                stop_all(&listeners).await;
                return Err(error);
            }
        }
    }
    let services_stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    for (service, health) in services {
        let (config, metrics, stop) = (config.clone(), metrics.clone(), services_stop.clone());
        tasks.spawn(run_service(
            service,
            ServiceContext {
                config,
                metrics,
                health,
                stop,
            },
        ));
    }
    starting.done();

    let looked_at = topics.iter().map(|topic| topic.name.to_string()).collect();
    // It ends beside the listeners.
    tasks.spawn(broker.watch(looked_at, broker_health.clone(), stop.clone()));

    stop.cancelled().await;
    stop_all(&listeners).await;
    join_all(notifiers.iter().map(Notifier::flush)).await;
    services_stop.cancel();
    let ended = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(SERVICE_WAIT, ended).await.is_err() {
        tracing::warn!(
            limit_ms = SERVICE_WAIT.as_millis(),
            "services did not end in time and are aborted"
        );
        tasks.shutdown().await;
    }
    Ok(())
}

/// The first steps, repeated while no broker answers.
struct Starting<'a> {
    health: &'a Reporter,
    stop: &'a CancellationToken,
    first: Option<oneshot::Sender<()>>,
}

impl Starting<'_> {
    /// Puts the declared topics in place; `None` when stopped meanwhile.
    async fn topics(
        &mut self,
        broker: &Broker,
        config: &Config,
        declared: &[TopicDeclaration],
    ) -> Result<Option<()>, StartError> {
        for attempt in 1.. {
            let Some(result) = self
                .stop
                .run_until_cancelled(topics::ensure(broker, config, declared))
                .await
            else {
                break;
            };
            if let Some(done) = self.judge(attempt, result).await? {
                return Ok(Some(done));
            }
        }
        Ok(None)
    }

    /// Starts a listener; `None` when stopped meanwhile.
    async fn listener(&mut self, handle: &ListenerHandle) -> Result<Option<()>, StartError> {
        let joining = Status::Starting("joining its group".to_owned());
        handle.health().report(joining);
        for attempt in 1.. {
            let begun = self.stop.run_until_cancelled(handle.begin()).await;
            let Some(result) = begun else {
                break;
            };
            if let Some(begun) = self.judge(attempt, result.map_err(unready)).await? {
                return Ok(Some(begun));
            }
        }
        Ok(None)
    }

    /// A step's value, or `None` after the wait before it is tried again.
    async fn judge<T>(
        &mut self,
        attempt: u32,
        result: Result<T, Unready>,
    ) -> Result<Option<T>, StartError> {
        match result {
            Ok(value) => return Ok(Some(value)),
            Err(Unready::Wrong(error)) => {
                self.health.report(Status::Failed(error.to_string()));
                return Err(error);
            }
            Err(Unready::Away(Away(reason))) => self.health.report(Status::Degraded(reason)),
        }
        self.done();
        let waits = RetryPolicy::exponential(START_WAIT, 2.0).max(START_WAIT_MAX);
        self.stop
            .run_until_cancelled(tokio::time::sleep(waits.wait(attempt, 0.5)))
            .await;
        Ok(None)
    }

    /// Tells `App::start` that it may return.
    fn done(&mut self) {
        if let Some(first) = self.first.take() {
            // The receiver is gone when `App::start` was dropped; then nobody waits.
            let _ = first.send(());
        }
    }
}

fn unready(error: container::StartError) -> Unready {
    match error {
        container::StartError::DeadLetterTopic { .. }
        | container::StartError::RetryTopic { .. } => Unready::Away(Away(error.to_string())),
        container::StartError::Transactions { ref source, .. } if source.is_unavailable() => {
            Unready::Away(Away(format!("{error}: {source}")))
        }
        error => Unready::Wrong(StartError::Container(Arc::new(error))),
    }
}

async fn stop_all(listeners: &[PlannedListener]) {
    join_all(listeners.iter().map(|planned| planned.handle.close())).await;
}

async fn run_service(service: Box<dyn Service>, cx: ServiceContext) {
    let (health, stop) = (cx.health.clone(), cx.stop.clone());
    let ended = AssertUnwindSafe(async { service.run(cx).await })
        .catch_unwind()
        .await;
    let reason = match ended {
        Ok(Ok(())) if stop.is_cancelled() => return health.report(Status::Stopped),
        Ok(Ok(())) => "it returned although it was not told to stop".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "it panicked".to_owned(),
    };
    health.report(Status::Failed(reason));
}
