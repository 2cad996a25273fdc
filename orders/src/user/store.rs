//! What the user service keeps.

use ackwell_sql::{Database, Migration, Row, Tx, params};
use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use super::request::NewUser;
use crate::error::Error;
use crate::events::users::{ActionRecorded, AuditEvent, UserCreated, UserEvent};

/// The schema of the user service.
pub(crate) const MIGRATIONS: &[Migration] = &[Migration::new(
    "users",
    "CREATE TABLE users (
         user_id BLOB PRIMARY KEY,
         email TEXT NOT NULL,
         -- The address in small letters: one is one, however it is written.
         email_key TEXT NOT NULL UNIQUE,
         name TEXT NOT NULL,
         created_at INTEGER NOT NULL
     ) STRICT",
)
.postgres(
    "CREATE TABLE users (
         user_id UUID PRIMARY KEY,
         email TEXT NOT NULL,
         email_key TEXT NOT NULL UNIQUE,
         name TEXT NOT NULL,
         created_at TIMESTAMPTZ NOT NULL
     )",
)];

/// A user as the service shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct User {
    pub(crate) user_id: Uuid,
    pub(crate) email: String,
    pub(crate) name: String,
    pub(crate) created_at: Timestamp,
}

/// Creates a user, with its event and its entry in the audit trail; `None` if the address has one.
pub(crate) async fn create(tx: &mut Tx, new: NewUser) -> Result<Option<Uuid>, Error> {
    let NewUser { email, name } = new;
    let (user_id, key, at) = (Uuid::now_v7(), email.to_lowercase(), Timestamp::now());
    let created = tx
        .execute(
            "INSERT INTO users (user_id, email, email_key, name, created_at)
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT (email_key) DO NOTHING",
            params![user_id, email, key, name, at],
        )
        .await?;
    if created == 0 {
        return Ok(None);
    }
    let created = UserCreated {
        user_id,
        email,
        name,
    };
    tx.emit(&UserEvent::UserCreated(created)).await?;
    let recorded = ActionRecorded {
        aggregate_type: "user".to_owned(),
        aggregate_id: user_id,
        action: "created".to_owned(),
    };
    tx.emit(&AuditEvent::ActionRecorded(recorded)).await?;
    Ok(Some(user_id))
}

/// One user.
pub(crate) async fn user(db: &Database, user_id: Uuid) -> Result<Option<User>, Error> {
    let sql = "SELECT user_id, email, name, created_at FROM users WHERE user_id = $1";
    let row = db.query_opt(sql, params![user_id]).await?;
    row.as_ref().map(user_of).transpose()
}

fn user_of(row: &Row) -> Result<User, Error> {
    Ok(User {
        user_id: row.get("user_id")?,
        email: row.get("email")?,
        name: row.get("name")?,
        created_at: row.get("created_at")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn creating(db: &Database, email: &str) -> Option<Uuid> {
        let mut tx = db.begin();
        let (email, name) = (email.to_owned(), "A".to_owned());
        let created = create(&mut tx, NewUser { email, name }).await.unwrap();
        tx.commit().await.unwrap();
        created
    }

    #[tokio::test]
    async fn an_address_has_one_user_and_a_user_both_events() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("user.db").display());
        let db = Database::open(&url, MIGRATIONS).await.unwrap();
        let first = creating(&db, "a@example.org").await.unwrap();
        assert_eq!(creating(&db, "A@Example.org").await, None);
        let shown = user(&db, first).await.unwrap().unwrap();
        assert_eq!(shown.email, "a@example.org");
        let sql = "SELECT topic FROM ackwell_outbox ORDER BY id";
        let rows = db.query(sql, params![]).await.unwrap();
        let topics: Vec<String> = rows.iter().map(|row| row.get(0).unwrap()).collect();
        assert_eq!(topics, ["user-events", "audit-events"]);
    }
}
