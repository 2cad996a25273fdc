//! `orders import`: a file of purchases becomes orders.
//!
//! [`file`] reads rows, [`client`] posts them, [`watch`] waits until each is final,
//! [`report`] says what became of them. Every request carries the row as its
//! idempotency key, so an import can be broken off anywhere and repeated.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};
use uuid::Uuid;

use self::client::{ClientError, Posted, Service};
use self::file::{BrokenRow, FileError, Row, Rows};
use self::progress::Progress;
use self::report::Report;
use self::watch::Ledger;
use crate::order::order_id;

mod client;
mod file;
mod progress;
pub(crate) mod report;
mod watch;

/// The longest part of a file's name that goes into an idempotency key.
const STEM_MAX: usize = 100;

/// What to import, and how.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// The file.
    pub(crate) file: PathBuf,
    /// Orders a second at most.
    pub(crate) rate: Option<u32>,
    /// Stock of a product that does not exist yet.
    pub(crate) stock: i64,
    /// Requests at a time.
    pub(crate) concurrency: usize,
    /// Where the order service is.
    pub(crate) order_url: String,
    /// Where the product service is.
    pub(crate) product_url: String,
    /// How long a service may be away.
    pub(crate) patience: Duration,
    /// How long to wait for orders that don't become final.
    pub(crate) standstill: Duration,
}

/// Why an import was broken off. What it posted stays; repeating it goes on from there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImportError {
    /// The file can't be opened.
    #[error("opening {}: {cause}", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Why not.
        cause: io::Error,
    },
    /// It can't be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A service is away, or is no order system.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// No HTTP client.
    #[error("setting up the HTTP client failed")]
    Http(#[from] reqwest::Error),
}

/// An import under way.
struct Import<'a> {
    options: &'a Options,
    /// The first part of every idempotency key.
    stem: String,
    orders: Service,
    products: Service,
    known_products: Mutex<HashSet<String>>,
    ledger: Ledger,
    progress: Progress,
    started: Instant,
}

/// Imports a file and waits until its orders are final.
///
/// # Errors
/// [`ImportError`]; a broken row is none, it is counted.
pub(crate) async fn run(options: &Options) -> Result<Report, ImportError> {
    let progress = Progress::over(count_rows(&options.file)?);
    let import = Import::new(options, progress.clone())?;
    let outcome = import.carry_out().await;
    progress.done();
    outcome?;
    let unfinished = import.ledger.unfinished();
    if let Some(example) = unfinished.first() {
        progress.say(&format!(
            "{} orders are not final, {example} for one: nothing has moved for {} s; `orders audit` says more",
            unfinished.len(),
            options.standstill.as_secs()
        ));
    }
    let elapsed = import.started.elapsed();
    Ok(import.ledger.close().report(elapsed))
}

impl<'a> Import<'a> {
    fn new(options: &'a Options, progress: Progress) -> Result<Self, ImportError> {
        let http = reqwest::Client::builder().no_proxy().build()?;
        let service =
            |name, url| Service::new(name, url, http.clone(), options.patience, progress.clone());
        Ok(Self {
            options,
            stem: key_stem(&options.file),
            orders: service("order", &options.order_url),
            products: service("product", &options.product_url),
            known_products: Mutex::default(),
            ledger: Ledger::new(progress.clone()),
            progress,
            started: Instant::now(),
        })
    }

    async fn carry_out(&self) -> Result<(), ImportError> {
        let file = open(&self.options.file)?;
        let mut rows = Rows::open(file)?;
        let known = self.products.products().await?;
        self.known().extend(known);
        let Some(first) = self.post_first(&mut rows).await? else {
            return Ok(());
        };
        let watching =
            watch::until_final(&self.ledger, &self.orders, first, self.options.standstill);
        let watching = async { watching.await.map_err(ImportError::from) };
        tokio::try_join!(self.post_rest(rows), watching)?;
        Ok(())
    }

