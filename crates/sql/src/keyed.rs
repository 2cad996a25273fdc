//! Rows that events write: the four ways to do it once, however often the event comes.
//!
//! The inbox keeps an event from being handled twice. It does not know two events that say the same,
//! nor one that comes late and is older than what stands in the table. That is what a row's key and
//! its sequence are for, and a `SELECT` before the `INSERT` is not: between the two, another
//! transaction writes.
//!
//! | | the first event | a later one with the same key | use it for |
//! |---|---|---|---|
//! | [`insert`](Keyed::insert) | inserts | changes nothing, and says so | what is done once: a notification, a shipment |
//! | [`put`](Keyed::put) | inserts | overwrites | the last one is right: a profile, a price |
//! | [`advance`](Keyed::advance) | inserts | overwrites if its sequence is higher | a state with an order: a late PROGRESS never overwrites DONE |
//! | [`update_or_insert`](Keyed::update_or_insert) | inserts | overwrites, by `UPDATE` first | as `put`, where nearly every event finds its row: it spares the failed insert |

use std::sync::OnceLock;

use crate::error::{Error, Result};
use crate::tx::Tx;
use crate::value::Value;

/// A table whose rows are written by events, by a key that is unique there.
///
/// A row's values are given in the order of the columns: those of the key first.
///
/// ```no_run
/// use ackwell_sql::{Keyed, Tx, params};
///
/// static SHIPMENTS: Keyed = Keyed::table("shipments", &["order_id"], &["address"]);
/// static TASKS: Keyed = Keyed::table("tasks", &["task_id"], &["state", "step"]).in_sequence("step");
///
/// # async fn f(tx: &mut Tx) -> Result<(), ackwell_sql::Error> {
/// if SHIPMENTS.insert(tx, params!["o-1", "Main Street 1"]).await? {
///     // For the first time: tell somebody.
/// }
/// TASKS.advance(tx, params!["t-1", "DONE", 2]).await?;
/// let late = TASKS.advance(tx, params!["t-1", "PROGRESS", 1]).await?;
/// assert!(!late, "the row is DONE and stays so");
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Keyed {
    table: &'static str,
    key: &'static [&'static str],
    columns: &'static [&'static str],
    sequence: Option<&'static str>,
    statements: OnceLock<Statements>,
}

#[derive(Debug)]
struct Statements {
    insert: String,
    put: String,
    advance: Option<String>,
    update: Option<String>,
}

