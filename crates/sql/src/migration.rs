//! The schema's history: applied once each, in order, and never changed afterwards.

use uuid::Uuid;

use crate::backend::{Connection, Dialect};
use crate::error::{Error, Kind, Result};
use crate::params;

/// One step of a schema.
///
/// Steps are applied in the order in which the program lists them, all in one
/// transaction. A step that was applied must not change, and none may be put before it:
/// the database remembers name and checksum of each, and refuses to open otherwise.
///
/// ```
/// use ackwell_sql::Migration;
/// const MIGRATIONS: &[Migration] = &[
///     Migration::new("products", "CREATE TABLE products (id TEXT PRIMARY KEY, stock INTEGER NOT NULL) STRICT"),
/// ];
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    name: &'static str,
    sql: &'static str,
    /// PostgreSQL's words, where they are others.
    postgres: Option<&'static str>,
}

impl Migration {
    /// A step called `name` that runs `sql`: one or several statements, no placeholders.
    pub const fn new(name: &'static str, sql: &'static str) -> Self {
        Self {
            name,
            sql,
            postgres: None,
        }
    }

    /// The same step in PostgreSQL's words; without, it is one text for both databases.
    ///
    /// ```
    /// use ackwell_sql::Migration;
    /// const PICTURES: Migration = Migration::new(
    ///     "pictures",
    ///     "CREATE TABLE pictures (id INTEGER PRIMARY KEY, picture BLOB NOT NULL) STRICT",
    /// )
    /// .postgres("CREATE TABLE pictures (id BIGINT PRIMARY KEY, picture BYTEA NOT NULL)");
    /// ```
    #[must_use]
    pub const fn postgres(mut self, sql: &'static str) -> Self {
        self.postgres = Some(sql);
        self
    }

    fn text(&self, dialect: Dialect) -> &'static str {
        match (dialect, self.postgres) {
            (Dialect::Postgres, Some(sql)) => sql,
            _ => self.sql,
        }
    }

    /// Checksum of the step. SHA-1 is enough against mistakes, which is all that it is for.
    fn checksum(&self, dialect: Dialect) -> Uuid {
        Uuid::new_v5(&Uuid::NAMESPACE_OID, self.text(dialect).as_bytes())
    }
}

/// The framework's steps and the program's count separately.
const FRAMEWORK: &str = "ackwell";
const PROGRAM: &str = "program";

/// Brings the schema up to date inside the open transaction of `connection`.
pub(crate) async fn migrate(connection: &mut Connection, program: &[Migration]) -> Result<()> {
    let statements = connection.dialect().statements();
    if let Some(lock) = statements.lock_schema {
        connection.query(lock, &[]).await?;
    }
    connection.run_script(statements.history).await?;
    apply(connection, FRAMEWORK, statements.schema).await?;
    apply(connection, PROGRAM, program).await
}

async fn apply(connection: &mut Connection, scope: &str, steps: &[Migration]) -> Result<()> {
    let dialect = connection.dialect();
    let applied = connection
        .query(
            "SELECT name, checksum FROM ackwell_migrations WHERE scope = $1 ORDER BY place",
            params![scope],
        )
        .await;
    let applied = applied?;
    if applied.len() > steps.len() {
        let name: String = applied[steps.len()].get("name")?;
        return Err(Error::new(
            Kind::Schema,
            format!(
                "migrating: the database has step {name:?}, which this program does not know; \
                 run the newer program that wrote it, or restore an older copy"
            ),
        ));
    }
    for (row, step) in applied.iter().zip(steps) {
        same(
            &row.get::<String>("name")?,
            row.get("checksum")?,
            step,
            dialect,
        )?;
    }
    for (place, step) in steps.iter().enumerate().skip(applied.len()) {
        connection
            .run_script(step.text(dialect))
            .await
            .map_err(|error| error.while_doing(format_args!("migrating step {:?}", step.name)))?;
        if !connection.in_transaction() {
            let text = format!("migrating step {:?}: it ended the transaction", step.name);
            return Err(Error::new(Kind::Schema, text));
        }
        let noted = connection
            .execute(
                "INSERT INTO ackwell_migrations (scope, place, name, checksum, applied_at) \
             VALUES ($1, $2, $3, $4, $5)",
                params![
                    scope,
                    place as i64,
                    step.name,
                    step.checksum(dialect),
                    jiff::Timestamp::now()
                ],
            )
            .await;
        noted?;
        tracing::info!(scope, step = step.name, "schema step applied");
    }
    Ok(())
}

fn same(name: &str, checksum: Uuid, step: &Migration, dialect: Dialect) -> Result<()> {
    if name == step.name && checksum == step.checksum(dialect) {
        return Ok(());
    }
    Err(Error::new(
        Kind::Schema,
        format!(
            "migrating: step {name:?} was applied with another text than the program's {:?}; \
             leave applied steps as they were and add a new one",
            step.name
        ),
    ))
}
