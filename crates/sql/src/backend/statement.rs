//! What is checked of a statement before it runs.

use crate::error::{Error, Result};

/// Words that begin a statement which would end, or escape, the shared transaction, or change a
/// connection for those who come after.
const RESERVED: [&str; 18] = [
    "ABORT",
    "BEGIN",
    "COMMIT",
    "END",
    "ROLLBACK",
    "SAVEPOINT",
    "RELEASE",
    "ATTACH",
    "DETACH",
    "PRAGMA",
    "START",
    "PREPARE",
    "DEALLOCATE",
    "DISCARD",
    "SET",
    "RESET",
    "LISTEN",
    "UNLISTEN",
];

/// Refuses statements that would end the transaction which several members share.
pub(super) fn check(sql: &str) -> Result<()> {
    let word = after_comments(sql)
        .split(|c: char| !c.is_ascii_alphabetic())
        .next()
        .unwrap_or("");
    if RESERVED
        .iter()
        .any(|reserved| reserved.eq_ignore_ascii_case(word))
    {
        return Err(Error::usage(format!(
            "running {word:?}: transactions are begun and ended by Tx, not by statements, and \
             connections are shared"
        )));
    }
    Ok(())
}

/// What follows white space and comments.
fn after_comments(mut sql: &str) -> &str {
    loop {
        sql = sql.trim_start_matches(|c: char| c.is_whitespace() || c == ';');
        let rest = if let Some(line) = sql.strip_prefix("--") {
            line.split_once('\n')
        } else if let Some(block) = sql.strip_prefix("/*") {
            block.split_once("*/")
        } else {
            return sql;
        };
        sql = rest.map_or("", |(_, rest)| rest);
    }
}

/// The number in a placeholder such as `$2`.
pub(super) fn number(placeholder: Option<&str>) -> Result<usize> {
    placeholder
        .and_then(|name| name.strip_prefix('$')?.parse().ok())
        .filter(|number| *number > 0)
        .ok_or_else(|| {
            Error::usage(format!(
                "binding parameters: placeholders are $1, $2, .., not {:?}",
                placeholder.unwrap_or("?")
            ))
        })
}

/// Says how many parameters were given and how many it takes.
pub(super) fn wrong_count(sql: &str, needed: usize, given: usize) -> Error {
    Error::usage(format!(
        "binding parameters: {given} given, the statement needs {needed}: {}",
        shortened(sql)
    ))
}

/// Statements hold no values, so a log may show their beginning.
pub(super) fn shortened(sql: &str) -> String {
    const SHOWN: usize = 80;
    let mut words = sql.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = words.char_indices().nth(SHOWN) {
        words.truncate(end);
        words.push_str("..");
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_that_would_end_the_shared_transaction_are_refused() {
        for sql in [
            "COMMIT",
            "  rollback to x",
            "Begin;",
            "pragma synchronous=off",
            "/* done */ -- so\n ;COMMIT",
            "set lock_timeout = 0",
        ] {
            assert!(check(sql).is_err(), "{sql}");
        }
        for sql in [
            "SELECT 1",
            "insert into t values (1)",
            "-- COMMIT\nselect 1",
            "WITH x AS (SELECT 1) SELECT 1",
            "",
        ] {
            assert!(check(sql).is_ok(), "{sql}");
        }
    }

    #[test]
    fn placeholders_are_numbered_from_one() {
        assert_eq!(number(Some("$12")).unwrap(), 12);
        for wrong in [None, Some("$0"), Some("$x"), Some(":id"), Some("?1")] {
            assert!(number(wrong).is_err(), "{wrong:?}");
        }
    }
}
