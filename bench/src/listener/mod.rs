//! What the framework costs: a listener whose handler does nothing, against a bare
//! `BaseConsumer::poll` loop.
//!
//! The bare loop is the fastest that `rdkafka` offers safely and commits nothing at all, so every
//! microsecond of the listener beyond it is Ackwell's: lanes, tracking, the handler's call and the
//! commits. Both sides count each record in the same way, and their clock runs from the first
//! record to the last: joining the group is not what is compared. Afterwards the listener's
//! committed offsets must be the end of the topic.

mod bare;
mod ours;

pub(crate) use ours::{config, runtime, until_done};

use crate::meter::Meter;
use crate::process::work_folder;
use crate::report::{Goal, Report, Run};
use crate::target::{Broker, Target};
use crate::{Outcome, client, note};

const GOAL: Goal = Goal::AtLeast(0.9);

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Records of each run.
    #[arg(long, default_value_t = 1_000_000)]
    records: u64,
    /// Runs of each side; they take turns.
    #[arg(long, default_value_t = 7)]
    runs: usize,
    /// Partitions of the topic.
    #[arg(long, default_value_t = 6)]
    partitions: i32,
    /// Only this side, to look at it with a profiler; may be repeated.
    #[arg(long, value_name = "WAY")]
    only: Vec<Way>,
    #[command(flatten)]
    target: Target,
}

/// The sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Way {
    /// `BaseConsumer::poll`.
    Bare,
    /// The same, looking for headers: what every record costs whose origin or event may be told
    /// by one.
    BareHeaders,
    /// Ackwell, offsets committed after each batch.
    Batch,
    /// Ackwell, offsets committed after each record.
    Record,
    /// Ackwell, offsets committed every second.
    Time,
    /// Ackwell, offsets committed every 1,000 records.
    Count,
    /// Ackwell, whichever of the two comes first.
    CountOrTime,
    /// Ackwell, each record acknowledged by hand, offsets committed after each batch.
    Manual,
    /// Ackwell, each record acknowledged by hand, offsets committed at once.
    ManualImmediate,
    /// Ackwell, each batch awaits the commit of the one before it.
    StrictBatch,
}

const WAYS: [Way; 10] = [
    Way::Bare,
    Way::BareHeaders,
    Way::Batch,
    Way::Record,
    Way::Time,
    Way::Count,
    Way::CountOrTime,
    Way::Manual,
    Way::ManualImmediate,
    Way::StrictBatch,
];

pub(crate) fn run(arguments: &Arguments) -> Outcome<Report> {
    let data = work_folder()?;
    let broker = arguments.target.start(data.path(), &[])?;
    let topic = client::fresh("bench-listener");
    client::create_topic(&broker, &topic, arguments.partitions)?;
    note("filling the topic");
    client::send(&broker, &topic, arguments.records, client::plain_record)?;

    let chosen = |way: &Way| arguments.only.is_empty() || arguments.only.contains(way);
    let ways: Vec<Way> = WAYS.into_iter().filter(chosen).collect();
    let mut runs: Vec<Vec<Run>> = vec![Vec::new(); ways.len()];
    // The first turn warms caches and is not counted.
    for turn in 0..=arguments.runs {
        for (way, runs) in ways.iter().zip(&mut runs) {
            let run = one(*way, turn, &broker, &topic, arguments)?;
            note(&format!(
                "turn {turn}, {way:?}: {:.0} records/s",
                run.rate()
            ));
            if turn > 0 {
                runs.push(run);
            }
        }
    }
    Ok(report(arguments, &ways, runs))
}

fn one(way: Way, turn: usize, broker: &Broker, topic: &str, arguments: &Arguments) -> Outcome<Run> {
    let group = client::fresh(&format!("{way:?}-{turn}").to_lowercase());
    let meter = Meter::of(arguments.records);
    match way {
        Way::Bare => bare::run(broker, &group, topic, meter, false)?,
        Way::BareHeaders => bare::run(broker, &group, topic, meter, true)?,
        _ => {
            ours::run(broker, &group, topic, way, meter)?;
            let committed = client::committed(broker, &group, topic, arguments.partitions)?;
            if committed != arguments.records as i64 {
                return Err(format!(
                    "{way:?} committed {committed} of {} records",
                    arguments.records
                )
                .into());
            }
        }
    }
    meter.run()
}

fn report(arguments: &Arguments, ways: &[Way], runs: Vec<Vec<Run>>) -> Report {
    let method = format!(
        "{} records of {} bytes with keys, {} partitions, {}; \
         first record to last; {} runs a side in turns after one to warm up",
        arguments.records,
        client::VALUE_BYTES,
        arguments.partitions,
        arguments.target.name(),
        arguments.runs
    );
    let mut report = Report::new("listener", method);
    let mut bare = None;
    for (way, runs) in ways.iter().zip(runs) {
        let rate = report.side(way.name(), runs);
        match (way, bare) {
            (Way::Bare, _) => bare = Some(rate),
            (_, Some(bare)) => {
                report.figure(
                    format!("{} / bare", way.name()),
                    rate / bare,
                    "",
                    way.goal(),
                );
            }
            (_, None) => {}
        }
    }
    report
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Bare => "BaseConsumer::poll",
            Self::BareHeaders => "BaseConsumer::poll and headers()",
            Self::Batch => "Ackwell, batch mode",
            Self::Record => "Ackwell, record mode",
            Self::Time => "Ackwell, time mode, 1 s",
            Self::Count => "Ackwell, count mode, 1,000",
            Self::CountOrTime => "Ackwell, count-or-time mode",
            Self::Manual => "Ackwell, manual mode",
            Self::ManualImmediate => "Ackwell, manual-immediate mode",
            Self::StrictBatch => "Ackwell, batch mode, strict commits",
        }
    }

    fn goal(self) -> Option<Goal> {
        (!matches!(self, Self::Bare | Self::BareHeaders | Self::StrictBatch)).then_some(GOAL)
    }
}
