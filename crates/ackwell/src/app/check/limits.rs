//! Bounds and waits that are out of range, and those that nothing would look at.

use std::ops::RangeInclusive;
use std::time::Duration;

use rdkafka::ClientConfig;

use super::{Checked, refuse_if};
use crate::app::plan::Named;
use crate::container::{Limits, Snapshots};
use crate::context::SetupError;
use crate::listener::Options;

pub(super) fn sizes(named: &Named) -> Checked {
    let limits = &named.options.limits;
    let sizes = [
        (
            "queued_records",
            limits.queued_records.unwrap_or(usize::MAX),
        ),
        ("queued_bytes", limits.queued_bytes),
        ("total_records", limits.total_records),
        ("total_bytes", limits.total_bytes),
        ("run_limit", limits.run_records),
    ];
    sizes.into_iter().try_for_each(|(setting, value)| {
        refuse_if(value == 0, || {
            SetupError::new(format!("`{setting}(0)` leaves no room for a record"))
                .mend("write a positive number")
        })
    })
}

/// The engine's clock counts milliseconds.
const WAIT_MIN: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

pub(super) fn waits(named: &Named) -> Checked {
    let Options {
        limits, notices, ..
    } = &named.options;
    let silence = |wait: Option<Duration>| wait.unwrap_or(WAIT_MIN);
    let waits = [
        ("idle_after", silence(notices.idle_after), YEAR),
        (
            "partition_idle_after",
            silence(notices.partition_idle_after),
            YEAR,
        ),
        ("non_responsive_after", notices.non_responsive_after, YEAR),
        ("rebalance_callback", limits.rebalance_callback, HOUR),
        ("unacknowledged_limit", limits.unacknowledged_limit, YEAR),
    ];
    waits.into_iter().try_for_each(|(setting, wait, longest)| {
        refuse_if(!(WAIT_MIN..=longest).contains(&wait), || {
            SetupError::new(format!(
                "`{setting}({wait:?})` is not between 1 ms and {}",
                in_words(longest)
            ))
            .mend("give a time in between, or leave it out")
        })
    })?;
    refuse_if(limits.revoke_drain > DAY, || {
        SetupError::new("`revoke_drain` is longer than 24 h")
            .mend("write less than the group waits for a member, `max.poll.interval.ms`")
    })
}

fn in_words(longest: Duration) -> &'static str {
    if longest == HOUR { "1 h" } else { "365 days" }
}

/// Records that may wait for longer than an hour want a scheduler.
const BATCH_WAIT: RangeInclusive<Duration> = WAIT_MIN..=HOUR;

pub(super) fn batch_wait(named: &Named) -> Checked {
    let wait = named.options.limits.batch_wait;
    if wait.is_zero() {
        return Ok(());
    }
    refuse_if(!BATCH_WAIT.contains(&wait), || {
        SetupError::new("`batch_wait` must be from 1 ms to 1 h").mend("give a time in between")
    })?;
    refuse_if(named.options.strict_commits, || {
        SetupError::new(
            "strict commits hand out one poll or record at a time, so no batch would fill",
        )
        .mend("remove `.batch_wait(..)` or `.strict_commits()`")
    })
}

/// Only batches are worth waiting for.
pub(in crate::app) fn batches(wait: Duration, is_batch: bool) -> Checked {
    refuse_if(!wait.is_zero() && !is_batch, || {
        SetupError::new("`batch_wait` has single records wait for others, to no purpose")
            .mend("remove it, or use `.handle_batch(..)`")
    })
}

/// What is set for something that the listener does not do was meant otherwise.
pub(super) fn without_effect(named: &Named) -> Checked {
    let Options {
        limits,
        ack_mode,
        rebalance,
        snapshots,
        ..
    } = &named.options;
    let defaults = Limits::default();
    let waits_for_acks = limits.unacknowledged_limit != defaults.unacknowledged_limit;
    refuse_if(waits_for_acks && !ack_mode.is_manual(), || {
        SetupError::new(
            "`unacknowledged_limit` has no effect, since its handler does not acknowledge",
        )
        .mend("remove it, or choose a manual ack mode")
    })?;
    let bounds_callbacks = limits.rebalance_callback != defaults.rebalance_callback;
    refuse_if(bounds_callbacks && rebalance.is_none(), || {
        SetupError::new("`rebalance_callback` has no effect, since nobody hears of rebalances")
            .mend("remove it, or add `.on_rebalance(..)`")
    })?;
    let keeps = !matches!(snapshots, Snapshots::Automatic | Snapshots::Off);
    refuse_if(keeps && ack_mode.settles_at_dispatch(), || {
        SetupError::new(
            "`snapshots` has no effect, since its ack mode commits records before they are handled",
        )
        .mend("remove it, or choose another ack mode")
    })
}

/// Waits that contradict properties of the listener's consumer.
pub(in crate::app) fn consumer(options: &Options, consumer: &ClientConfig) -> Checked {
    let millis = |name: &str, default| {
        let set = consumer.get(name).and_then(|value| value.parse().ok());
        Duration::from_millis(set.unwrap_or(default))
    };
    let Limits {
        revoke_drain,
        rebalance_callback,
        ..
    } = options.limits;
    let callbacks = options.rebalance.as_ref().map_or(0, |_| 2);
    let rebalance = revoke_drain + rebalance_callback * callbacks;
    let poll = millis("max.poll.interval.ms", 300_000);
    refuse_if(rebalance >= poll, || {
        SetupError::new(format!(
            "a rebalance may take {rebalance:?} (`revoke_drain`, and twice `rebalance_callback` where there is one), and after `max.poll.interval.ms`, {poll:?}, its group goes on without it"
        ))
        .mend("shorten `.revoke_drain(..)`, or raise `max.poll.interval.ms` in `[kafka.consumer]`")
    })?;
    let silence = options.notices.non_responsive_after;
    let heard = millis("statistics.interval.ms", 2_000);
    refuse_if(silence <= heard, || {
        SetupError::new(format!(
            "brokers are listened for every {heard:?} (`statistics.interval.ms`), so with `non_responsive_after` of {silence:?} each would seem silent"
        ))
        .mend("lengthen `.non_responsive_after(..)`, or shorten `statistics.interval.ms` in `[kafka.consumer]`")
    })
}
