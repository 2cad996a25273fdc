//! The schema's history: applied once each, in order, and never changed afterwards.

use uuid::Uuid;

use crate::backend::Backend;
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
}

impl Migration {
    /// A step called `name` that runs `sql`: one or several statements, no placeholders.
    pub const fn new(name: &'static str, sql: &'static str) -> Self {
        Self { name, sql }
    }

    /// Checksum of the step. SHA-1 is enough against mistakes, which is all that it is for.
    fn checksum(&self) -> Uuid {
        Uuid::new_v5(&Uuid::NAMESPACE_OID, self.sql.as_bytes())
    }
}

/// The framework's steps and the program's count separately.
const FRAMEWORK: &str = "ackwell";
const PROGRAM: &str = "program";

const HISTORY: &str = "CREATE TABLE IF NOT EXISTS ackwell_migrations (
    scope TEXT NOT NULL,
    place INTEGER NOT NULL,
    name TEXT NOT NULL,
    checksum BLOB NOT NULL,
    applied_at INTEGER NOT NULL,
    PRIMARY KEY (scope, place)
) STRICT, WITHOUT ROWID";

/// Brings the schema up to date inside the open transaction of `backend`.
pub(crate) fn migrate(backend: &mut dyn Backend, program: &[Migration]) -> Result<()> {
    backend.run_script(HISTORY)?;
    let framework = backend.statements().schema;
    apply(backend, FRAMEWORK, framework)?;
    apply(backend, PROGRAM, program)
}

fn apply(backend: &mut dyn Backend, scope: &str, steps: &[Migration]) -> Result<()> {
    let applied = backend.query(
        "SELECT name, checksum FROM ackwell_migrations WHERE scope = $1 ORDER BY place",
        params![scope],
    )?;
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
        same(&row.get::<String>("name")?, row.get("checksum")?, step)?;
    }
    for (place, step) in steps.iter().enumerate().skip(applied.len()) {
        backend
            .run_script(step.sql)
            .map_err(|error| error.while_doing(format_args!("migrating step {:?}", step.name)))?;
        if !backend.in_transaction() {
            let text = format!("migrating step {:?}: it ended the transaction", step.name);
            return Err(Error::new(Kind::Schema, text));
        }
        backend.execute(
            "INSERT INTO ackwell_migrations (scope, place, name, checksum, applied_at) \
             VALUES ($1, $2, $3, $4, $5)",
            params![
                scope,
                place as i64,
                step.name,
                step.checksum(),
                jiff::Timestamp::now()
            ],
        )?;
        tracing::info!(scope, step = step.name, "schema step applied");
    }
    Ok(())
}

fn same(name: &str, checksum: Uuid, step: &Migration) -> Result<()> {
    if name == step.name && checksum == step.checksum() {
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
