//! The mark of a record, sent together with its handler's first statement.
//!
//! Waiting for the mark's answer would be one round trip a record. The server carries both out in their
//! order, and the mark's answer is looked at first: where the record was marked before, the statement's answer is
//! nobody's business, and what it did is taken back with the record's savepoint. So only a statement is sent
//! that could have been sent anyway: one that is not prepared here, or that does not fit its parameters, waits for the
//! mark, since what it fails with must not be told of a duplicate.

use std::time::SystemTime;

use futures_util::future::join;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Statement};

use super::{Postgres, batch};
use crate::error::{Error, Result};
use crate::inbox::INSERT;
use crate::mutation::{self, Fault};
use crate::value::Value;

/// How far the mark of the member at work is.
#[derive(Debug, Default)]
pub(super) enum Ahead {
    /// There is none, or it is set.
    #[default]
    Nothing,
    /// It goes with the statement that comes next.
    Waiting { group: Box<str>, event: Vec<u8> },
    /// It was there before.
    Duplicate,
}

/// A mark on its way.
pub(super) struct Mark {
    statement: Statement,
    group: Box<str>,
    event: Vec<u8>,
}

/// Sets the mark, if there is one; answers how many rows that are.
pub(super) async fn insert(
    client: &Client,
    mark: Option<&Mark>,
) -> Result<Option<u64>, tokio_postgres::Error> {
    let Some(mark) = mark else {
        return Ok(None);
    };
    let now = SystemTime::now();
    let params: [&(dyn ToSql + Sync); 3] = [&&*mark.group, &mark.event, &now];
    client.execute(&mark.statement, &params).await.map(Some)
}

impl Postgres {
    /// Marks `event` as handled by `group` with the statement that comes next.
    pub(crate) fn mark_ahead(&mut self, group: &str, event: Vec<u8>) {
        self.mark = Ahead::Waiting {
            group: group.into(),
            event,
        };
    }

    /// Whether a mark goes with the statement that comes next.
    pub(crate) fn is_marking(&self) -> bool {
        matches!(self.mark, Ahead::Waiting { .. })
    }

    /// What goes with statement `sql`: the mark, unless it has to be set first, as is then done here.
    pub(super) async fn mark_with(
        &mut self,
        sql: &str,
        params: &[Value<'_>],
    ) -> Result<Option<Mark>> {
        if !self.is_marking() {
            return Ok(None);
        }
        let statement = self.prepared(INSERT).await?.statement;
        let Ahead::Waiting { group, event } = std::mem::take(&mut self.mark) else {
            return Ok(None);
        };
        let mark = Mark {
            statement,
            group,
            event,
        };
        if self.is_ready(sql, params) {
            return Ok(Some(mark));
        }
        let ahead = std::mem::take(&mut self.ahead);
        let client = self.client()?;
        let (first, marked) = join(batch(client, &ahead), insert(client, Some(&mark))).await;
        self.marked(INSERT, first.and(marked)).await?;
        Ok(None)
    }

    /// Whether nothing can be wrong with a statement before the server carries it out.
    fn is_ready(&self, sql: &str, params: &[Value<'_>]) -> bool {
        let statements = self.link.as_ref().map(|link| &link.statements);
        let prepared = statements.and_then(|statements| statements.get(sql));
        prepared.is_some_and(|prepared| prepared.statement.params().len() == params.len())
    }

    /// Looks at the answer to a mark, where one was sent.
    pub(super) async fn marked(
        &mut self,
        sql: &str,
        answer: Result<Option<u64>, tokio_postgres::Error>,
    ) -> Result<()> {
        let rows = self.ended(sql, answer).await?;
        if rows == Some(0) && !mutation::is(Fault::MarkUnchecked) {
            self.mark = Ahead::Duplicate;
            return Err(Error::usage("handling a record that was handled before"));
        }
        Ok(())
    }

    /// Whether the mark of the member at work was there before.
    pub(crate) fn is_duplicate(&self) -> bool {
        matches!(self.mark, Ahead::Duplicate)
    }
}
