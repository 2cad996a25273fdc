//! `ackwell dlq`: dead letters, looked at and sent back.

mod args;
mod edit;
mod print;
mod progress;
mod replay;

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write;

use ackwell::config::Sources;
use ackwell::dead_letters::{DeadLetterQueue, Filter};
use ackwell::{Config, dead_letters};
use serde_json::json;

pub(crate) use args::Args;
use args::{Command, Connection};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

pub(crate) fn run(args: Args) -> Result<()> {
    let Args {
        connection,
        command,
    } = args;
    let config = config(&connection)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(carry_out(&config, command, connection.json))
}

/// The settings of services: the file, the environment, then the flag.
fn config(connection: &Connection) -> Result<Config> {
    let mut sources = Sources::new();
    if let Some(servers) = &connection.bootstrap_servers {
        let key = "kafka.bootstrap_servers";
        sources = sources.set(key, servers, "--bootstrap-servers");
    }
    Ok(sources.read()?.config()?)
}

async fn carry_out(config: &Config, command: Command, json: bool) -> Result<()> {
    let queue = |topic: &str| DeadLetterQueue::new(config, topic);
    match command {
        Command::List { by_class } => list(config, by_class, json).await,
        Command::Search {
            topic,
            filter,
            after,
            limit,
        } => {
            let filter = filter.into_filter([])?;
            search(&queue(&topic), &filter, after, limit, json).await
        }
        Command::Show {
            topic,
            position,
            value,
        } => {
            let found = queue(&topic).get(position).await?;
            let found = found.ok_or_else(|| format!("{topic} has no dead letter at {position}"))?;
            let mut out = std::io::stdout().lock();
            match (value, json) {
                (true, _) => out.write_all(found.letter.value().unwrap_or_default())?,
                (_, true) => writeln!(out, "{}", found.full())?,
                _ => print::full(&mut out, &found)?,
            }
            Ok(())
        }
        Command::Replay(args) => replay::replay(&queue(&args.which.topic), args, json).await,
        Command::Park(args) => replay::park(&queue(&args.which.topic), args, json).await,
        Command::History { topic, limit } => {
            let entries = queue(&topic).history(limit).await?;
            print::history(&mut std::io::stdout().lock(), &entries, json)
        }
    }
}

async fn list(config: &Config, by_class: bool, json: bool) -> Result<()> {
    let topics = DeadLetterQueue::list(config).await?;
    let mut listed = Vec::with_capacity(topics.len());
    for overview in topics {
        let kinds = match overview.letters {
            _ if !by_class => None,
            0 => Some(BTreeMap::new()),
            _ => {
                let queue = DeadLetterQueue::new(config, overview.topic.as_str());
                Some(queue.count(&Filter::all()).await?)
            }
        };
        listed.push((overview, kinds));
    }
    print::list(&mut std::io::stdout().lock(), &listed, json)
}

/// Prints page by page, so that memory does not grow with what is found.
async fn search(
    queue: &DeadLetterQueue,
    filter: &Filter,
    mut after: Option<dead_letters::Position>,
    limit: usize,
    json: bool,
) -> Result<()> {
    let mut left = limit;
    while left > 0 {
        let page = queue.page(filter, after, left).await?;
        left -= page.found.len();
        after = page.next;
        print::found(&mut std::io::stdout().lock(), &page.found, json)?;
        if page.next.is_none() {
            break;
        }
    }
    match after {
        Some(after) if json => writeln!(
            std::io::stdout(),
            "{}",
            json!({ "next": after.to_string() })
        )?,
        Some(after) => eprintln!("there are more; go on with --after {after}"),
        None if left == limit && !json => {
            eprintln!("no dead letter of {} meets that", queue.topic())
        }
        None => {}
    }
    Ok(())
}
