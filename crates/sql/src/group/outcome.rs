//! What became of a group, for each who was a member of it.

use tokio::sync::watch;

use crate::error::{Error, Result};

/// Whether the group that one was a member of is durable.
#[derive(Clone)]
pub(crate) struct Outcome(pub(super) watch::Receiver<Option<Result<()>>>);

impl Outcome {
    pub(super) fn lost() -> Self {
        let error = Error::unavailable("the group's transaction was ended by an error");
        Self(watch::Sender::new(Some(Err(error))).subscribe())
    }

    /// Whether both are of the same group.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.0.same_channel(&other.0)
    }

    /// Whether it is known what became of the group.
    pub(crate) fn is_decided(&self) -> bool {
        self.0.borrow().is_some() || self.0.has_changed().is_err()
    }

    /// Fails when the group is known not to be durable.
    pub(crate) fn check(&self) -> Result<()> {
        self.0.borrow().clone().unwrap_or(Ok(()))
    }

    /// Waits until the group is durable.
    ///
    /// # Errors
    /// When it could not be committed: none of its members' work is kept.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing: the group commits without being watched.
    pub(crate) async fn durable(mut self) -> Result<()> {
        match self.0.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or(Ok(())),
            Err(_) => Err(Error::unavailable(
                "the database was closed before the commit",
            )),
        }
    }
}
