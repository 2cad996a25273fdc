//! The command line.

use std::error::Error;
use std::io::{IsTerminal, Write, stderr, stdout};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use ackwell_sql::saga::Saga;
use clap::{Args, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::audit;
use crate::config::{Flag, Settings};
use crate::import;
use crate::order::saga::OrderSaga;
use crate::serve::{self, Name};

/// Any error, on its way to the person at the terminal.
type Failure = Box<dyn Error + Send + Sync>;

/// The order system on Ackwell: orders are accepted over HTTP, their stock is reserved
/// through Kafka, and every one reaches one final state.
#[derive(Debug, Parser)]
#[command(name = "orders", version)]
pub(crate) struct Cli {
    #[command(flatten)]
    flags: Flags,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Flags that stand for settings.
#[derive(Debug, Args)]
struct Flags {
    /// Settings file [default: ackwell.toml, if it exists]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Data folder [env: ACKWELL_DATA] [default: ./ackwell-data]
    #[arg(long, global = true, value_name = "DIR")]
    data: Option<String>,
    /// Kafka in place of the embedded broker [env: KAFKA_BOOTSTRAP_SERVERS]
    #[arg(long, global = true, value_name = "HOST:PORT,..")]
    bootstrap_servers: Option<String>,
    /// Where the services listen [env: ORDERS_HOST] [default: 127.0.0.1]
    #[arg(long, global = true)]
    host: Option<String>,
    /// 0 picks a free port [env: ORDERS_ORDER_PORT] [default: 8080]
    #[arg(long, global = true, value_name = "PORT")]
    order_port: Option<String>,
    /// 0 picks a free port [env: ORDERS_PRODUCT_PORT] [default: 8081]
    #[arg(long, global = true, value_name = "PORT")]
    product_port: Option<String>,
    /// 0 picks a free port [env: ORDERS_PAYMENT_PORT] [default: 8082]
    #[arg(long, global = true, value_name = "PORT")]
    payment_port: Option<String>,
    /// 0 picks a free port [env: ORDERS_USER_PORT] [default: 8083]
    #[arg(long, global = true, value_name = "PORT")]
    user_port: Option<String>,
    /// 0 picks a free port [env: ORDERS_NOTIFICATION_PORT] [default: 8084]
    #[arg(long, global = true, value_name = "PORT")]
    notification_port: Option<String>,
    /// The embedded broker's; 0 picks a free port [env: ORDERS_BROKER_PORT] [default: 9092]
    #[arg(long, global = true, value_name = "PORT")]
    broker_port: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Broker and services in one process (the default)
    All,
    /// One service, on Kafka
    Serve {
        /// Which one
        service: Name,
    },
    /// Post a file of orders, and wait until each is final
    Import(ImportArgs),
    /// Check the books from the databases and the topics; exit code 1 if they differ
    Audit {
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
        /// How long orders in flight may take to become final, in seconds
        #[arg(long, default_value_t = 10, value_name = "SECONDS")]
        settle: u64,
    },
    /// The saga of an order
    #[command(subcommand)]
    Saga(SagaCommand),
}

#[derive(Debug, Subcommand)]
enum SagaCommand {
    /// Draw its steps, timeouts and ways back, as a Mermaid diagram
    Graph {
        /// As an SVG picture
        #[arg(long)]
        svg: bool,
    },
}

#[derive(Debug, Args)]
struct ImportArgs {
    /// Columns: customer_id, date, quantity, amount
    file: PathBuf,
    /// Orders a second at most
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: Option<u32>,
    /// Stock of each product that does not exist yet
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(i64).range(0..=1_000_000_000_000))]
    stock: i64,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    /// Requests at a time
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    concurrency: u16,
    /// Where the order service is [env: ORDERS_ORDER_URL] [default: http://127.0.0.1:8080]
    #[arg(long, value_name = "URL")]
    order_url: Option<String>,
    /// Where the product service is [env: ORDERS_PRODUCT_URL] [default: http://127.0.0.1:8081]
    #[arg(long, value_name = "URL")]
    product_url: Option<String>,
    /// How long a service may be away before the import gives up, in seconds
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    patience: u64,
    /// How long to wait when no order becomes final any more, in seconds
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    standstill: u64,
}

