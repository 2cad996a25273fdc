//! How often things happened, to see that the rare ones do.

use std::fmt;
use std::time::Duration;

macro_rules! seen {
    ($($name:ident = $text:literal,)+) => {
        /// How often things happened.
        #[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
        pub(crate) struct Seen {
            $(pub $name: u64,)+
        }

        impl Seen {
            pub(crate) fn add(&mut self, other: &Seen) {
                $(self.$name += other.$name;)+
            }

            fn counts(&self) -> Vec<(&'static str, u64)> {
                vec![$(($text, self.$name),)+]
            }
        }
    };
}

seen! {
    modelled_millis = "milliseconds modelled",
    handled = "records handled",
    repeated = "records handled again after they had settled",
    known = "records not repeated thanks to commit metadata",
    retries = "attempts that failed and were retried",
    skipped = "failures of class skip",
    dead_letters = "dead letters written",
    failed_recoveries = "recoveries that failed",
    retry_records = "records written to a retry topic",
    due_records = "records of a retry topic handled when they were due",
    asked_waits = "waits that a handler asked for",
    lists = "lists handled",
    halved_lists = "lists that failed and were repeated in parts",
    settled_behind = "records settled behind a failed one of their list",
    filled_lists = "lists that waited for company as long as they may",
    parked = "records parked",
    parked_behind = "records parked behind others of their key",
    retried = "attempts at parked records",
    taken_over = "parked keys found by a new owner",
    known_to_shelf = "records not repeated thanks to what is noted where they were parked",
    fenced_shelves = "records that an overtaken owner could not take on",
    held = "runs held",
    announced = "assignments announced",
    unreadable = "records that could not be read",
    read_again = "readings tried again",
    acks = "acknowledgements",
    nacks = "refusals",
    late_acks = "acknowledgements that took too long",
    stale_acks = "acknowledgements that were stale",
    closed_acks = "runs whose acknowledgements were cut off",
    answers = "acknowledgements awaited until their commit",
    outages = "outages",
    probes = "probes during an outage",
    commits = "commits stored",
    metadata = "commits with metadata",
    snapshots = "snapshots of what had no room in a commit",
    refused_commits = "commits refused",
    fenced_commits = "commits of a member that had lost a partition",
    lost_replies = "replies to a commit that were lost",
    late_replies = "replies to a commit that came too late",
    crashes = "crashes",
    handovers = "partitions handed over in a rebalance",
    losses = "partitions lost without a word",
    unknown_positions = "assignments without a known position",
    cancelled = "runs cancelled",
    cancelled_drains = "drains that reached their limit",
    zombies = "runs that reported after their partition was gone",
    rewinds = "falls back of the client",
    seeks_back = "seeks backwards",
    seeks_on = "seeks forwards",
    pauses = "pauses",
    partition_pauses = "pauses of a partition",
    assigned_paused = "partitions assigned during a pause",
    full_queues = "polls after which a queue was full",
    stops = "stops",
    stops_by_failure = "stops by a failure of class stop",
}

impl Seen {
    /// What never happened.
    pub(crate) fn never(&self) -> Vec<&'static str> {
        let counts = self.counts().into_iter();
        counts
            .filter(|(_, count)| *count == 0)
            .map(|(name, _)| name)
            .collect()
    }
}

/// What a number of schedules held.
pub(crate) struct Report {
    pub schedules: u64,
    pub took: Duration,
    pub threads: usize,
    pub seen: Seen,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.took.as_secs_f64();
        let a_second = self.schedules as f64 / seconds.max(0.001);
        writeln!(
            f,
            "{} schedules in {seconds:.1} s ({a_second:.0} a second, {} threads)",
            grouped(self.schedules),
            self.threads
        )?;
        for (name, count) in self.seen.counts() {
            let each = count as f64 / self.schedules.max(1) as f64;
            writeln!(f, "{:>18}  {name} ({each:.2} a schedule)", grouped(count))?;
        }
        Ok(())
    }
}

/// 1234567 as 1,234,567.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}
