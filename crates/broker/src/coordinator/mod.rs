//! What the coordinators of groups and of transactions share: a decision is a record, and what is
//! not in the log never happened.
//!
//! Both answer requests from state that must survive a crash. Each has a pure [`Machine`] that
//! decides: a request yields replies and the [`Record`]s that make them true, and replaying the
//! records rebuilds the state. Everything else is here once: appending what was decided, holding
//! replies back until the disk has it, writing the live state anew when the log has grown, and
//! reading it back at a start or when the disk refused.
//!
//! | file | what it does |
//! |---|---|
//! | `shards` | one task per partition of the coordinator's topic; requests find theirs by key |
//! | `shard` | the task: decide, append, await the disk, reply, act |
//! | `journal` | the partition's log: replay, append, snapshot |
//! | `wire` | the primitive types of the records |

#[cfg(test)]
pub(crate) mod fuzz;
mod journal;
mod shard;
mod shards;
mod wire;
#[cfg(test)]
pub(crate) mod world;

use bytes::Bytes;
use futures_util::future::BoxFuture;

pub(crate) use shards::{Shards, shard_of};
pub(crate) use wire::{Malformed, Reader, Writer};

use crate::Error;
pub(crate) use crate::log::{ProducerEpoch, Verdict};

/// The moment of a step. Two clocks, because a wall clock that is set must not end a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Now {
    /// Milliseconds of a clock that only goes forward.
    pub(crate) tick_ms: u64,
    /// Milliseconds since the Unix epoch, for what is written to the log.
    pub(crate) unix_ms: i64,
}

/// Names a request, so that its reply finds back, perhaps many steps later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Token(pub(crate) u64);

/// What a step yielded.
#[derive(Debug)]
pub(crate) struct Output<Response, Change, Action> {
    /// Answers to this step's request or to earlier ones.
    pub(crate) replies: Vec<(Token, Response)>,
    /// What must be durable before the replies are true, in order.
    pub(crate) changes: Vec<Change>,
    /// What is to be done outside when the changes are durable, in order.
    pub(crate) actions: Vec<Action>,
}

impl<Response, Change, Action> Default for Output<Response, Change, Action> {
    fn default() -> Self {
        Self {
            replies: Vec::new(),
            changes: Vec::new(),
            actions: Vec::new(),
        }
    }
}

/// What one step of a machine yields.
pub(crate) type OutputOf<M> =
    Output<<M as Machine>::Response, <M as Machine>::Change, <M as Machine>::Action>;

/// The decisions about everything that one partition of a coordinator's topic holds, without a
/// clock, a disk or a network.
pub(crate) trait Machine: Send + 'static {
    type Request: Send + 'static;
    type Response: Send + 'static;
    type Change: Record;
    /// What is done outside once a decision is durable; its end may come back as a request.
    type Action: Send + 'static;

    /// Decides on a request. Its reply is in the output of this step or of a later one.
    fn on_request(&mut self, now: Now, token: Token, request: Self::Request);
    /// Decides on what is due.
    fn on_tick(&mut self, now: Now);
    /// When [`Machine::on_tick`] is wanted, on the clock of [`Now::tick_ms`].
    fn deadline(&self) -> u64;
    /// What the steps since the last call yielded.
    fn take_output(&mut self) -> OutputOf<Self>;

    /// Takes up a record of the log. Only before the first request.
    fn replay(&mut self, change: Self::Change);
    /// The log is at its end.
    fn replay_done(&mut self, now: Now);
    /// The records that a replay would need to come to the same state.
    fn live(&self) -> impl Iterator<Item = Self::Change>;
    /// Whether a response promises nothing that a crash could take back.
    fn is_promise(response: &Self::Response) -> bool;
}

/// One record of a coordinator's log.
pub(crate) trait Record: Sized + Clone + Send + Sync + 'static {
    /// What kind of batch it stands in.
    fn framing(&self) -> Framing {
        Framing::Plain
    }
    /// Key and value; not asked of a marker.
    fn encode(&self) -> (Bytes, Option<Bytes>);
    /// Reads a record, from a transactional batch if there is a producer; `None` when it is of a
    /// kind that is not known here.
    fn decode(
        key: &Bytes,
        value: Option<&Bytes>,
        producer: Option<ProducerEpoch>,
    ) -> Result<Option<Self>, Malformed>;
    /// The end of a transaction that wrote to this log.
    fn marker(_producer: ProducerEpoch, _verdict: Verdict) -> Option<Self> {
        None
    }
}

/// The batch that a record stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// It counts at once.
    Plain,
    /// It counts when its producer's transaction commits.
    Transactional(ProducerEpoch),
    /// It ends a transaction.
    Marker(ProducerEpoch, Verdict),
}

/// A machine's surroundings: how it is made, and who carries out its actions.
pub(crate) trait Host: Clone + Send + Sync + 'static {
    type Machine: Machine;

    /// What log lines call it.
    const NAME: &'static str;

    /// A machine that knows nothing yet.
    fn machine(&self, now: Now) -> Self::Machine;
    /// The machine has its log read back; what happened outside meanwhile is made up for.
    fn caught_up(&self, _now: Now, _machine: &mut Self::Machine) {}
    /// Does what the machine decided, now; what is awaited for it may come back as a request.
    fn act(&self, action: ActionOf<Self>) -> BoxFuture<'static, Option<RequestOf<Self>>>;
    /// Bytes that may be appended before the live state is written anew.
    fn snapshot_bytes(&self) -> u64;
    /// Requests that wait for one shard at most; a sender beyond them waits.
    fn queue_max(&self) -> usize;
}

pub(crate) type RequestOf<H> = <<H as Host>::Machine as Machine>::Request;
pub(crate) type ResponseOf<H> = <<H as Host>::Machine as Machine>::Response;
pub(crate) type ActionOf<H> = <<H as Host>::Machine as Machine>::Action;

fn cause(error: &Error) -> Option<String> {
    std::error::Error::source(error).map(ToString::to_string)
}
