//! Which database a test uses: a file in its folder, or, where `DATABASE_URL` names a PostgreSQL server, a
//! schema of its own there.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::path::Path;

use uuid::Uuid;

/// The URL of the database that belongs to `folder`: the same for every process that asks.
pub fn database_url(folder: &Path) -> String {
    match server() {
        None => format!("sqlite:{}", folder.join("data").join("test.db").display()),
        Some(server) => {
            let separator = if server.contains('?') { '&' } else { '?' };
            format!("{server}{separator}schema={}", schema(folder))
        }
    }
}

/// Whether the tests run on PostgreSQL.
pub fn is_postgres() -> bool {
    server().is_some()
}

/// The URL of the server, if there is one.
pub fn server() -> Option<String> {
    let url = std::env::var("DATABASE_URL").ok()?;
    url.starts_with("postgres").then_some(url)
}

fn schema(folder: &Path) -> String {
    let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, folder.as_os_str().as_encoded_bytes());
    format!("test_{}", id.simple())
}