    /// Posts rows until one is accepted. It goes ahead of all others, so that the list
    /// of orders need not be read from its beginning.
    async fn post_first<R: BufRead>(
        &self,
        rows: &mut Rows<R>,
    ) -> Result<Option<Uuid>, ImportError> {
        for row in rows {
            let Some(row) = self.sound(row.map_err(FileError::from)?) else {
                continue;
            };
            self.ensure_product(&row).await?;
            if let Some(id) = self.post(&row).await? {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    async fn post_rest<R: BufRead>(&self, rows: Rows<R>) -> Result<(), ImportError> {
        let rows = stream::iter(rows)
            .map(|row| row.map_err(|error| ImportError::from(FileError::from(error))));
        rows.try_filter_map(async |row| Ok(self.sound(row)))
            .enumerate()
            .then(async |(at, row)| {
                let row = row?;
                self.pace(at).await;
                self.ensure_product(&row).await?;
                Ok(row)
            })
            .map_ok(async |row| self.post(&row).await.map(|_| ()))
            .try_buffer_unordered(self.options.concurrency)
            .try_collect::<()>()
            .await?;
        self.ledger.posted_all();
        Ok(())
    }

    /// Counts a row, and reports a broken one.
    fn sound(&self, row: Result<Row, BrokenRow>) -> Option<Row> {
        self.ledger.count(|tally| tally.rows += 1);
        row.map_err(|broken| self.fail(&broken.to_string())).ok()
    }

    fn fail(&self, message: &str) {
        self.ledger.count(|tally| tally.failed += 1);
        self.progress.say(message);
    }

    /// Waits until row `at` is due.
    async fn pace(&self, at: usize) {
        if let Some(rate) = self.options.rate {
            let due = Duration::from_secs_f64(at as f64 / f64::from(rate));
            tokio::time::sleep_until((self.started + due).into()).await;
        }
    }

    async fn ensure_product(&self, row: &Row) -> Result<(), ClientError> {
        if self.known().contains(&row.product_id) {
            return Ok(());
        }
        self.products
            .create_product(&row.product_id, self.options.stock)
            .await?;
        self.known().insert(row.product_id.clone());
        Ok(())
    }

    /// Posts a row; `None` if it was refused.
    async fn post(&self, row: &Row) -> Result<Option<Uuid>, ImportError> {
        let key = format!("{}-row-{}", self.stem, row.number);
        let expected = order_id(&key);
        self.ledger.expect(expected);
        let posted = match self.orders.post_order(&key, &row.order()).await {
            Ok(posted) => posted,
            Err(ClientError::Refused { status, detail }) => {
                self.ledger.forget(expected);
                self.fail(&format!(
                    "line {}: refused with {status}: {detail}",
                    row.number + 1
                ));
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        let (Posted::Accepted(id) | Posted::Repeated(id)) = posted;
        if id != expected {
            self.ledger.forget(expected);
            self.ledger.expect(id);
        }
        self.ledger.count(|tally| match posted {
            Posted::Accepted(_) => tally.accepted += 1,
            Posted::Repeated(_) => tally.repeated += 1,
        });
        Ok(Some(id))
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.known_products
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn open(path: &Path) -> Result<BufReader<File>, ImportError> {
    let file = File::open(path).map_err(|cause| ImportError::Open {
        path: path.to_owned(),
        cause,
    })?;
    Ok(BufReader::with_capacity(64 * 1024, file))
}

/// Lines after the header: what the progress is measured against.
fn count_rows(path: &Path) -> Result<u64, ImportError> {
    let mut source = open(path)?;
    let mut lines = 0;
    loop {
        let buffer = source.fill_buf().map_err(FileError::from)?;
        if buffer.is_empty() {
            return Ok(u64::saturating_sub(lines, 1));
        }
        lines += buffer.iter().filter(|byte| **byte == b'\n').count() as u64;
        let used = buffer.len();
        source.consume(used);
    }
}

/// The file's name without its folder and extension, as far as a header can carry it.
fn key_stem(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let visible = |character: char| {
        if character.is_ascii_graphic() {
            character
        } else {
            '_'
        }
    };
    stem.chars().map(visible).take(STEM_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::request::key_problem;

    #[test]
    fn every_file_name_makes_a_key() {
        assert_eq!(key_stem(Path::new("../shared/data/cdnow.csv")), "cdnow");
        for name in ["mit leer.csv", "ä€.csv", ".csv", "..", "", &"x".repeat(250)] {
            let key = format!("{}-row-{}", key_stem(Path::new(name)), u64::MAX);
            assert_eq!(key_problem(key.as_bytes()), None, "{name}");
        }
    }
}
