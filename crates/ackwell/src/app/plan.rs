//! From an app as declared to what will be started. What can be wrong with it is found on the
//! way, before anything runs: by [`check`], and by the handlers' own needs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{App, StartError, check, clash};
use crate::config::Config;
use crate::container::Spec;
use crate::context::{Setup, SetupError, Shared, States};
use crate::failure::Notifier;
use crate::handler::Erased;
use crate::layer::{ErasedLayer, wrapped};
use crate::listener::{Listener, ListenerHandle, Matcher, Options, Pattern};
use crate::observe::{Health, Kind, ListenerObserver, Metrics, Reporter, watch_parked};
use crate::retry::Later;
use crate::service::Service;
use crate::topic::TopicDeclaration;
use crate::transaction;
use crate::unit::{OneByOne, UnitOfWork};

/// What will be started.
pub(super) struct Plan {
    pub(super) config: Config,
    pub(super) topics: Vec<TopicDeclaration>,
    pub(super) listeners: Vec<PlannedListener>,
    pub(super) services: Vec<(Box<dyn Service>, Reporter)>,
    pub(super) broker: Reporter,
    pub(super) health: Health,
    pub(super) metrics: Metrics,
    /// Those of the app; listeners have their own.
    pub(super) notifiers: Vec<Notifier>,
}

pub(super) struct PlannedListener {
    pub(super) handle: ListenerHandle,
    pub(super) notifiers: Vec<Notifier>,
}

/// What a listener's unit of work wants to run beside it.
struct Companion {
    service: Box<dyn Service>,
    /// What the listener reads.
    topics: Vec<String>,
}

/// A listener with its derived names.
pub(super) struct Named {
    pub(super) name: String,
    pub(super) group: String,
    pub(super) options: Options,
    pub(super) matcher: Option<Arc<Matcher>>,
    handler: Box<dyn Erased>,
}

/// What the app's [`Transactions`](transaction::Transactions) are called in health.
const TEMPLATE: &str = "transactions";

pub(super) fn plan(app: App) -> Result<Plan, StartError> {
    let App {
        mut config,
        name,
        states,
        listeners,
        layers,
        services,
        topics,
        hooks,
        metrics,
    } = app;
    config.check()?;
    config.kafka.client_id = config
        .kafka
        .client_id
        .or_else(|| name.as_deref().map(str::to_owned));

    let named: Vec<_> = listeners
        .into_iter()
        .map(|listener| with_names(listener, name.as_deref()))
        .collect::<Result<_, _>>()?;
    clash::check(&named)?;
    clash::members(&named, &config.kafka)?;
    let states = States::from_values(states);
    let template = states.get::<transaction::Transactions>();
    let names = named.iter().map(|named| named.name.clone());
    let names = names.chain(services.iter().map(|service| service.name()));
    check::names(names.chain(template.map(|_| TEMPLATE.to_owned())))?;
    let topics = merge_declarations(named.iter().flat_map(|n| &n.options.topics).chain(&topics))?;

    check::hooks(&hooks).map_err(|problem| StartError::App { problem })?;
    let notifiers: Vec<_> = hooks.into_iter().map(Notifier::of).collect();

    let health = Health::default();
    let broker = health.add(Kind::Broker, "kafka");
    if let Some(template) = template {
        template.report_to(health.add(Kind::Service, TEMPLATE));
    }
    let common = Common {
        config: &config,
        states: &states,
        layers: &layers,
        metrics: &metrics,
        health: &health,
        notifiers: &notifiers,
    };
    let prepared = named.into_iter().map(|named| prepare(named, &common));
    let prepared = prepared.collect::<Result<Vec<_>, _>>()?;
    let (listeners, companions): (Vec<_>, Vec<_>) = prepared.into_iter().unzip();
    let services = accompanied(services, companions, &topics)?;
    let services = (services.into_iter())
        .map(|service| {
            let reporter = health.add(Kind::Service, service.name());
            (service, reporter)
        })
        .collect();
    Ok(Plan {
        config,
        topics,
        listeners,
        services,
        broker,
        health,
        metrics,
        notifiers,
    })
}

fn with_names(listener: Listener, app: Option<&str>) -> Result<Named, StartError> {
    let Listener { options, handler } = listener;
    let group = options
        .group
        .as_deref()
        .or(app)
        .unwrap_or_default()
        .trim()
        .to_owned();
    let name = options.listener_name(&group);
    let matcher = options.pattern.as_ref().map(Pattern::compile).transpose();
    let checked = matcher.and_then(|matcher| {
        let named = Named {
            name: name.clone(),
            group,
            options,
            matcher: matcher.map(Arc::new),
            handler,
        };
        check::listener(&named).map(|()| named)
    });
    checked.map_err(|problem| StartError::Listener {
        listener: name,
        problem,
    })
}

/// The services that are declared, and those that the listeners' units of work want beside them: one of
/// a name.
fn accompanied(
    mut services: Vec<Box<dyn Service>>,
    companions: Vec<Option<Companion>>,
    declared: &[TopicDeclaration],
) -> Result<Vec<Box<dyn Service>>, StartError> {
    let mut names: BTreeSet<_> = services.iter().map(|service| service.name()).collect();
    let mut read = BTreeSet::new();
    for companion in companions.into_iter().flatten() {
        read.extend(companion.topics);
        if names.insert(companion.service.name()) {
            services.push(companion.service);
        }
    }
    let read = declared.iter().filter(|topic| read.contains(&*topic.name));
    let read: Vec<_> = read.cloned().collect();
    for service in &services {
        (service.check(&read)).map_err(|problem| StartError::App { problem })?;
    }
    Ok(services)
}

