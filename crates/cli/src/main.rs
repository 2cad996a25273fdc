//! The command line: `ackwell`.
//!
//! It holds nothing worth a unit test: it reads flags, starts what the libraries offer, and turns
//! an error into one message and an exit code.

mod broker;
mod dlq;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Tools for services on Kafka records.
#[derive(Debug, Parser)]
#[command(name = "ackwell", version, about, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Broker(Box<broker::Args>),
    Dlq(Box<dlq::Args>),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Broker(args) => broker::run(*args),
        Command::Dlq(args) => dlq::run(*args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads has seen enough, as `head` has.
        Err(error) if is_broken_pipe(&*error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ackwell: {}", Chain(&*error));
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    let error = error.downcast_ref::<std::io::Error>();
    error.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// An error with its causes, on one line.
struct Chain<'a>(&'a (dyn std::error::Error + 'static));

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
