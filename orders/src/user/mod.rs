//! The user service: users, each with an address of its own.
//!
//! Creating one writes the row, the event for those who need users, and the entry of the audit trail in
//! one transaction: a failure at any point leaves none of the three.

use crate::events::users::{AUDIT_EVENTS, USER_EVENTS};
use crate::serve::{Declared, Scope};

pub(crate) mod http;
pub(crate) mod request;
pub(crate) mod store;

/// The user service: nothing comes in, `user-events` and `audit-events` go out.
pub(crate) async fn declare(scope: &Scope<'_>) -> Result<Declared, ackwell_sql::Error> {
    let db = scope.database("user", store::MIGRATIONS).await?;
    Ok(Declared {
        app: scope
            .app("user-service", &db)
            .topic(USER_EVENTS)
            .topic(AUDIT_EVENTS),
        routes: http::routes(db),
    })
}
