//! Whether a broker answers, and if not, what the client says about it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;
use rdkafka::producer::{DeliveryResult, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext};
use tokio_util::sync::CancellationToken;

use super::StartError;
use super::replicas::Replicas;
use crate::config;
use crate::observe::{Reporter, Status};

/// How long an answer is awaited. Longer than a slow broker takes, shorter than patience.
pub(super) const ANSWER_WAIT: Duration = Duration::from_secs(3);

/// Between two looks at a broker that answers. One small request each, about one topic.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// How the client says that somebody is there and hangs up.
const HUNG_UP: &str = "Disconnected";

/// A client that only looks.
#[derive(Clone)]
pub(super) struct Broker {
    client: Arc<ThreadedProducer<Listening>>,
    admin: ClientConfig,
    servers: String,
}

impl Broker {
    pub(super) fn new(kafka: &config::Kafka) -> Result<Self, StartError> {
        let admin = kafka.admin();
        // That a broker hangs up, the client says in its log alone.
        let mut talkative = admin.clone();
        talkative.set_log_level(RDKafkaLogLevel::Info);
        let client = talkative.create_with_context(Listening::default());
        let client = client.map_err(|error| StartError::Client {
            reason: error.to_string(),
        })?;
        Ok(Self {
            client: Arc::new(client),
            admin,
            servers: kafka.bootstrap_servers.clone(),
        })
    }

    /// The cluster's metadata: of one topic, or of all.
    pub(super) async fn metadata(&self, topic: Option<String>) -> Result<Metadata, Away> {
        let client = Arc::clone(&self.client);
        let fetch = move || {
            client
                .client()
                .fetch_metadata(topic.as_deref(), ANSWER_WAIT)
        };
        match tokio::task::spawn_blocking(fetch).await {
            Ok(Ok(metadata)) => {
                self.client.client().context().forget();
                Ok(metadata)
            }
            Ok(Err(error)) => Err(self.away(&error)),
            Err(_) => Err(Away(format!(
                "the look at {} was interrupted",
                self.servers
            ))),
        }
    }

    /// Keeps the broker's health true until `stop`; then the client ends. Not knowing is not ready. The topics are looked at
    /// one after the other; one that something is the matter with, until it is over.
    pub(super) async fn watch(
        self,
        topics: Vec<String>,
        health: Reporter,
        stop: CancellationToken,
    ) {
        let (mut turn, mut replicas, mut seen) = (0_usize, Replicas::default(), false);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
            let topic = topics.get(turn % topics.len().max(1));
            let metadata = match self.metadata(topic.cloned()).await {
                Ok(metadata) => metadata,
                Err(Away(reason)) => {
                    health.report(Status::Degraded(reason));
                    continue;
                }
            };
            let problem = match topic {
                Some(topic) => replicas.problem(topic, &metadata, &self.admin).await,
                None => None,
            };
            match problem {
                // A new leader is chosen in less time than passes until the next look.
                Some(problem) if seen => health.report(Status::Degraded(problem)),
                Some(_) => seen = true,
                None => {
                    (turn, seen) = (turn.wrapping_add(1), false);
                    health.report(Status::Running);
                }
            }
        }
        health.report(Status::Stopped);
        // It waits for a thread, which no task should.
        let ended = tokio::task::spawn_blocking(move || drop(self.client));
        if ended.await.is_err() {
            tracing::error!("ending the client that looks at the broker panicked");
        }
    }

    fn away(&self, error: &KafkaError) -> Away {
        let heard = self.client.client().context().heard().clone();
        let (code, heard) =
            heard.unwrap_or_else(|| (error.rdkafka_error_code(), error.to_string()));
        let mend = mend(code, &heard);
        Away(format!(
            "no Kafka broker answers at {}: {heard}; {mend}",
            self.servers
        ))
    }
}

/// What to check, by what the client said.
fn mend(code: Option<RDKafkaErrorCode>, heard: &str) -> &'static str {
    match code {
        Some(RDKafkaErrorCode::SSL) => {
            "check that `ssl.ca.location` in `[kafka.extra]` names the authority that signed the broker's certificate, and that the broker speaks TLS"
        }
        Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed) => {
            "correct `sasl.username`, `sasl.password` and `sasl.mechanism` in `[kafka.extra]`"
        }
        _ if heard.contains(HUNG_UP) => {
            "check that it runs, and that `security.protocol` in `[kafka.extra]` is what it speaks at this address: `ssl` or `sasl_ssl` with TLS, `sasl_plaintext` or `sasl_ssl` with logins"
        }
        _ => {
            "check that it runs, and the address in `kafka.bootstrap_servers` or KAFKA_BOOTSTRAP_SERVERS"
        }
    }
}

/// No broker answers; says which address, why, and what to check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Away(pub(super) String);

/// Keeps what the client last complained about: a name that does not resolve, a port that refuses. It does not repeat
/// itself for half a minute, so that this stays until a broker answers.
#[derive(Default)]
struct Listening {
    last: Mutex<Heard>,
}

/// The code of an error, and its reason.
type Heard = Option<(Option<RDKafkaErrorCode>, String)>;

impl Listening {
    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self) {
        *self.heard() = None;
    }
}

impl ClientContext for Listening {
    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code();
        // "All brokers are down" follows the reason and would hide it.
        if code != Some(RDKafkaErrorCode::AllBrokersDown) {
            *self.heard() = Some((code, reason.to_owned()));
        }
        tracing::debug!(%error, reason, "the Kafka client reports a problem");
    }

    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        if facility == "FAIL" && message.contains(HUNG_UP) {
            let reason = message
                .split_once("]: ")
                .map_or(message, |(_, reason)| reason);
            *self.heard() = Some((None, reason.to_owned()));
        }
        tracing::debug!(facility, message, "the Kafka client");
    }
}

impl ProducerContext for Listening {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}
