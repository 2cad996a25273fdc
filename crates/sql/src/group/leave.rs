//! Leaving a group: what becomes of it is decided, then done.

use std::time::Duration;

use futures_util::FutureExt;
use tokio::runtime::Handle;

use super::{Lease, Settings};
use crate::backend::Connection;
use crate::error::Error;

/// What to do with the open group on leaving.
#[derive(Debug, PartialEq, Eq)]
enum Leave {
    HandOver,
    Commit,
    Discard,
}

fn decide(members: usize, age: Duration, waiting: usize, settings: &Settings) -> Leave {
    let full = members >= settings.group_members || age >= settings.group_time;
    match (members, waiting) {
        (_, 1..) if !full => Leave::HandOver,
        (0, _) => Leave::Discard,
        _ => Leave::Commit,
    }
}

/// Takes back what is `pending`; then the group is handed to the next who waits, or committed.
pub(super) fn leave(mut lease: Lease, pending: bool) {
    match &lease.connection {
        // Its statements don't wait; only its commit does.
        Connection::Sqlite(_) => {
            if pending {
                lease.undo().now_or_never();
            }
            leave_file(lease);
        }
        Connection::Postgres(_) => match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(leave_server(lease, pending))),
            // What drives the connection has ended, too.
            Err(_) => lease.lose(&Error::unavailable("the runtime has ended")),
        },
    }
}

fn leave_file(mut lease: Lease) {
    match lease.next() {
        None => {}
        Some(Leave::HandOver) => {
            let gate = lease.gate.clone();
            drop(lease);
            gate.tend();
        }
        Some(Leave::Discard) => {
            lease.discard().now_or_never();
        }
        Some(Leave::Commit) => {
            let commit = Commit(lease);
            match Handle::try_current() {
                Ok(runtime) => drop(runtime.spawn_blocking(move || drop(commit))),
                Err(_) => drop(commit),
            }
        }
    }
}

async fn leave_server(mut lease: Lease, pending: bool) {
    if pending {
        lease.undo().await;
    }
    match lease.next() {
        None => {}
        Some(Leave::Discard) => lease.discard().await,
        Some(Leave::HandOver | Leave::Commit) => lease.commit().await,
    }
}

impl Lease {
    fn next(&self) -> Option<Leave> {
        let waiting = if self.gate.shares {
            self.gate.waiting()
        } else {
            0
        };
        let group = self.group.as_ref()?;
        let (members, age) = (group.members, group.begun.elapsed());
        Some(decide(members, age, waiting, &self.gate.settings))
    }

    /// Takes back what was done since the savepoint, and only that.
    pub(super) async fn undo(&mut self) {
        self.gate.stats.rolled_back();
        if self.group.is_none() {
            return; // went with the group
        }
        if let Err(error) = self.connection.undo().await {
            // What cannot be taken back alone must not be committed with the others.
            self.connection.rollback().await;
            self.mourn(&error);
        }
    }

    async fn commit(&mut self) {
        let gate = self.gate.clone();
        gate.commit(self).await;
    }

    async fn discard(&mut self) {
        self.connection.rollback().await;
        if let Some(group) = self.group.take() {
            // Records that turned out to be duplicates wait for it, too.
            group.outcome.send_replace(Some(Ok(())));
        }
    }

    fn lose(&mut self, error: &Error) {
        if let Some(group) = self.group.take() {
            group.outcome.send_replace(Some(Err(error.clone())));
        }
    }
}

/// A commit on its way to a blocking thread. It happens when this is dropped, so also
/// when the runtime ends before the thread begins.
struct Commit(Lease);

impl Drop for Commit {
    fn drop(&mut self) {
        self.0.commit().now_or_never();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YOUNG: Duration = Duration::ZERO;

    #[test]
    fn a_lone_member_commits_at_once() {
        assert_eq!(decide(1, YOUNG, 0, &Settings::default()), Leave::Commit);
    }

    #[test]
    fn a_group_is_handed_to_the_next_who_waits() {
        assert_eq!(decide(1, YOUNG, 1, &Settings::default()), Leave::HandOver);
        assert_eq!(decide(0, YOUNG, 1, &Settings::default()), Leave::HandOver);
    }

    #[test]
    fn a_large_or_old_group_commits_although_others_wait() {
        let settings = Settings::default();
        assert_eq!(
            decide(settings.group_members, YOUNG, 9, &settings),
            Leave::Commit
        );
        assert_eq!(decide(1, settings.group_time, 9, &settings), Leave::Commit);
    }

    #[test]
    fn a_group_without_members_is_not_worth_a_commit() {
        assert_eq!(decide(0, YOUNG, 0, &Settings::default()), Leave::Discard);
    }
}
