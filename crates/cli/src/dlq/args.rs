//! The flags of `ackwell dlq`.

use std::path::PathBuf;

use ackwell::dead_letters::{Filter, HOPS_MAX, Position, moment};
use jiff::Timestamp;

const EXAMPLES: &str = "\
Examples:
  ackwell dlq list
  ackwell dlq search orders.DLQ --reason locked --since 2h
  ackwell dlq show orders.DLQ 0:42
  ackwell dlq replay orders.DLQ 0:42
  ackwell dlq replay orders.DLQ --class transient --dry-run
  ackwell dlq replay orders.DLQ 0:42 --edit
  ackwell dlq history orders.DLQ

Settings of the connection (TLS, SASL) are read from ackwell.toml, as services read them.";

/// Look at dead letters, search them, and send them back to where they came from.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(super) connection: Connection,

    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, clap::Args)]
pub(super) struct Connection {
    /// Kafka's address, host:port, several separated by commas [default: KAFKA_BOOTSTRAP_SERVERS,
    /// then ackwell.toml, then 127.0.0.1:9092]
    #[arg(long, value_name = "HOST:PORT", global = true)]
    pub(super) bootstrap_servers: Option<String>,

    /// Print JSON: one object, or one a line for what may be many
    #[arg(long, global = true)]
    pub(super) json: bool,
}

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List dead-letter topics and how much they hold
    List {
        /// Count by the class of the failure; reads every dead letter
        #[arg(long)]
        by_class: bool,
    },
    /// Find dead letters; prints where they stand, where they failed and why, not what they hold
    Search {
        /// The dead-letter topic
        topic: String,
        #[command(flatten)]
        filter: FilterArgs,
        /// Go on behind this position
        #[arg(long, value_name = "PARTITION:OFFSET")]
        after: Option<Position>,
        /// Print at most so many
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: usize,
    },
    /// Show one dead letter with its key, value and headers
    Show {
        /// The dead-letter topic
        topic: String,
        /// Which one
        #[arg(value_name = "PARTITION:OFFSET")]
        position: Position,
        /// Print the bytes of its value and nothing else
        #[arg(long)]
        value: bool,
    },
    /// Send dead letters back to the topics on which they failed
    Replay(ReplayArgs),
    /// Put dead letters aside, to <topic>.parked
    Park(ParkArgs),
    /// Tell who replayed or parked what, when, with what result
    History {
        /// The dead-letter topic
        topic: String,
        /// Print at most so many, the latest
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: usize,
    },
}

/// Which dead letters are meant.
#[derive(Debug, clap::Args)]
pub(super) struct Which {
    /// The dead-letter topic
    pub(super) topic: String,

    /// These ones
    #[arg(value_name = "PARTITION:OFFSET")]
    pub(super) positions: Vec<Position>,

    #[command(flatten)]
    pub(super) filter: FilterArgs,

    /// All of the topic
    #[arg(long)]
    pub(super) all: bool,

    /// Those too that were replayed or parked before
    #[arg(long)]
    pub(super) again: bool,

    /// Say what would be done, and do nothing
    #[arg(long)]
    pub(super) dry_run: bool,

    /// Do not ask
    #[arg(long, short)]
    pub(super) yes: bool,

    /// Who does it, for the audit trail
    #[arg(
        long,
        value_name = "NAME",
        env = "USER",
        default_value = "unknown",
        hide_env_values = true
    )]
    pub(super) by: String,
}

#[derive(Debug, clap::Args)]
pub(super) struct ReplayArgs {
    #[command(flatten)]
    pub(super) which: Which,

    /// Park what has been replayed so often
    #[arg(long, value_name = "N", default_value_t = HOPS_MAX)]
    pub(super) hops_max: u32,

    /// Open the value in $VISUAL or $EDITOR first
    #[arg(long, conflicts_with_all = ["set_value", "null_value"])]
    pub(super) edit: bool,

    /// Send the bytes of this file as value
    #[arg(long, value_name = "FILE", conflicts_with = "null_value")]
    pub(super) set_value: Option<PathBuf>,

    /// Send null as value, a tombstone
    #[arg(long)]
    pub(super) null_value: bool,

    /// Send this key
    #[arg(long, value_name = "KEY")]
    pub(super) set_key: Option<String>,

    /// Send this header in place of those of its name
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub(super) set_header: Vec<(String, String)>,

    /// Leave out the headers of this name
    #[arg(long, value_name = "NAME")]
    pub(super) remove_header: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct ParkArgs {
    #[command(flatten)]
    pub(super) which: Which,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Filter (what meets all)")]
pub(super) struct FilterArgs {
    /// The class of the failure: transient, permanent, .. (or a Java exception, as Spring writes it)
    #[arg(long, value_name = "CLASS")]
    class: Option<String>,

    /// A part of the reason, in any case
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,

    /// The topic on which it failed
    #[arg(long, value_name = "TOPIC")]
    origin: Option<String>,

    /// The group in which it failed
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,

    /// The record's key
    #[arg(long, value_name = "KEY")]
    key: Option<String>,

    /// The event's type, the header eventType
    #[arg(long, value_name = "TYPE")]
    event_type: Option<String>,

    /// A header that it has, or has with this value
    #[arg(long, value_name = "NAME[=VALUE]")]
    header: Vec<String>,

    /// Given up since: 2026-01-31T12:00:00Z, or how long ago, as in 90m, 2h, 3d
    #[arg(long, value_name = "TIME")]
    since: Option<String>,

    /// Given up before
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

impl FilterArgs {
    pub(super) fn into_filter(
        self,
        positions: impl IntoIterator<Item = Position>,
    ) -> Result<Filter, String> {
        let now = Timestamp::now();
        let time = |text: Option<String>| text.map(|text| moment(&text, now)).transpose();
        let headers = self.header.into_iter().map(|header| {
            let (name, value) = match header.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.as_bytes().to_vec())),
                None => (header, None),
            };
            (name, value)
        });
        let mut filter = Filter::positions(positions);
        filter.class = self.class;
        filter.reason = self.reason;
        filter.topic = self.origin;
        filter.group = self.group;
        filter.key = self.key.map(String::into_bytes);
        filter.event_type = self.event_type;
        filter.headers = headers.collect();
        filter.since = time(self.since)?;
        filter.until = time(self.until)?;
        Ok(filter)
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| format!("`{text}` is no header; write NAME=VALUE"))?;
    Ok((name.to_owned(), value.to_owned()))
}
