//! What can be wrong with a declaration, found before anything runs.
//!
//! A setting that is out of range or contradicts another would otherwise show at the first
//! record, or never. Each function of [`CHECKS`] looks at one concern of a listener's settings; a
//! new setting adds its own function, or a line to the one of its concern.

mod limits;

use std::collections::BTreeSet;
use std::time::Duration;

use ackwell_core::envelope;

pub(super) use limits::{batches, consumer};

use super::StartError;
use super::plan::Named;
use crate::container::Snapshots;
use crate::context::{KnownEvents, SetupError};
use crate::dead_letters::DeadLetters;
use crate::failure::Hook;
use crate::listener::{AckMode, Concurrency, Options};
use crate::retry::{Later, RetryPolicy};

/// What is wrong, with how to mend it; or nothing.
type Checked = Result<(), SetupError>;

/// In the order in which they are told: the first problem is shown alone.
const CHECKS: &[fn(&Named) -> Checked] = &[
    group,
    topics,
    pattern,
    dead_letters,
    lanes,
    limits::sizes,
    limits::waits,
    limits::batch_wait,
    limits::without_effect,
    commits,
    policies,
    retry_topics,
    ordered_retry,
    verdicts,
    alerts,
];

/// Looks at a listener's settings one by one.
pub(super) fn listener(named: &Named) -> Checked {
    CHECKS.iter().try_for_each(|check| check(named))
}

fn group(named: &Named) -> Checked {
    refuse_if(named.group.is_empty(), || {
        SetupError::new("it has no consumer group")
            .mend("add `.group(..)`, or name the app with `App::named`")
    })
}

fn topics(named: &Named) -> Checked {
    let mut topics = named.options.topics.iter();
    match topics.find(|topic| !is_legal(&topic.name)) {
        Some(topic) => Err(
            SetupError::new(format!("`{}` is not a topic's name", topic.name))
                .mend("use up to 249 letters, digits, `.`, `_` and `-`"),
        ),
        None => Ok(()),
    }
}

