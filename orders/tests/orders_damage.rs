//! A data folder with a file that was cut short or changed: `orders` starts and says what is lost, or says which file
//! it is and what to do. It never panics.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "helpers of tests fail as tests do"
)]

mod system;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::timeout;

use system::{CHOREOGRAPHY, PATIENCE, System, on_postgres, orders, sample, terminate};

/// What becomes of a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    Ready,
    Refused,
}

/// How `orders` ended before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Clean,
    Killed,
}

/// A file of the data folder, and what a start says of it when it is damaged.
struct Victim {
    name: &'static str,
    find: fn(&Path) -> Option<PathBuf>,
    cut: Expected,
    changed: Expected,
}

#[derive(Clone, Copy)]
struct Expected {
    starts: &'static [Start],
    says: &'static [&'static str],
}

const EITHER: Expected = Expected {
    starts: &[Start::Ready, Start::Refused],
    says: &[],
};
const QUIETLY: Expected = Expected {
    starts: &[Start::Ready],
    says: &[],
};
const REPORTED: Expected = Expected {
    starts: &[Start::Ready],
    says: &["cut_bytes=", "topic=stock-valid-"],
};
const CHECKED: Expected = Expected {
    starts: &[Start::Ready],
    says: &["checkpoint is damaged"],
};
const REFUSED: Expected = Expected {
    starts: &[Start::Refused],
    says: &["error:", "from a backup"],
};

fn victims(end: End) -> [Victim; 7] {
    let killed = end == End::Killed;
    // After a clean stop a log is not read through, so that a start takes no time: what is changed there meanwhile, the
    // audit finds. SQLite has no checksums over its pages; after a kill its log may hold every page anew.
    let segment_changed = if killed { REPORTED } else { QUIETLY };
    let database_cut = if killed { EITHER } else { REFUSED };
    [
        victim(
            "a segment",
            |data| largest(&data.join("broker/topics"), "log"),
            REPORTED,
            segment_changed,
        ),
        victim(
            "an index",
            |data| largest(&data.join("broker/topics"), "index"),
            QUIETLY,
            QUIETLY,
        ),
        victim(
            "a checkpoint",
            |data| named(&data.join("broker/topics"), "checkpoint"),
            CHECKED,
            CHECKED,
        ),
        victim(
            "the catalog",
            |data| existing(data.join("broker/catalog")),
            REFUSED,
            REFUSED,
        ),
        victim(
            "order.db",
            |data| existing(data.join("order.db")),
            database_cut,
            EITHER,
        ),
        victim(
            "product.db",
            |data| existing(data.join("product.db")),
            database_cut,
            EITHER,
        ),
        victim(
            "order.db-wal",
            |data| existing(data.join("order.db-wal")),
            EITHER,
            EITHER,
        ),
    ]
}

fn victim(
    name: &'static str,
    find: fn(&Path) -> Option<PathBuf>,
    cut: Expected,
    changed: Expected,
) -> Victim {
    Victim {
        name,
        find,
        cut,
        changed,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_damaged_after_a_clean_stop_is_recovered_or_refused_by_name() {
    if on_postgres() {
        return;
    }
    let mut system = at_work().await;
    assert!(system.stop().await.success());
    every_damage(&system.data(), End::Clean).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_damaged_after_a_kill_is_recovered_or_refused_by_name() {
    if on_postgres() {
        return;
    }
    let mut system = at_work().await;
    system.kill().await;
    every_damage(&system.data(), End::Killed).await;
}

/// A system that has done something.
async fn at_work() -> System {
    let system = System::start_with(CHOREOGRAPHY).await;
    let (report, _) = system.import(&sample(), &[]).await;
    assert_eq!(report["failed"], 0, "{report}");
    system
}

async fn every_damage(data: &Path, end: End) {
    for victim in victims(end) {
        let (cut_case, changed_case) = (
            format!("{} cut short, {end:?}", victim.name),
            format!("{} changed, {end:?}", victim.name),
        );
        tokio::join!(
            try_damage(data, &victim, &cut_case, victim.cut, cut),
            try_damage(data, &victim, &changed_case, victim.changed, change),
        );
    }
}

/// Cuts a file short, not at the end of a batch or page.
fn cut(path: &Path) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(file.metadata().unwrap().len() * 3 / 5 + 1)
        .unwrap();
}

/// Overwrites some bytes in the middle.
fn change(path: &Path) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[0xa5; 16], file.metadata().unwrap().len() / 2)
        .unwrap();
}

