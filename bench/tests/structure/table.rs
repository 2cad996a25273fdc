//! Who may use whom. One row a crate, one check a column.

use crate::graph::Graph;

/// One crate's row.
pub(crate) struct Row {
    /// The package.
    pub(crate) name: &'static str,
    /// Crates of this workspace that it may depend on: the arrows.
    pub(crate) arrows: &'static [&'static str],
    /// Packages that must not be in its tree at all, however deep.
    pub(crate) never_reaches: &'static [&'static str],
    /// Packages that it must not depend on itself; what its arrows bring along is theirs.
    pub(crate) never_names: &'static [&'static str],
    /// Paths that its sources must not name.
    pub(crate) never_says: &'static [&'static str],
    /// Why, as the end of a sentence.
    pub(crate) because: &'static str,
}

const RUNTIMES: &[&str] = &[
    "tokio",
    "tokio-util",
    "mio",
    "socket2",
    "async-std",
    "smol",
    "async-io",
];
const KAFKA: &[&str] = &["rdkafka", "rdkafka-sys", "kafka-protocol", "rskafka"];
const SQL: &[&str] = &[
    "rusqlite",
    "libsqlite3-sys",
    "sqlx",
    "sqlx-core",
    "tokio-postgres",
    "postgres",
    "diesel",
];
const HTTP: &[&str] = &[
    "axum",
    "axum-core",
    "hyper",
    "hyper-util",
    "http",
    "reqwest",
    "tonic",
    "warp",
    "actix-web",
];
const RANDOM: &[&str] = &["rand", "rand_core", "getrandom", "fastrand"];
const CLOCKS: &[&str] = &["jiff", "chrono", "time", "quanta", "web-time"];

const CORE_REFUSES: &[&[&str]] = &[RUNTIMES, KAFKA, SQL, HTTP, RANDOM, CLOCKS];
const CORE: [&str; total(CORE_REFUSES)] = flatten(CORE_REFUSES);
const FRAMEWORK_REFUSES: &[&[&str]] = &[SQL, HTTP];
const FRAMEWORK: [&str; total(FRAMEWORK_REFUSES)] = flatten(FRAMEWORK_REFUSES);
const BROKER_REFUSES: &[&[&str]] = &[
    &["ackwell", "ackwell-core", "rdkafka", "rdkafka-sys"],
    SQL,
    HTTP,
];
const BROKER: [&str; total(BROKER_REFUSES)] = flatten(BROKER_REFUSES);
const ORDERS_REFUSES: &[&[&str]] = &[&["ackwell-core"], KAFKA, SQL];
const ORDERS: [&str; total(ORDERS_REFUSES)] = flatten(ORDERS_REFUSES);

/// The table.
pub(crate) const CRATES: &[Row] = &[
    Row {
        name: "ackwell-core",
        arrows: &[],
        never_reaches: &CORE,
        never_names: &[],
        never_says: &[
            "std::env",
            "std::fs",
            "std::net",
            "std::process",
            "std::thread",
            "std::time::Instant",
            "std::time::SystemTime",
            "std::time::UNIX_EPOCH",
            // Seeded from the operating system: iteration order differs from run to run.
            "std::collections::HashMap",
            "std::collections::HashSet",
            "std::collections::hash_map::RandomState",
            "std::hash::RandomState",
            "core::time::Instant",
        ],
        because: "the core decides without I/O, clock or randomness, so that a simulation replays it",
    },
    Row {
        name: "ackwell",
        arrows: &["ackwell-core"],
        never_reaches: &FRAMEWORK,
        never_names: &[],
        never_says: &[],
        because: "the framework holds no SQL and no HTTP: who needs neither must not build them",
    },
    Row {
        name: "ackwell-sql",
        arrows: &["ackwell", "ackwell-core"],
        never_reaches: HTTP,
        never_names: &[],
        never_says: &[],
        because: "the transaction is used by listeners and HTTP handlers alike, and knows no service",
    },
    Row {
        name: "ackwell-http",
        arrows: &["ackwell", "ackwell-core"],
        never_reaches: SQL,
        never_names: KAFKA,
        never_says: &[],
        because: "health and metrics must answer without a database",
    },
    Row {
        name: "ackwell-broker",
        arrows: &[],
        never_reaches: &BROKER,
        never_names: &[],
        never_says: &[],
        because: "the broker stands alone: it is tested by clients that we did not write",
    },
    Row {
        name: "ackwell-cli",
        arrows: &["ackwell", "ackwell-broker", "ackwell-http"],
        never_reaches: SQL,
        never_names: &[],
        never_says: &[],
        because: "the command line is a thin shell over the libraries",
    },
    Row {
        name: "ackwell-orders",
        arrows: &["ackwell", "ackwell-broker", "ackwell-http", "ackwell-sql"],
        never_reaches: &[],
        never_names: &ORDERS,
        never_says: &[],
        because: "the order system proves the public API, so it uses nothing beneath it",
    },
    Row {
        name: "ackwell-bench",
        arrows: &["ackwell", "ackwell-broker", "ackwell-core", "ackwell-sql"],
        never_reaches: &[],
        never_names: &[],
        never_says: &[],
        because: "the bench measures everything, and nothing depends on it",
    },
];

