//! What PostgreSQL says when something goes wrong, sorted into what callers act on.

use std::fmt;

use tokio_postgres::error::{DbError, SqlState};

use crate::backend::statement::shortened;
use crate::error::{Error, Kind};

/// Says which statement failed, and sorts the server's code.
pub(super) fn explain(sql: &str, error: tokio_postgres::Error) -> Error {
    let kind = kind(&error);
    let text = format!("running {:?}: {}", shortened(sql), words(kind));
    let constraint = error
        .as_db_error()
        .and_then(DbError::constraint)
        .map(str::to_owned);
    Error::new(kind, text)
        .violating(constraint)
        .because(Cause::new(error))
}

/// A connection that can't be made is waited for: an operator can mend it while records wait.
pub(super) fn unreachable(server: &str, error: tokio_postgres::Error) -> Error {
    Error::unavailable(format!("connecting to {server}")).because(Cause::new(error))
}

fn words(kind: Kind) -> &'static str {
    match kind {
        Kind::Unavailable => "the database is unavailable",
        Kind::Full => "the disk of the database is full",
        Kind::Locked => "another transaction has locked a row or table for too long",
        Kind::Conflict => "another transaction was in the way",
        Kind::Unique => "a unique key exists already",
        Kind::ForeignKey => "a row that it refers to is missing, or is referred to",
        Kind::Constraint => "a constraint of the table is violated",
        Kind::Damaged => "the database's files are damaged",
        Kind::Schema | Kind::Usage | Kind::TooLarge | Kind::Fenced | Kind::Occupied => {
            "the statement is wrong"
        }
    }
}

fn kind(error: &tokio_postgres::Error) -> Kind {
    match error.code() {
        Some(code) => kind_of(code),
        // Parameters that don't fit are our caller's; all else is the connection.
        None if is_about_parameters(error) => Kind::Usage,
        None => Kind::Unavailable,
    }
}

fn is_about_parameters(error: &tokio_postgres::Error) -> bool {
    std::error::Error::source(error).is_some_and(|cause| cause.is::<super::value::Unfit>())
}

fn kind_of(code: &SqlState) -> Kind {
    match code.code() {
        "23505" => Kind::Unique,
        "23503" => Kind::ForeignKey,
        "40001" | "40P01" => Kind::Conflict,
        "53100" => Kind::Full,
        "55P03" => Kind::Locked,
        // The server goes down or comes up, ends a session that stood still, or runs as a
        // standby after a switch; a statement took longer than the operator allows; another
        // process has changed a table under a prepared statement, or a pooler has lost it.
        "57P01" | "57P02" | "57P03" | "57P05" | "25P03" | "25006" | "57014" | "0A000" | "26000" => {
            Kind::Unavailable
        }
        code => match code.get(..2).unwrap_or_default() {
            "23" => Kind::Constraint,
            "08" | "53" | "58" => Kind::Unavailable,
            "XX" => Kind::Damaged,
            _ => Kind::Usage,
        },
    }
}

/// The server's error without what it quotes: its detail, and some of its messages, show values
/// of the row.
#[derive(Debug)]
struct Cause {
    text: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Cause {
    fn new(error: tokio_postgres::Error) -> Self {
        let Some(server) = error.as_db_error() else {
            let text = error.to_string();
            let source = error.into_source();
            return Self { text, source };
        };
        let code = server.code().code();
        let text = if quotes_values(code) {
            format!("SQLSTATE {code}")
        } else {
            format!("{} (SQLSTATE {code})", server.message())
        };
        Self { text, source: None }
    }
}

/// Data exceptions say which text was no number; `RAISE` in a trigger says what it likes.
fn quotes_values(code: &str) -> bool {
    code.starts_with("22") || code.starts_with("P0")
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Cause {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        let source = self.source.as_deref()?;
        Some(source as &(dyn std::error::Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted_by_what_helps() {
        let kinds = [
            ("23505", Kind::Unique),
            ("23503", Kind::ForeignKey),
            ("23514", Kind::Constraint),
            ("40001", Kind::Conflict),
            ("40P01", Kind::Conflict),
            ("08006", Kind::Unavailable),
            ("53300", Kind::Unavailable),
            ("53100", Kind::Full),
            ("57P03", Kind::Unavailable),
            ("55P03", Kind::Locked),
            ("42601", Kind::Usage),
            ("22P02", Kind::Usage),
            ("XX001", Kind::Damaged),
        ];
        for (code, expected) in kinds {
            assert_eq!(kind_of(&SqlState::from_code(code)), expected, "{code}");
        }
    }
}
