//! `ackwell dlq replay` and `park`: ask, then do.

use std::io::{BufRead, IsTerminal, Write, stderr, stdin};

use ackwell::dead_letters::{DeadLetterQueue, Edit, Filter, Replay, Report};

use super::args::{ParkArgs, ReplayArgs, Which};
use super::progress::Progress;
use super::{Result, edit, print};

pub(super) async fn replay(queue: &DeadLetterQueue, args: ReplayArgs, json: bool) -> Result<()> {
    let changes = changes(queue, &args).await?;
    let ReplayArgs {
        which, hops_max, ..
    } = args;
    let asked = Asked::new(which)?;
    let mut replay = asked.replay();
    replay.hops_max = hops_max;
    replay.edit = changes;
    asked.carry_out(queue, replay, json).await
}

pub(super) async fn park(queue: &DeadLetterQueue, args: ParkArgs, json: bool) -> Result<()> {
    let asked = Asked::new(args.which)?;
    let mut replay = asked.replay();
    replay.park = true;
    asked.carry_out(queue, replay, json).await
}

async fn changes(queue: &DeadLetterQueue, args: &ReplayArgs) -> Result<Edit> {
    let mut edit = Edit {
        key: args.set_key.clone().map(|key| Some(key.into())),
        value: args.null_value.then_some(None),
        set_headers: (args.set_header.iter().cloned())
            .map(|(name, value)| (name, value.into()))
            .collect(),
        remove_headers: args.remove_header.clone(),
    };
    if let Some(path) = &args.set_value {
        let bytes =
            std::fs::read(path).map_err(|error| format!("reading {}: {error}", path.display()))?;
        edit.value = Some(Some(bytes.into()));
    }
    if args.edit {
        let [position] = args.which.positions[..] else {
            return Err("--edit is for one dead letter; name it by its position".into());
        };
        let found = queue.get(position).await?;
        let found =
            found.ok_or_else(|| format!("{} has no dead letter at {position}", queue.topic()))?;
        edit.value = Some(Some(edit::value(found.letter.value())?.into()));
    }
    Ok(edit)
}

/// What was asked for, besides how.
struct Asked {
    filter: Filter,
    again: bool,
    dry_run: bool,
    yes: bool,
    by: String,
}

impl Asked {
    fn new(which: Which) -> Result<Self> {
        let named = which.positions.len();
        let filter = which.filter.into_filter(which.positions)?;
        if filter.is_all() && !which.all {
            return Err("which ones? name positions, give a filter, or say --all".into());
        }
        Ok(Self {
            // One that was named is meant.
            yes: which.yes || named == 1,
            again: which.again,
            dry_run: which.dry_run,
            by: which.by,
            filter,
        })
    }

    fn replay(&self) -> Replay {
        let mut replay = Replay::of(self.filter.clone(), self.by.as_str());
        replay.again = self.again;
        replay.dry_run = self.dry_run;
        replay
    }

    async fn carry_out(&self, queue: &DeadLetterQueue, replay: Replay, json: bool) -> Result<()> {
        if !self.yes && !self.dry_run && !self.agreed(queue, &replay).await? {
            return Ok(());
        }
        let progress = Progress::start();
        let report = queue.replay(replay, |report| progress.show(report)).await;
        progress.finish();
        let report = report?;
        print::report(
            &mut std::io::stdout().lock(),
            queue,
            &report,
            (self.dry_run, json),
        )?;
        if report.failed > 0 {
            return Err(format!(
                "{} could not be moved and stay to be replayed",
                report.failed
            )
            .into());
        }
        Ok(())
    }

    /// Counts what would be done, and asks.
    async fn agreed(&self, queue: &DeadLetterQueue, replay: &Replay) -> Result<bool> {
        let mut trial = replay.clone();
        trial.dry_run = true;
        let progress = Progress::start();
        let would = queue.replay(trial, |report| progress.show(report)).await;
        progress.finish();
        let Report {
            replayed, parked, ..
        } = would?;
        if replayed + parked == 0 {
            eprintln!("nothing of {} is to be moved", queue.topic());
            return Ok(false);
        }
        let question = format!(
            "{}: replay {replayed} and park {parked} dead letters? [y/N] ",
            queue.topic()
        );
        if !stdin().is_terminal() {
            return Err(format!("{question}: nobody is there to ask; add --yes").into());
        }
        write!(stderr(), "{question}")?;
        let mut answer = String::new();
        stdin().lock().read_line(&mut answer)?;
        Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
    }
}