async fn try_damage(
    data: &Path,
    victim: &Victim,
    case: &str,
    expected: Expected,
    damage: fn(&Path),
) {
    let copy = Copy::of(data);
    let Some(path) = (victim.find)(&copy.data()) else {
        // An index is written at a clean stop or when it is long; SQLite's log goes at a clean stop.
        assert!(
            ["an index", "a checkpoint", "order.db-wal"].contains(&victim.name),
            "{case}: no such file"
        );
        return;
    };
    damage(&path);
    let (start, text) = copy.start(case).await;
    assert!(
        expected.starts.contains(&start),
        "{case}: {start:?}\n{text}"
    );
    for part in expected.says {
        assert!(text.contains(part), "{case}: `{part}` is not in\n{text}");
    }
    if start == Start::Refused {
        let file = path.file_name().unwrap().to_str().unwrap();
        assert!(
            text.contains(file.trim_end_matches("-wal")),
            "{case}: {file} is not named in\n{text}"
        );
    }
    assert!(!text.contains("panicked"), "{case}:\n{text}");
    println!("{case}: {start:?}");
}

/// A copy of a data folder.
struct Copy(TempDir);

impl Copy {
    fn of(data: &Path) -> Self {
        let copy = Self(tempfile::tempdir().unwrap());
        let copied = std::process::Command::new("cp")
            .arg("-r")
            .arg(data)
            .arg(copy.data())
            .status()
            .unwrap();
        assert!(copied.success());
        copy
    }

    fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    /// Starts `orders` on it; once it is ready, audits the books and stops it again. Everything that was said.
    async fn start(&self, case: &str) -> (Start, String) {
        let log = self.0.path().join("orders.log");
        let mut command = orders(self.0.path());
        command
            .args([
                "all",
                "--order-port=0",
                "--product-port=0",
                "--broker-port=0",
                "--data",
            ])
            .arg(self.data());
        let mut process = command
            .stdout(Stdio::piped())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let (mut start, mut broker) = (Start::Refused, String::new());
        while let Some(line) = timeout(PATIENCE, lines.next_line())
            .await
            .expect("a start ends")
            .unwrap()
        {
            if let Some(address) = line.strip_prefix("broker") {
                broker = address.trim().to_owned();
            }
            if line.starts_with("ready") {
                start = Start::Ready;
                break;
            }
        }
        let mut said = String::new();
        if start == Start::Ready {
            said = self.audit(&broker).await;
            terminate(&process).await;
        }
        let status = timeout(PATIENCE, process.wait())
            .await
            .expect("it ends")
            .unwrap();
        assert_eq!(
            status.code().is_some_and(|code| code != 0),
            start == Start::Refused,
            "{case}: {status}: {said}"
        );
        (start, fs::read_to_string(log).unwrap() + &said)
    }

    /// The audit of what was damaged says what is missing, or that the books are clean.
    async fn audit(&self, broker: &str) -> String {
        let mut command = orders(self.0.path());
        command
            .args([
                "audit",
                "--settle=0",
                "--bootstrap-servers",
                broker,
                "--data",
            ])
            .arg(self.data());
        let output = command.output().await.unwrap();
        assert!(output.status.code().is_some(), "the audit was killed");
        system::shown(&output)
    }
}

fn existing(path: PathBuf) -> Option<PathBuf> {
    path.is_file().then_some(path)
}

/// The largest file with this ending, of a topic with orders.
fn largest(folder: &Path, ending: &str) -> Option<PathBuf> {
    let orders =
        |path: &PathBuf| fs::read(path.with_extension("log")).is_ok_and(|log| is_of_orders(&log));
    let files = files(folder).into_iter();
    files
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == ending)
                && orders(path)
        })
        .max_by_key(|path| path.metadata().unwrap().len())
}

fn is_of_orders(log: &[u8]) -> bool {
    log.windows(b"StockValid".len())
        .any(|window| window == b"StockValid")
}

fn named(folder: &Path, name: &str) -> Option<PathBuf> {
    files(folder)
        .into_iter()
        .find(|path| path.file_name().is_some_and(|file| file == name))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    let (folders, mut all): (Vec<PathBuf>, Vec<PathBuf>) =
        entries.into_iter().partition(|path| path.is_dir());
    all.extend(folders.iter().flat_map(|folder| files(folder)));
    all
}