impl Flags {
    fn settings(self, import: Option<&ImportArgs>) -> Result<Settings, ackwell::config::Error> {
        let url =
            |url: fn(&ImportArgs) -> &Option<String>| import.and_then(|args| url(args).clone());
        let flags: Vec<Flag> = vec![
            ("data", "--data", self.data),
            (
                "kafka.bootstrap_servers",
                "--bootstrap-servers",
                self.bootstrap_servers,
            ),
            ("orders.host", "--host", self.host),
            ("orders.order_port", "--order-port", self.order_port),
            ("orders.product_port", "--product-port", self.product_port),
            ("orders.payment_port", "--payment-port", self.payment_port),
            ("orders.user_port", "--user-port", self.user_port),
            (
                "orders.notification_port",
                "--notification-port",
                self.notification_port,
            ),
            ("orders.broker_port", "--broker-port", self.broker_port),
            (
                "orders.order_url",
                "--order-url",
                url(|args| &args.order_url),
            ),
            (
                "orders.product_url",
                "--product-url",
                url(|args| &args.product_url),
            ),
        ];
        Settings::load(self.config, flags)
    }
}

/// Runs the program: what `main` does.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    match outcome
        .map_err(Failure::from)
        .and_then(|runtime| runtime.block_on(run(cli)))
    {
        Ok(code) => code,
        Err(failure) => {
            let _ = writeln!(stderr(), "error: {}", chain(&*failure));
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let command = cli.command.unwrap_or(Command::All);
    init_tracing(match command {
        Command::All | Command::Serve { .. } => "info",
        Command::Import(_) | Command::Audit { .. } | Command::Saga(_) => "warn",
    });
    let import = if let Command::Import(args) = &command {
        Some(args)
    } else {
        None
    };
    let settings = cli.flags.settings(import)?;
    match command {
        Command::All => serve::all(&settings).await?,
        Command::Serve { service } => serve::one(&settings, service).await?,
        Command::Import(args) => return run_import(&settings, args).await,
        Command::Audit { json, settle } => return run_audit(&settings, json, settle).await,
        Command::Saga(SagaCommand::Graph { svg }) => {
            let plan = OrderSaga::new(&settings.orders).declare().plan()?;
            print(&if svg {
                plan.to_svg()
            } else {
                plan.to_mermaid()
            });
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn run_import(settings: &Settings, args: ImportArgs) -> Result<ExitCode, Failure> {
    let options = import::Options {
        file: args.file,
        rate: args.rate,
        stock: args.stock,
        concurrency: args.concurrency.into(),
        order_url: settings.order_url(),
        product_url: settings.product_url(),
        patience: Duration::from_secs(args.patience),
        standstill: Duration::from_secs(args.standstill),
    };
    let report = import::run(&options).await?;
    print(&if args.json {
        serde_json::to_string(&report)?
    } else {
        report.to_string()
    });
    Ok(exit_code(report.is_clean()))
}

async fn run_audit(settings: &Settings, json: bool, settle: u64) -> Result<ExitCode, Failure> {
    let report = audit::run(settings, Duration::from_secs(settle)).await?;
    print(&if json {
        serde_json::to_string(&report)?
    } else {
        report.to_string()
    });
    Ok(exit_code(report.is_clean()))
}

fn exit_code(clean: bool) -> ExitCode {
    if clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// A reader that went away is no reason to fail.
fn print(text: &str) {
    let _ = writeln!(stdout(), "{text}");
}

/// An error with its causes. Texts do not repeat their sources.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn init_tracing(default: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal())
        .init();
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