/// One declaration a topic; those without a number of partitions follow those with one.
fn merge_declarations<'a>(
    declared: impl Iterator<Item = &'a TopicDeclaration>,
) -> Result<Vec<TopicDeclaration>, StartError> {
    let mut merged: BTreeMap<&str, TopicDeclaration> = BTreeMap::new();
    for topic in declared {
        let entry = merged.entry(&topic.name).or_insert_with(|| topic.clone());
        if let (Some(one), Some(other)) = (entry.partitions, topic.partitions)
            && one != other
        {
            let problem =
                SetupError::new(format!("declared with {one} and with {other} partitions"))
                    .mend("declare it once, as a `Topic` constant");
            return Err(StartError::Topic {
                topic: topic.name.to_string(),
                problem,
            });
        }
        entry.partitions = entry.partitions.or(topic.partitions);
        entry.retention = entry.retention.or(topic.retention);
        if entry.event_types.is_empty() {
            entry.event_types = topic.event_types;
        }
    }
    Ok(merged.into_values().collect())
}

/// What the listeners of an app share.
struct Common<'a> {
    config: &'a Config,
    states: &'a States,
    layers: &'a [ErasedLayer],
    metrics: &'a Metrics,
    health: &'a Health,
    notifiers: &'a [Notifier],
}

fn prepare(
    named: Named,
    common: &Common<'_>,
) -> Result<(PlannedListener, Option<Companion>), StartError> {
    let Named {
        name,
        group,
        options,
        matcher,
        handler,
    } = named;
    let config = common.config;
    let mut setup = Setup::new(&name, &group, common.states).with_ack_mode(options.ack_mode);
    let recovery = &options.limits.recovery;
    let prepared = handler.prepare(&mut setup).and_then(|()| {
        check::events(&options, setup.known_events())?;
        let parking = options.retry.parking(&setup, recovery)?;
        let transactional = setup.is_transactional();
        Ok((setup.finish()?, parking, transactional))
    });
    let (unit, parking, transactional) = prepared.map_err(|problem| StartError::Listener {
        listener: name.clone(),
        problem,
    })?;

    let consumer = options.member.consumer(&config.kafka, &group);
    let consumer =
        consumer.and_then(|consumer| check::consumer(&options, &consumer).map(|()| consumer));
    let consumer = consumer.map_err(|problem| StartError::Listener {
        listener: name.clone(),
        problem,
    })?;

    let transactions = transactional.then(|| {
        check::transactional(&options, &consumer)?;
        let settings = transaction::Settings::new(config);
        settings.map_err(|error| SetupError::new(error.to_string()))
    });
    let transactions = transactions.transpose();
    let transactions = transactions.map_err(|problem| StartError::Listener {
        listener: name.clone(),
        problem,
    })?;

    let reporter = common.health.add(Kind::Listener, name.as_str());
    let notifiers: Vec<_> = options.hooks.into_iter().map(Notifier::of).collect();
    let told = common.notifiers.iter().chain(&notifiers).cloned().collect();
    let observer = ListenerObserver::new(&name, common.metrics, reporter.clone(), told);
    let handle = ListenerHandle::new(&name, reporter, common.metrics.clone());
    let shared = Shared {
        group: Arc::from(group.as_str()),
        states: common.states.clone(),
        on_undecodable: options.on_undecodable,
        on_unknown_event: options.on_unknown_event.unwrap_or(options.on_undecodable),
        undecodable: observer.undecodable(),
        listener: Some(handle.downgrade()),
    };
    if let Some(parking) = &parking {
        watch_parked(&name, common.metrics, parking);
    }
    let unit = match &parking {
        Some(parking) => Arc::clone(parking) as Arc<dyn UnitOfWork>,
        None => unit.unwrap_or_else(|| Arc::new(OneByOne)),
    };
    let companion = unit.companion();
    let mut limits = options.limits;
    let batch_wait = limits.batch_wait;
    limits.stop_drain = config.stop.drain;
    let layers = options.layers.iter().chain(common.layers);
    let handler = wrapped(&name, handler.bind(Arc::new(shared)), layers);
    check::parking(parking.is_some(), handler.is_batch())
        .and_then(|()| check::batches(batch_wait, handler.is_batch()))
        .map_err(|problem| StartError::Listener {
            listener: name.clone(),
            problem,
        })?;
    let spec = Spec {
        listener: name,
        topics: options
            .topics
            .iter()
            .map(|topic| topic.name.to_string())
            .collect(),
        pattern: matcher,
        consumer,
        producer: config.kafka.producer(&config.producer),
        group,
        concurrency: options.concurrency,
        retry: options.retry.in_place,
        retry_topics: match options.retry.later {
            Later::Never | Later::Ordered(_) => Vec::new(),
            Later::Topics(delays) => delays,
        },
        verdicts: options.verdicts,
        commit: options.ack_mode,
        strict_commits: options.strict_commits,
        snapshots: options.snapshots,
        limits,
        unit,
        parking,
        transactions,
        handler,
        filter: options.filter,
        dead_letters: options.dead_letters,
        creation: config.topics.clone(),
        rebalance: options.rebalance,
        notices: options.notices,
        observer: Arc::new(observer),
    };
    let companion = companion.map(|service| Companion {
        service,
        topics: spec.topics.clone(),
    });
    handle.set_spec(spec);
    Ok((PlannedListener { handle, notifiers }, companion))
}