/// Every way in which `graph` breaks the table, as sentences.
pub(crate) fn check(rows: &[Row], graph: &Graph) -> Vec<String> {
    let mut broken = members_without_a_row(rows, graph);
    for row in rows {
        broken.extend(wrong_arrows(row, graph));
        broken.extend(reached(row, graph));
        broken.extend(named(row, graph));
    }
    broken
}

fn members_without_a_row(rows: &[Row], graph: &Graph) -> Vec<String> {
    let listed = |name: &str| rows.iter().any(|row| row.name == name);
    let unlisted = graph.members().filter(|name| !listed(name));
    let missing = rows
        .iter()
        .filter(|row| graph.members().all(|name| name != row.name));
    unlisted
        .map(|name| format!("{name} has no row in the crate table; say there what it may use"))
        .chain(missing.map(|row| {
            format!(
                "{} has a row in the crate table but is no workspace member",
                row.name
            )
        }))
        .collect()
}

fn wrong_arrows(row: &Row, graph: &Graph) -> Vec<String> {
    let wrong = |target: &&str| graph.is_member(target) && !row.arrows.contains(target);
    graph
        .direct(row.name)
        .filter(wrong)
        .map(|target| format!("{} must not depend on {target}: {}", row.name, row.because))
        .collect()
}

fn reached(row: &Row, graph: &Graph) -> Vec<String> {
    let sentence = |path: Vec<&str>| {
        let target = path.last().copied().unwrap_or_default();
        format!(
            "{} must not reach {target}, and does by {}: {}",
            row.name,
            path.join(" → "),
            row.because
        )
    };
    row.never_reaches
        .iter()
        .filter_map(|target| graph.path(row.name, target))
        .map(sentence)
        .collect()
}

fn named(row: &Row, graph: &Graph) -> Vec<String> {
    graph
        .direct(row.name)
        .filter(|target| row.never_names.contains(target))
        .map(|target| {
            format!(
                "{} must not depend on {target} itself: {}",
                row.name, row.because
            )
        })
        .collect()
}

const fn total(lists: &[&[&str]]) -> usize {
    let (mut sum, mut list) = (0, 0);
    while list < lists.len() {
        sum += lists[list].len();
        list += 1;
    }
    sum
}

const fn flatten<const N: usize>(lists: &[&[&'static str]]) -> [&'static str; N] {
    let mut flat = [""; N];
    let (mut at, mut list) = (0, 0);
    while list < lists.len() {
        let mut item = 0;
        while item < lists[list].len() {
            flat[at] = lists[list][item];
            at += 1;
            item += 1;
        }
        list += 1;
    }
    flat
}

#[cfg(test)]
mod tests {
    use super::*;

    const PURE: Row = Row {
        name: "pure",
        arrows: &[],
        never_reaches: &["tokio"],
        never_names: &["rand"],
        never_says: &[],
        because: "it is pure",
    };
    const SHELL: Row = Row {
        name: "shell",
        arrows: &["pure"],
        never_reaches: &[],
        ..PURE
    };

    fn graph(edges: &[(&str, &str)]) -> Graph {
        Graph::new(&["pure", "shell"], edges)
    }

    #[test]
    fn a_graph_that_keeps_the_table_breaks_nothing() {
        let graph = graph(&[("shell", "pure"), ("shell", "tokio"), ("pure", "thiserror")]);
        assert_eq!(check(&[PURE, SHELL], &graph), Vec::<String>::new());
    }

    #[test]
    fn a_forbidden_package_is_found_however_deep_and_its_path_is_told() {
        let graph = graph(&[("pure", "queue"), ("queue", "timer"), ("timer", "tokio")]);
        assert_eq!(
            check(&[PURE, SHELL], &graph),
            ["pure must not reach tokio, and does by pure → queue → timer → tokio: it is pure"]
        );
    }

    #[test]
    fn an_arrow_against_the_direction_is_told() {
        let graph = graph(&[("pure", "shell")]);
        assert_eq!(
            check(&[PURE, SHELL], &graph),
            ["pure must not depend on shell: it is pure"]
        );
    }

    #[test]
    fn a_package_that_must_not_be_named_may_come_with_another() {
        let row = Row {
            never_reaches: &[],
            ..PURE
        };
        assert!(
            check(
                &[row, SHELL],
                &graph(&[("pure", "queue"), ("queue", "rand")])
            )
            .is_empty()
        );
        assert_eq!(
            check(&[PURE, SHELL], &graph(&[("pure", "rand")])),
            ["pure must not depend on rand itself: it is pure"]
        );
    }

    #[test]
    fn a_new_crate_needs_a_row_and_a_row_needs_its_crate() {
        assert_eq!(
            check(&[PURE], &graph(&[])),
            ["shell has no row in the crate table; say there what it may use"]
        );
        let gone = Row {
            name: "gone",
            ..PURE
        };
        assert_eq!(
            check(&[PURE, SHELL, gone], &graph(&[])),
            ["gone has a row in the crate table but is no workspace member"]
        );
    }
}
