//! What a container consists of, put together.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use ackwell_core::commit::AckMode;
use ackwell_core::engine::{Config, Event};
use ackwell_core::{Concurrency, Engine};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::Consumer;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::Container;
use super::acks::Acks;
use super::command::Command;
use super::commit::{Committer, Keeper, Listeners};
use super::consumer::{self, Callbacks, Client};
use super::control::Pauses;
use super::dead_letter::DeadLetterWriter;
use super::discover::Discovery;
use super::dispatch::Dispatcher;
use super::forward::{self, RetryTopics};
use super::health::Health;
use super::lookup::Lookups;
use super::mailbox::{Mailbox, Message};
use super::notice::{Notifier, Watches};
use super::poll::{Clock, Parts, Poller};
use super::rebalance::Announcer;
use super::snapshots;
use super::spec::{Spec, StartError};
use super::stats::Counters;
use super::transactions::{InTransactions, Transactional, Waiting};
use super::writer::Writer;
use crate::dead_letters::DeadLetters;
use crate::rights::Rights;

/// Starts a listener. Returns when its consumer and, if it has one, its dead-letter producer
/// exist; it joins its group in the background.
///
/// # Errors
///
/// The client refuses its settings, or a dead-letter or retry topic can't be made (no broker answers, its
/// origin does not exist, or a right is missing).
///
/// # Cancel safety
///
/// Dropping the future starts nothing.
pub async fn start(spec: Spec) -> Result<Container, StartError> {
    start_with(spec, Arc::default()).await
}

/// As [`start`], with what is paused already.
pub(crate) async fn start_with(spec: Spec, pauses: Arc<Pauses>) -> Result<Container, StartError> {
    check(&spec)?;
    let transactions = transactions(&spec).await?;
    let writer = Writer::new(&spec, transactions.clone())?;
    let dead_letters = match &spec.dead_letters {
        DeadLetters::To(target) => {
            Some(DeadLetterWriter::open(&spec, target, writer.clone()).await?)
        }
        DeadLetters::Stop => None,
    };
    let retry_topics = match spec.retry_topics.as_slice() {
        [] => None,
        _ => Some(RetryTopics::open(&spec, writer).await?),
    };
    let (mailbox, inbox) = Mailbox::new();
    let client = connect(&spec, &mailbox)?;
    let (counters, tasks) = (Arc::new(Counters::default()), TaskTracker::new());
    let mut dispatcher = dispatcher(&spec, &mailbox, &counters, &tasks);
    if let Some(transactions) = &transactions {
        transactions.read_by(&client);
        dispatcher.unit = Arc::new(InTransactions(Arc::clone(transactions)));
    }
    let thread = |source| StartError::Thread {
        listener: spec.listener.clone(),
        source,
    };
    let listeners = Listeners {
        mailbox: mailbox.clone(),
        observer: Arc::clone(&spec.observer),
        counters: Arc::clone(&counters),
    };
    let keeper = keeper(&spec);
    let committer = Committer::start(
        &spec.listener,
        Arc::clone(&client),
        (keeper.clone(), transactions.clone().map(Waiting::new)),
        listeners,
    )
    .map_err(thread)?;
    let discovery = spec.pattern.clone().map(|matcher| {
        let waker = mailbox.waker().clone();
        Discovery::new(&spec, matcher, &client, waker)
    });
    let lookups = Lookups::start(&spec.listener, Arc::clone(&client), keeper, mailbox.clone())
        .map_err(thread)?;
    let announcer = spec.rebalance.clone().map(|listener| {
        let limit = spec.limits.rebalance_callback;
        Announcer::start(listener, limit, mailbox.clone(), &tasks)
    });
    let notifier = Notifier::start(&spec.notices, Arc::clone(&spec.observer), &tasks);
    let weak_notifier = notifier.downgrade();
    let clock = Clock::start();
    let by_broker = consumer::by_broker(&spec.consumer);
    let hears = spec.consumer.get("statistics.interval.ms") != Some("0");
    // Before the first record can come.
    pause(&mailbox, &pauses);
    let poller = Poller::new(Parts {
        client,
        topics: (spec.topics.iter().cloned())
            .chain(forward::names(&spec).map(|(topic, _)| topic))
            .collect(),
        engine: Engine::new(engine_config(&spec)),
        inbox,
        mailbox: mailbox.clone(),
        dispatcher,
        committer,
        lookups,
        dead_letters,
        retry_topics,
        transactions,
        announcer,
        notifier,
        watches: Watches::new(&spec.notices, clock.now()),
        counters: Arc::clone(&counters),
        clock,
        health: Health::new(
            hears,
            by_broker,
            spec.notices.non_responsive_after,
            Rights::of(&spec.consumer),
        ),
    });
    let (ended, end) = watch::channel(None);
    // The thread is joined through the channel: it sends as its last act, or drops it.
    thread::Builder::new()
        .name(format!("poll-{}", spec.listener))
        .spawn(move || ended.send_replace(Some(poller.run())))
        .map_err(thread)?;
    if let Some(discovery) = discovery {
        tasks.spawn(discovery.run(end.clone()));
    }
    Ok(Container {
        listener: spec.listener.into(),
        mailbox,
        counters,
        notifier: weak_notifier,
        pauses,
        end,
        tasks,
    })
}

