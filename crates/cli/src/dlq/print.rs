//! What people and programs read on standard output.

use std::collections::BTreeMap;
use std::io::Write;

use ackwell::dead_letters::{Action, DeadLetterQueue, Entry, Found, Kind, Overview, Report, shown};
use serde_json::{Value, json};

use super::Result;

type Listed = (Overview, Option<BTreeMap<String, Kind>>);

pub(super) fn list(out: &mut impl Write, listed: &[Listed], json: bool) -> Result<()> {
    if json {
        let topics = listed.iter().map(|(overview, kinds)| {
            let kinds = kinds.as_ref().map(|kinds| {
                let kinds = kinds.iter().map(|(class, kind)| {
                    let Kind {
                        letters,
                        bytes,
                        done,
                    } = kind;
                    json!({ "class": class, "letters": letters, "bytes": bytes, "done": done })
                });
                kinds.collect::<Value>()
            });
            json!({
                "topic": overview.topic,
                "partitions": overview.partitions,
                "letters": overview.letters,
                "classes": kinds,
            })
        });
        writeln!(out, "{}", topics.collect::<Value>())?;
        return Ok(());
    }
    if listed.is_empty() {
        eprintln!("no topic is named as dead-letter topics are");
    }
    for (overview, kinds) in listed {
        let letters = overview.letters;
        writeln!(out, "{:<40} {letters:>10}", overview.topic)?;
        for (class, kind) in kinds.iter().flatten() {
            let Kind {
                letters,
                bytes,
                done,
            } = kind;
            writeln!(
                out,
                "  {class:<38} {letters:>10}  {bytes} bytes, {done} replayed or parked"
            )?;
        }
    }
    Ok(())
}

pub(super) fn found(out: &mut impl Write, found: &[Found], json: bool) -> Result<()> {
    for each in found {
        if json {
            writeln!(out, "{}", each.summary())?;
        } else {
            line(out, each)?;
        }
    }
    Ok(())
}

fn line(out: &mut impl Write, found: &Found) -> Result<()> {
    let letter = &found.letter;
    let origin = letter.origin().map(|origin| origin.to_string());
    let at = letter.failed_at().map(|at| format!("{at:.0}"));
    writeln!(
        out,
        "{:<10} {:<20} {:<10} {:<28} {} {}",
        letter.position().to_string(),
        at.as_deref().unwrap_or("-"),
        letter.class_name().unwrap_or("-"),
        origin.as_deref().unwrap_or("-"),
        state(found),
        letter.reason().unwrap_or_default().escape_debug(),
    )?;
    Ok(())
}

fn state(found: &Found) -> &'static str {
    match found.done {
        Some(Action::Replay) => "[replayed]",
        Some(Action::Park) => "[parked]",
        None => "",
    }
}

pub(super) fn full(out: &mut impl Write, found: &Found) -> Result<()> {
    let letter = &found.letter;
    let text = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let first = letter.first_failure();
    let first = first.map(|first| format!("{}, {}: {}", first.at, first.class, first.reason));
    for (name, value) in [
        ("position", letter.position().to_string()),
        ("origin", text(letter.origin().map(|at| at.to_string()))),
        ("group", text(letter.group().map(str::to_owned))),
        ("event type", text(letter.event_type().map(str::to_owned))),
        ("class", text(letter.class_name().map(str::to_owned))),
        ("reason", text(letter.reason().map(str::to_owned))),
        (
            "failed at",
            text(letter.failed_at().map(|at| at.to_string())),
        ),
        ("first failed", text(first)),
        ("attempts", text(letter.attempts().map(|n| n.to_string()))),
        ("replays", format!("{} {}", letter.hops(), state(found))),
        ("key", shown(letter.key()).to_string()),
    ] {
        writeln!(out, "{name:<12} {}", value.trim_end())?;
    }
    for header in &letter.headers() {
        writeln!(
            out,
            "header       {} = {}",
            header.name(),
            shown(header.value())
        )?;
    }
    writeln!(out, "value        {}", shown(letter.value()))?;
    Ok(())
}

pub(super) fn report(
    out: &mut impl Write,
    queue: &DeadLetterQueue,
    report: &Report,
    (dry_run, json): (bool, bool),
) -> Result<()> {
    let Report {
        matched,
        left,
        replayed,
        parked,
        failed,
        failures,
    } = report;
    if json {
        let failures = failures
            .iter()
            .map(|(position, why)| json!({ "position": position.to_string(), "reason": why }));
        let report = json!({
            "topic": queue.topic(),
            "dry_run": dry_run,
            "matched": matched,
            "left": left,
            "replayed": replayed,
            "parked": parked,
            "failed": failed,
            "failures": failures.collect::<Value>(),
        });
        writeln!(out, "{report}")?;
        return Ok(());
    }
    let would = if dry_run { "would be " } else { "" };
    writeln!(out, "{replayed} {would}replayed, {parked} {would}parked")?;
    if *left > 0 {
        writeln!(
            out,
            "{left} left alone, replayed or parked before (--again takes them too)"
        )?;
    }
    if *matched == 0 {
        writeln!(out, "no dead letter of {} meets that", queue.topic())?;
    }
    for (position, why) in failures {
        writeln!(out, "{position}: {why}")?;
    }
    Ok(())
}

pub(super) fn history(out: &mut impl Write, entries: &[Entry], json: bool) -> Result<()> {
    for entry in entries {
        if json {
            writeln!(out, "{}", serde_json::to_string(entry)?)?;
            continue;
        }
        let what = match entry.action {
            Action::Replay => "replayed",
            Action::Park => "parked",
        };
        let result = match (&entry.error, &entry.to) {
            (Some(error), _) => format!("failed: {error}"),
            (None, Some(to)) => format!("to {to}"),
            (None, None) => String::new(),
        };
        let edited = match &entry.edited[..] {
            [] => String::new(),
            edited => format!(", edited: {}", edited.join(", ")),
        };
        writeln!(
            out,
            "{:.0} {} {what} {}:{} {result}{edited}",
            entry.at, entry.by, entry.partition, entry.offset
        )?;
    }
    if entries.is_empty() && !json {
        eprintln!("nothing was replayed or parked yet");
    }
    Ok(())
}