impl Keyed {
    /// The table `table`, with the columns of a unique key and the others that are written.
    pub const fn table(
        table: &'static str,
        key: &'static [&'static str],
        columns: &'static [&'static str],
    ) -> Self {
        Self {
            table,
            key,
            columns,
            sequence: None,
            statements: OnceLock::new(),
        }
    }

    /// The column, one of those written, that grows from each state to the next: what
    /// [`advance`](Self::advance) compares.
    #[must_use]
    pub const fn in_sequence(mut self, column: &'static str) -> Self {
        self.sequence = Some(column);
        self
    }

    /// Inserts a row, unless one with its key is there; answers whether it was new.
    ///
    /// # Errors
    /// Those of [`Tx::execute`]. A violation of any other constraint is an error, and no duplicate.
    pub async fn insert(&self, tx: &mut Tx, row: &[Value<'_>]) -> Result<bool> {
        self.run(tx, &self.statements().insert, row).await
    }

    /// Inserts a row, or overwrites the one with its key.
    ///
    /// # Errors
    /// Those of [`Tx::execute`].
    pub async fn put(&self, tx: &mut Tx, row: &[Value<'_>]) -> Result<()> {
        self.run(tx, &self.statements().put, row).await.map(drop)
    }

    /// Inserts a row, or overwrites the one with its key if that stands at a lower sequence; answers
    /// whether it wrote. The same sequence again changes nothing.
    ///
    /// # Errors
    /// Those of [`Tx::execute`]; and when the table has no sequence.
    pub async fn advance(&self, tx: &mut Tx, row: &[Value<'_>]) -> Result<bool> {
        let statement = self.statements().advance.as_deref();
        let statement = statement.ok_or_else(|| {
            let table = self.table;
            Error::usage(format!(
                "advancing a row of {table}: it has no sequence; name its column by `in_sequence`"
            ))
        })?;
        self.run(tx, statement, row).await
    }

    /// Overwrites the row with this key, or inserts it; answers whether it was there.
    ///
    /// # Errors
    /// Those of [`Tx::execute`].
    pub async fn update_or_insert(&self, tx: &mut Tx, row: &[Value<'_>]) -> Result<bool> {
        let Some(update) = &self.statements().update else {
            return Ok(!self.insert(tx, row).await?);
        };
        if self.run(tx, update, row).await? {
            return Ok(true);
        }
        self.put(tx, row).await?;
        Ok(false)
    }

    async fn run(&self, tx: &mut Tx, statement: &str, row: &[Value<'_>]) -> Result<bool> {
        let (given, wanted) = (row.len(), self.key.len() + self.columns.len());
        if given != wanted {
            let table = self.table;
            return Err(Error::usage(format!(
                "writing a row of {table}: {given} values for {wanted} columns"
            )));
        }
        Ok(tx.execute(statement, row).await? > 0)
    }

    fn statements(&self) -> &Statements {
        self.statements.get_or_init(|| {
            let insert = self.insert_statement();
            let (key, set) = (self.key.join(", "), self.overwrite());
            let put = match &set {
                Some(set) => format!("{insert} ON CONFLICT ({key}) DO UPDATE SET {set}"),
                None => format!("{insert} ON CONFLICT ({key}) DO NOTHING"),
            };
            let advance = self
                .sequence
                .map(|column| format!("{put} WHERE {}.{column} < excluded.{column}", self.table));
            Statements {
                insert: format!("{insert} ON CONFLICT ({key}) DO NOTHING"),
                put,
                advance,
                update: set.is_some().then(|| self.update_statement()),
            }
        })
    }

    fn insert_statement(&self) -> String {
        let names = [self.key, self.columns].concat();
        let places: Vec<_> = (1..=names.len()).map(|at| format!("${at}")).collect();
        let (table, names, places) = (self.table, names.join(", "), places.join(", "));
        format!("INSERT INTO {table} ({names}) VALUES ({places})")
    }

    fn overwrite(&self) -> Option<String> {
        let set = |column: &&str| format!("{column} = excluded.{column}");
        let sets: Vec<_> = self.columns.iter().map(set).collect();
        (!sets.is_empty()).then(|| sets.join(", "))
    }

    fn update_statement(&self) -> String {
        let equal = |names: &[&str], first: usize| -> Vec<String> {
            let places = names.iter().zip(first..);
            places.map(|(name, at)| format!("{name} = ${at}")).collect()
        };
        let key = equal(self.key, 1).join(" AND ");
        let set = equal(self.columns, self.key.len() + 1).join(", ");
        format!("UPDATE {} SET {set} WHERE {key}", self.table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statements_are_plain_sql() {
        let table = Keyed::table("t", &["a", "b"], &["c", "d"]).in_sequence("d");
        let Statements {
            insert,
            put,
            advance,
            update,
        } = table.statements();
        assert_eq!(
            insert,
            "INSERT INTO t (a, b, c, d) VALUES ($1, $2, $3, $4) ON CONFLICT (a, b) DO NOTHING"
        );
        assert!(put.ends_with("ON CONFLICT (a, b) DO UPDATE SET c = excluded.c, d = excluded.d"));
        assert!(
            advance
                .as_ref()
                .unwrap()
                .ends_with(" WHERE t.d < excluded.d")
        );
        assert_eq!(
            update.as_ref().unwrap(),
            "UPDATE t SET c = $3, d = $4 WHERE a = $1 AND b = $2"
        );
    }

    #[test]
    fn a_table_that_is_all_key_has_nothing_to_overwrite() {
        let table = Keyed::table("t", &["a"], &[]);
        assert_eq!(table.statements().put, table.statements().insert);
        assert!(table.statements().update.is_none());
    }
}