fn check(spec: &Spec) -> Result<(), StartError> {
    let wrong = |reason| {
        Err(StartError::Spec {
            listener: spec.listener.clone(),
            reason,
        })
    };
    match spec {
        Spec {
            topics,
            pattern: None,
            ..
        } if topics.is_empty() => wrong("it names no topic"),
        Spec { group, .. } if group.is_empty() => wrong("it names no group"),
        Spec {
            transactions: Some(_),
            concurrency: Concurrency::ByKey(_),
            ..
        } => wrong("transactions of a partition follow one another, so it has one lane"),
        Spec {
            transactions: Some(_),
            commit,
            strict_commits,
            parking,
            ..
        } if *commit != AckMode::Batch || *strict_commits || parking.is_some() => {
            wrong("positions are committed in its transactions, and by nothing else")
        }
        Spec {
            commit,
            strict_commits,
            ..
        } => commit
            .check(*strict_commits)
            .or_else(|found| wrong(found.what)),
    }
}

fn connect(spec: &Spec, mailbox: &Mailbox) -> Result<Arc<Client>, StartError> {
    let wrong = |source| StartError::Client {
        listener: spec.listener.clone(),
        source,
    };
    let settings = consumer::settings(&spec.consumer, &spec.group);
    let callbacks = Callbacks::new(&spec.consumer);
    let mut client = Client::from_config_and_context(&settings, callbacks).map_err(wrong)?;
    let waker = mailbox.waker().clone();
    client.set_nonempty_callback(move || waker.wake());
    let retry_topics: Vec<_> = forward::names(spec).map(|(topic, _)| topic).collect();
    let topics = spec.topics.iter().chain(&retry_topics);
    let topics: Vec<&str> = topics.map(String::as_str).collect();
    if !topics.is_empty() {
        client.subscribe(&topics).map_err(wrong)?;
    }
    Ok(Arc::new(client))
}

/// The transactions in which a listener sends, if it does; what a crash has left open is ended.
async fn transactions(spec: &Spec) -> Result<Option<Arc<Transactional>>, StartError> {
    let Some(settings) = &spec.transactions else {
        return Ok(None);
    };
    let opened = Transactional::open(settings.clone(), Arc::clone(&spec.observer)).await;
    let opened = opened.map_err(|source| StartError::Transactions {
        listener: spec.listener.clone(),
        source,
    })?;
    Ok(Some(Arc::new(opened)))
}

/// For each policy in place, the listener's own first, whether it repeats anything at all.
fn repeating(spec: &Spec) -> Arc<[bool]> {
    let policies = std::iter::once(&spec.retry).chain(spec.verdicts.policies());
    policies
        .map(|policy| policy.allows(1, Duration::ZERO, Duration::ZERO))
        .collect()
}

fn engine_config(spec: &Spec) -> Config {
    let limits = spec.limits.clone();
    Config {
        concurrency: spec.concurrency,
        retry: spec.retry.clone(),
        retry_topics: spec.retry_topics.clone(),
        ordered: spec.parking.is_some(),
        retry_for: spec.verdicts.policies().to_vec(),
        commit: spec.commit,
        strict_commits: spec.strict_commits,
        snapshots: snapshots::store(spec).is_some(),
        recover: spec.dead_letters != DeadLetters::Stop,
        queued_records: limits.queued_records(spec.concurrency),
        queued_bytes: limits.queued_bytes,
        total_records: limits.total_records,
        total_bytes: limits.total_bytes,
        run_records: limits.run_records,
        fill_wait: limits.batch_wait,
        revoke_drain: limits.revoke_drain,
        stop_drain: limits.stop_work(),
        // A little longer than its calls may take, so that their end is always awaited.
        flush_wait: (spec.rebalance.as_ref()).map(|_| limits.rebalance_callback * 2),
        commit_wait: limits.commit_wait,
        unacknowledged_limit: limits.unacknowledged_limit,
        metadata_bytes: limits.metadata_bytes,
        probe: limits.probe,
        recovery: limits.recovery,
        seed: uuid::Uuid::new_v4().as_u64_pair().0,
        ..Config::default()
    }
}

fn dispatcher(
    spec: &Spec,
    mailbox: &Mailbox,
    counters: &Arc<Counters>,
    tasks: &TaskTracker,
) -> Dispatcher {
    Dispatcher {
        group: spec.group.as_str().into(),
        handler: Arc::clone(&spec.handler),
        filter: spec.filter.clone(),
        unit: Arc::clone(&spec.unit),
        verdicts: Arc::new(spec.verdicts.clone()),
        parking: spec.parking.clone(),
        policies: spec.parking.as_ref().map(|_| repeating(spec)),
        lanes: usize::from(spec.concurrency.lanes()),
        observer: Arc::clone(&spec.observer),
        mailbox: mailbox.clone(),
        runtime: Handle::current(),
        tasks: tasks.clone(),
        runs: HashMap::new(),
        acks: Acks::new(spec.commit, mailbox.waker().clone(), Arc::clone(counters)),
    }
}

fn keeper(spec: &Spec) -> Option<Keeper> {
    snapshots::store(spec).map(|store| Keeper {
        store,
        runtime: Handle::current(),
        group: spec.group.as_str().into(),
        room: spec.limits.metadata_bytes,
    })
}

fn pause(mailbox: &Mailbox, pauses: &Pauses) {
    for partition in pauses.partitions() {
        mailbox.tell(Message::Command(Command::Pause(partition)));
    }
    if pauses.all() {
        mailbox.send(Event::Pause);
    }
}
