//! What is checked of a statement before it runs.

use crate::error::{Error, Result};

/// Words that begin a statement which would end, or escape, the shared transaction.
const RESERVED: [&str; 9] = [
    "BEGIN",
    "COMMIT",
    "END",
    "ROLLBACK",
    "SAVEPOINT",
    "RELEASE",
    "ATTACH",
    "DETACH",
    "PRAGMA",
];

/// Refuses statements that would end the transaction which several members share.
pub(super) fn check(sql: &str) -> Result<()> {
    let word = sql
        .trim_start()
        .split(|c: char| !c.is_ascii_alphabetic())
        .next()
        .unwrap_or("");
    if RESERVED
        .iter()
        .any(|reserved| reserved.eq_ignore_ascii_case(word))
    {
        return Err(Error::usage(format!(
            "running {word:?}: transactions are begun and ended by Tx, not by statements"
        )));
    }
    Ok(())
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
        ] {
            assert!(check(sql).is_err(), "{sql}");
        }
        for sql in [
            "SELECT 1",
            "insert into t values (1)",
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
