use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::FromRecord;
use crate::container::RunAcks;
use crate::context::{Context, Setup, SetupError};
use crate::failure::Failure;

/// The acknowledgement of one record, in the ack modes [`Manual`](crate::AckMode::Manual) and
/// [`ManualImmediate`](crate::AckMode::ManualImmediate).
///
/// The record is settled when it is acknowledged, and not when its handler returns. That may be
/// at any time, from any task and in any order; the committed position never passes a record
/// that is not acknowledged. Meanwhile later records are handled, also those of the same lane,
/// until so many are open that the queue is full; then the partition waits.
///
/// - [`acknowledge`](Ack::acknowledge) settles it; [`commit`](Ack::commit) also waits for the broker.
/// - [`nack`](Ack::nack) has it handled again after a delay, before what waits behind it.
/// - Dropped without either, it is a transient failure of the record, logged and counted: it is
///   retried by the listener's policy and in the end dead-lettered.
/// - A handler that returns an error has the verdict of its error's class; an acknowledgement that
///   was not given by then is stale, and one that was given before stays given.
/// - A record that waits for its acknowledgement for more than a minute makes the listener unhealthy
///   until it comes, see
///   [`unacknowledged_limit`](crate::listener::ListenerBuilder::unacknowledged_limit).
/// - When the partition is handed over, or the listener stops, open acknowledgements are awaited up
///   to the drain limit. Then they are stale, and their records come again elsewhere.
///
/// ```
/// use ackwell::extract::{Ack, Raw, State};
/// use ackwell::{AckMode, Listener};
/// use tokio::sync::mpsc::Sender;
///
/// async fn queue(Raw(value): Raw, ack: Ack, State(jobs): State<Sender<(Vec<u8>, Ack)>>) {
///     // Whoever takes the job acknowledges it. If nobody does, the record comes again.
///     let _ = jobs.send((value.to_vec(), ack)).await;
/// }
///
/// let listener = Listener::on("jobs").group("workers").ack_mode(AckMode::Manual).handle(queue);
/// # let _ = listener;
/// ```
#[must_use = "dropped, it has the record handled again"]
pub struct Ack {
    run: Arc<RunAcks>,
    place: usize,
    given: bool,
}

/// Whether an acknowledgement or refusal came in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledged {
    /// It counts. The position is committed when the ack mode says so; if the partition is lost
    /// before that, the record comes again.
    InTime,
    /// The record was taken away before: its partition went to another member or was read anew,
    /// the listener stopped, or its handler failed. It is, or will be, handled again.
    Stale,
}

/// The record of an [`Ack::commit`] was taken away before the broker knew that it is settled; it may
/// be handled again, here or elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the record was taken away before its acknowledgement was committed")]
pub struct NotCommitted;

impl Ack {
    pub(crate) fn new(run: Arc<RunAcks>, place: usize) -> Option<Self> {
        run.take(place).then_some(Ack {
            run,
            place,
            given: false,
        })
    }

    /// The record is settled. Does not wait; the position is committed by the listener's mode.
    pub fn acknowledge(mut self) -> Acknowledged {
        self.given = true;
        Acknowledged::from(self.run.acknowledge(self.place))
    }

    /// The record is settled; waits until the broker has stored that, so that no crash brings it
    /// back. It is acknowledged at the call, and not first when the future is polled.
    ///
    /// With `ManualImmediate`, that takes a round trip to the broker; with `Manual`, until the commit of
    /// the batch. While earlier records are open, it is stored beside the position; where there is
    /// no room for it, see [`metadata`](crate::core::metadata), the answer comes when the position
    /// passes the record.
    ///
    /// # Errors
    ///
    /// When the partition was given away, or the listener ended, before the broker had answered.
    ///
    /// # Cancel safety
    ///
    /// The record stays acknowledged if the future is dropped; only the answer is missed.
    pub fn commit(
        mut self,
    ) -> impl Future<Output = Result<(), NotCommitted>> + Send + Sync + 'static + use<> {
        self.given = true;
        let answered = self.run.commit(self.place);
        async move {
            match answered.await {
                Ok(true) => Ok(()),
                Ok(false) | Err(_) => Err(NotCommitted),
            }
        }
    }

    /// Has the record handled again after `delay`, never earlier, and before what waits behind it in
    /// its lane. It is no failure: it uses up no attempt, and a record can be refused without end.
    pub fn nack(mut self, delay: Duration) -> Acknowledged {
        self.given = true;
        Acknowledged::from(self.run.nack(self.place, delay))
    }

    /// Whether it is too late: whatever is called now is [`Stale`](Acknowledged::Stale).
    pub fn is_stale(&self) -> bool {
        self.run.is_stale(self.place)
    }
}

impl Drop for Ack {
    fn drop(&mut self) {
        if !self.given {
            self.run.dropped(self.place);
        }
    }
}

impl From<bool> for Acknowledged {
    fn from(in_time: bool) -> Self {
        if in_time { Self::InTime } else { Self::Stale }
    }
}

impl fmt::Debug for Ack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ack")
            .field("run", &self.run)
            .field("place", &self.place)
            .finish()
    }
}

impl FromRecord for Ack {
    const LOOKS_AT_HEADERS: bool = false;

    fn from_record(cx: &mut Context) -> Result<Self, Failure> {
        let ack = cx.extensions().take_ack();
        ack.ok_or_else(|| Failure::permanent("the record has no acknowledgement to give away"))
    }

    fn prepare(setup: &mut Setup<'_>) -> Result<(), SetupError> {
        setup.acknowledges()
    }
}