/// Kafka's `Topic.validate`.
fn is_legal(name: &str) -> bool {
    let fits = (1..=249).contains(&name.len()) && name != "." && name != "..";
    fits && name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

fn dead_letters(named: &Named) -> Checked {
    let DeadLetters::To(target) = &named.options.dead_letters else {
        return Ok(());
    };
    let read: Vec<&str> = (named.options.topics.iter())
        .map(|topic| &*topic.name)
        .collect();
    let targets = read.iter().flat_map(|topic| target.topics_for(topic));
    for topic in targets {
        refuse_if(!is_legal(&topic), || {
            SetupError::new(format!(
                "`{topic}`, for its dead letters, is not a topic's name"
            ))
            .mend("use up to 249 letters, digits, `.`, `_` and `-`")
        })?;
        refuse_if(read.contains(&&*topic), || {
            SetupError::new(format!(
                "its dead letters would come back to it on `{topic}`"
            ))
            .mend("give them a suffix or a topic that it does not read")
        })?;
    }
    Ok(())
}

fn lanes(named: &Named) -> Checked {
    refuse_if(named.options.concurrency == Concurrency::ByKey(0), || {
        SetupError::new("`by_key(0)` leaves no lane to work in")
            .mend("write a positive number, or `by_partition()`")
    })
}

fn commits(named: &Named) -> Checked {
    let (mode, strict) = (named.options.ack_mode, named.options.strict_commits);
    let checked = mode.check(strict);
    checked.map_err(|found| SetupError::new(found.what).mend(found.mend))?;
    if let Snapshots::Topic(topic) = &named.options.snapshots {
        refuse_if(!is_legal(topic.as_str()), || {
            SetupError::new(format!("`{topic}` is not a topic's name for snapshots"))
                .mend("use up to 249 letters, digits, `.`, `_` and `-`")
        })?;
    }
    Ok(())
}

fn policies(named: &Named) -> Checked {
    let Options {
        retry,
        verdicts,
        limits,
        ..
    } = &named.options;
    let mut policies = vec![("retry", &retry.in_place), ("probe", &limits.probe)];
    policies.extend(
        verdicts
            .policies()
            .iter()
            .map(|policy| ("retry_for", policy)),
    );
    policies.into_iter().try_for_each(|(setting, policy)| {
        let refused = |problem| {
            SetupError::new(format!("its `{setting}` policy can't be: {problem}"))
                .mend("correct the policy")
        };
        policy
            .problem()
            .map_or(Ok(()), |problem| Err(refused(problem)))
    })
}

/// Limits of retry topics: as many as anyone can keep an overview of, and delays that are well
/// within the time that the topics keep their records.
const RETRY_TOPICS_MAX: usize = 16;
const RETRY_DELAY_MIN: Duration = Duration::from_millis(1);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(24 * 60 * 60);

fn pattern(named: &Named) -> Checked {
    let by_topics = matches!(named.options.retry.later, Later::Topics(_));
    refuse_if(named.matcher.is_some() && by_topics, || {
        SetupError::new("it reads topics by a pattern, and retry topics are made for named ones")
            .mend("retry in place, or name its topics with `Listener::on`")
    })
}

fn retry_topics(named: &Named) -> Checked {
    let Options {
        retry,
        verdicts,
        topics,
        ..
    } = &named.options;
    let Later::Topics(delays) = &retry.later else {
        return Ok(());
    };
    refuse_if(delays.is_empty(), || {
        SetupError::new("`retry::topics` names no delay")
            .mend("give it one for each retry topic, or retry in place")
    })?;
    refuse_if(delays.len() > RETRY_TOPICS_MAX, || {
        let count = delays.len();
        SetupError::new(format!(
            "{count} retry topics are more than {RETRY_TOPICS_MAX}"
        ))
        .mend("give fewer delays that grow faster")
    })?;
    let fits = |delay| (RETRY_DELAY_MIN..=RETRY_DELAY_MAX).contains(delay);
    refuse_if(!delays.iter().all(fits), || {
        SetupError::new("a retry topic's delay must be from 1 ms to 24 h")
            .mend("give delays in between; a longer wait is a scheduler's task")
    })?;
    refuse_if(!delays.is_sorted_by(|one, next| one < next), || {
        SetupError::new("the delays of its retry topics don't grow")
            .mend("give each one a longer delay than the one before")
    })?;
    let mut policies = verdicts.policies().iter().chain([&retry.in_place]);
    refuse_if(!policies.all(RetryPolicy::is_limited), || {
        SetupError::new("its attempts in place never end, so no record would reach a retry topic")
            .mend("limit them with `max_attempts` or `within`")
    })?;
    topics.iter().try_for_each(|origin| {
        let last = u32::try_from(delays.len()).unwrap_or(u32::MAX);
        let name = envelope::retry::topic(&origin.name, last);
        refuse_if(!is_legal(&name), || {
            SetupError::new(format!("the retry topic's name `{name}` is too long"))
                .mend("shorten the topic's name; a name has up to 249 characters")
        })
    })
}

/// What is wrong with alerts.
pub(super) fn hooks(hooks: &[Hook]) -> Checked {
    let problem = hooks.iter().find_map(|hook| hook.problem.clone());
    problem.map_or(Ok(()), |problem| {
        Err(SetupError::new(problem).mend("correct the alert"))
    })
}

fn alerts(named: &Named) -> Checked {
    hooks(&named.options.hooks)
}

fn ordered_retry(named: &Named) -> Checked {
    let Options {
        retry,
        verdicts,
        dead_letters,
        ack_mode,
        ..
    } = &named.options;
    let Later::Ordered(ordered) = &retry.later else {
        return Ok(());
    };
    let (policy, limits) = (&ordered.policy, &ordered.limits);
    if let Some(problem) = policy.problem() {
        let what = format!("its policy of ordered retry can't be: {problem}");
        return Err(SetupError::new(what).mend("correct the policy"));
    }
    refuse_if(!policy.is_limited(), || {
        SetupError::new("its ordered retry never ends, so one record would hold its key for ever")
            .mend("limit it with `max_attempts` or `within`; what is given up is dead-lettered")
    })?;
    refuse_if(!policy.allows(1, Duration::ZERO, Duration::ZERO), || {
        SetupError::new("its ordered retry allows no second attempt")
            .mend("allow at least `max_attempts(2)`, or leave it out")
    })?;
    let sizes = [
        ("keys_max", limits.keys_max),
        ("records_per_key_max", limits.records_per_key_max),
        ("records_max", limits.records_max),
    ];
    sizes.into_iter().try_for_each(|(setting, value)| {
        refuse_if(value == 0, || {
            SetupError::new(format!(
                "`{setting}(0)` leaves no room for a failing record"
            ))
            .mend("write a positive number")
        })
    })?;
    refuse_if(*dead_letters == DeadLetters::Stop, || {
        SetupError::new("its ordered retry has nowhere to put what it gives up")
            .mend("leave out `without_dead_letters()`")
    })?;
    refuse_if(ack_mode.is_manual(), || {
        SetupError::new("its ordered retry settles a record itself, when its work is durable")
            .mend("choose another ack mode than a manual one, or retry in place")
    })?;
    let mut policies = verdicts.policies().iter().chain([&retry.in_place]);
    refuse_if(!policies.all(RetryPolicy::is_limited), || {
        SetupError::new("its attempts in place never end, so no record would be parked")
            .mend("limit them with `max_attempts` or `within`")
    })
}

fn verdicts(named: &Named) -> Checked {
    named.options.verdicts.repeated().map_or(Ok(()), |cause| {
        let what = format!("there are two rules for failures caused by `{cause}`");
        Err(SetupError::new(what).mend("keep one; the first would always win"))
    })
}

/// Records that are retried in the order of their keys are handled one by one.
pub(super) fn parking(parks: bool, is_batch: bool) -> Checked {
    refuse_if(parks && is_batch, || {
        SetupError::new("its handler takes batches, and ordered retry handles records one by one")
            .mend("use `.handle(..)`, or retry in place or by topics")
    })
}

/// What is sent to its topics, as far as they tell, against what its handlers know.
pub(super) fn events(options: &Options, known: &[KnownEvents]) -> Checked {
    refuse_if(
        options.on_unknown_event.is_some() && known.is_empty(),
        || {
            SetupError::new(
                "`on_unknown_event` has no effect, since its handler asks for no `Event`",
            )
            .mend("remove it, or take `Event<E>` in the handler")
        },
    )?;
    let told = (options.topics.iter()).all(|topic| !topic.event_types.is_empty());
    let listed = known.iter().all(|events| !events.types.is_empty());
    if !told || !listed || known.is_empty() {
        return Ok(());
    }
    let sent = || {
        let topics = options.topics.iter();
        topics.flat_map(|topic| topic.event_types.iter().map(move |sent| (topic, *sent)))
    };
    for events in known {
        let stray = events
            .types
            .iter()
            .find(|known| !sent().any(|(_, sent)| sent == **known));
        if let Some(stray) = stray {
            let name = events.name;
            return Err(SetupError::new(format!(
                "`{name}` knows the event type `{stray}`, which is sent to none of its topics"
            ))
            .mend("correct `const TYPES`, or the topic's `event_types(..)`"));
        }
    }
    let unknown = sent().find(|(_, sent)| !known.iter().any(|known| known.types.contains(sent)));
    match unknown {
        Some((topic, sent)) if options.on_unknown_event.is_none() => {
            let topic = &topic.name;
            Err(SetupError::new(format!(
                "no handler knows the event type `{sent}`, which is sent to `{topic}`"
            ))
            .mend("add a handler, or say what happens to it by `.on_unknown_event(..)`"))
        }
        _ => Ok(()),
    }
}

/// What a transactional listener leaves no choice in: its positions are committed in transactions,
/// one after another in each partition.
pub(super) fn transactional(options: &Options, consumer: &rdkafka::ClientConfig) -> Checked {
    refuse_if(options.ack_mode != AckMode::default(), || {
        SetupError::new(
            "its ack mode says when positions are committed, but its handler asks for `Transaction`, which commits them",
        )
        .mend("remove `.ack_mode(..)`; `run_limit(1)` gives each record a transaction of its own")
    })?;
    refuse_if(options.strict_commits, || {
        SetupError::new("strict commits have no meaning where transactions commit positions").mend(
            "remove `.strict_commits()`; a record is settled when its transaction is committed",
        )
    })?;
    refuse_if(matches!(options.concurrency, Concurrency::ByKey(_)), || {
        SetupError::new("`by_key` handles a partition's records at once, but its transactions follow one another")
            .mend("use `by_partition()` and more partitions")
    })?;
    refuse_if(matches!(options.retry.later, Later::Ordered(_)), || {
        SetupError::new(
            "ordered retry keeps records in a database, which is no part of its transactions",
        )
        .mend("retry in place or by topics")
    })?;
    let snapshots = matches!(options.snapshots, Snapshots::Automatic | Snapshots::Off);
    refuse_if(!snapshots, || {
        SetupError::new("`snapshots` has no effect, since nothing is settled beyond a position that transactions commit")
            .mend("remove `.snapshots(..)`")
    })?;
    let isolation = consumer.get("isolation.level");
    refuse_if(isolation == Some("read_uncommitted"), || {
        SetupError::new("with `isolation.level=read_uncommitted` it would handle records of transactions that are aborted later, and begin before a position whose transaction is still open")
            .mend("remove `isolation.level` from `[kafka.consumer]`")
    })
}

fn refuse_if(wrong: bool, problem: impl FnOnce() -> SetupError) -> Checked {
    if wrong { Err(problem()) } else { Ok(()) }
}

/// Components are told apart by their names in health, metrics and logs.
pub(super) fn names(names: impl Iterator<Item = String>) -> Result<(), StartError> {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name.clone()) {
            return Err(StartError::Name { name });
        }
    }
    Ok(())
}
