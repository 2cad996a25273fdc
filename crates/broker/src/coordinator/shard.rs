//! One partition of a coordinator at work: a task that owns a [`Machine`] and its [`Journal`].
//!
//! It takes up all requests that wait, lets the machine decide, appends what was decided with one
//! write, and while that becomes durable takes up the next. Replies go out in the order of the log:
//! each when everything that was appended before it is durable, so that nobody is told, or reads,
//! what a crash could take back. A heartbeat promises nothing and is answered at once. Timeouts are
//! one timer, set to the machine's next deadline. What is to be done outside is begun when the
//! decision is durable, and its end comes back to the machine as a request.
//!
//! When the disk refuses, memory is ahead of the log. The shard then forgets its memory, tells
//! everybody who waits that the coordinator is not available, and reads the log back.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use rustc_hash::FxHashMap;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

use super::journal::{Journal, Snapshot};
use super::{ActionOf, Host, Machine, Now, Output, RequestOf, ResponseOf, Token, cause};
use crate::Error;
use crate::log::Partition;

/// Requests that are taken up for one append: some fsync's worth of them.
const TURN_MAX: usize = 512;
/// A shard whose disk refused waits this many times as long as reading its log takes before it reads it back, so that
/// writers that try again and again cost no more than that share of a processor. It is no longer than it must be:
/// meanwhile heartbeats are refused, too, and members whose sessions end for a disk that is full have to join again.
const RELOAD_SHARE: u32 = 10;
/// The longest such wait, and the one after a log that can't be read.
const RELOAD_PAUSE_MAX: Duration = Duration::from_secs(1);
/// That a log was lost is told once in this time, however often the disk refuses.
const TOLD_INTERVAL: Duration = Duration::from_secs(1);

/// A request on its way to a shard. Dropping `reply` unanswered says: not available.
pub(super) struct Call<H: Host> {
    pub(super) request: RequestOf<H>,
    pub(super) reply: oneshot::Sender<ResponseOf<H>>,
}

impl<H: Host> fmt::Debug for Call<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").finish_non_exhaustive()
    }
}

/// What a shard is made of, when it is opened and each time it reads its log back.
#[derive(Debug, Clone)]
pub(super) struct Origin<H> {
    pub(super) host: H,
    pub(super) partition: Arc<Partition>,
    pub(super) started: Instant,
}

/// The state that the log and the clients together make up.
pub(super) struct Shard<H: Host> {
    origin: Origin<H>,
    machine: H::Machine,
    journal: Journal,
    next_token: u64,
    /// Who waits for a reply that the machine has not given yet.
    callers: FxHashMap<Token, oneshot::Sender<ResponseOf<H>>>,
    /// What waits for the offset before it to be durable, in the log's order.
    unacknowledged: VecDeque<(i64, Held<H>)>,
    /// Actions under way. Dropped when the log is read back: the machine then asks for them anew.
    acting: FuturesUnordered<BoxFuture<'static, Option<RequestOf<H>>>>,
    appended: i64,
    durable: i64,
    snapshot: Option<Snapshot>,
    sweeping: Option<JoinHandle<()>>,
    /// How long it took to read the log back.
    load_time: Duration,
}

/// What a step yielded and must not be seen before its changes are durable.
struct Held<H: Host> {
    replies: Vec<(Token, ResponseOf<H>)>,
    actions: Vec<ActionOf<H>>,
}

type Flushing = Pin<Box<dyn Future<Output = (i64, Result<(), Error>)> + Send>>;

impl<H: Host> Origin<H> {
    /// Reads the partition back. Blocking.
    pub(super) fn load(self) -> Result<Shard<H>, Error> {
        let (now, since) = (self.now(), Instant::now());
        let mut machine = self.host.machine(now);
        let journal = Journal::replay(Arc::clone(&self.partition), &mut machine, now)?;
        self.host.caught_up(now, &mut machine);
        let end = self.partition.log_end_offset() - 1;
        Ok(Shard {
            origin: self,
            machine,
            journal,
            next_token: 1,
            callers: FxHashMap::default(),
            unacknowledged: VecDeque::new(),
            acting: FuturesUnordered::new(),
            appended: end,
            durable: end,
            snapshot: None,
            sweeping: None,
            load_time: since.elapsed(),
        })
    }

    fn now(&self) -> Now {
        let unix = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Now {
            tick_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            unix_ms: i64::try_from(unix.as_millis()).unwrap_or(i64::MAX),
        }
    }
}

impl<H: Host> Shard<H> {
    /// Tells what it began with.
    pub(super) fn tell_replayed(&self) {
        self.journal.tell_replayed();
    }

    /// Serves until `stop`, or until nobody can call any more.
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Call<H>>, stop: CancellationToken) {
        let mut told: Option<Instant> = None;
        while let Err(error) = self.serve(&mut queue, &stop).await {
            let partition = self.origin.partition.index();
            if told.is_none_or(|told| told.elapsed() >= TOLD_INTERVAL) {
                told = Some(Instant::now());
                error!(coordinator = H::NAME, partition, %error, source = cause(&error), "a coordinator lost its log; reading it back");
            }
            match self.reload(&mut queue, &stop).await {
                Some(shard) => self = shard,
                None => return,
            }
        }
        if let Some(sweeping) = self.sweeping.take() {
            // A panic in it was logged by the runtime; the snapshot after the next start tries again.
            let _ = sweeping.await;
        }
    }

    async fn serve(
        &mut self,
        queue: &mut mpsc::Receiver<Call<H>>,
        stop: &CancellationToken,
    ) -> Result<(), Error> {
        let mut turn = Vec::with_capacity(TURN_MAX);
        let mut flushing: Option<Flushing> = None;
        let mut alarm = Box::pin(tokio::time::sleep_until(self.alarm_at()));
        self.step()?;
        loop {
            self.flush(&mut flushing);
            if alarm.deadline() != self.alarm_at() {
                alarm.as_mut().reset(self.alarm_at());
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return self.finish(queue).await,
                (offset, result) = wait(&mut flushing) => {
                    flushing = None;
                    result?;
                    self.acknowledge(offset);
                }
                taken = queue.recv_many(&mut turn, TURN_MAX) => {
                    if taken == 0 {
                        return self.finish(queue).await;
                    }
                    self.take_turn(&mut turn)?;
                }
                Some(done) = self.acting.next() => {
                    if let Some(request) = done {
                        let now = self.origin.now();
                        let token = self.token();
                        self.machine.on_request(now, token, request);
                        self.step()?;
                    }
                }
                () = &mut alarm => {
                    self.machine.on_tick(self.origin.now());
                    self.step()?;
                }
            }
        }
    }

    fn alarm_at(&self) -> Instant {
        // A far deadline is as good as a farther one, and does not overflow the clock.
        let far = Duration::from_secs(24 * 60 * 60);
        self.origin.started
            + Duration::from_millis(self.machine.deadline())
                .min(self.origin.started.elapsed() + far)
    }

    fn take_turn(&mut self, turn: &mut Vec<Call<H>>) -> Result<(), Error> {
        let now = self.origin.now();
        for call in turn.drain(..) {
            let token = self.token();
            self.callers.insert(token, call.reply);
            self.machine.on_request(now, token, call.request);
        }
        // After the requests: a heartbeat that waited in the queue is not silence.
        if self.machine.deadline() <= now.tick_ms {
            self.machine.on_tick(now);
        }
        self.step()
    }

    fn token(&mut self) -> Token {
        self.next_token += 1;
        Token(self.next_token)
    }

    /// Appends what was decided, and lets the replies and actions go or wait.
    fn step(&mut self) -> Result<(), Error> {
        let Output {
            replies,
            changes,
            actions,
        } = self.machine.take_output();
        let unix_ms = self.origin.now().unix_ms;
        if !changes.is_empty() {
            self.appended = self.journal.append(&changes, unix_ms)?;
        }
        if self.snapshot.is_none() && self.journal.is_long(self.origin.host.snapshot_bytes()) {
            self.snapshot = self.journal.snapshot(&self.machine, unix_ms)?;
            self.appended = self
                .snapshot
                .map_or(self.appended, |snapshot| snapshot.last_offset);
        }
        if self.appended <= self.durable {
            self.release(Held { replies, actions });
            return Ok(());
        }
        let mut held = Vec::new();
        for (token, response) in replies {
            if H::Machine::is_promise(&response) {
                held.push((token, response));
            } else {
                self.send(token, response);
            }
        }
        if !held.is_empty() || !actions.is_empty() {
            let held = Held {
                replies: held,
                actions,
            };
            self.unacknowledged.push_back((self.appended, held));
        }
        Ok(())
    }

    /// The disk has what these promise, and what their actions are about.
    fn release(&mut self, held: Held<H>) {
        for action in held.actions {
            self.acting.push(self.origin.host.act(action));
        }
        for (token, response) in held.replies {
            self.send(token, response);
        }
    }

    /// Asks for what was appended to become durable, one wait at a time: what is appended
    /// meanwhile shares the next.
    fn flush(&self, flushing: &mut Option<Flushing>) {
        let wanted = !self.unacknowledged.is_empty() || self.snapshot.is_some();
        if flushing.is_none() && wanted {
            let partition = Arc::clone(self.journal.partition());
            let offset = self.appended;
            *flushing = Some(Box::pin(async move {
                (offset, partition.durable(offset).await)
            }));
        }
    }

    fn acknowledge(&mut self, offset: i64) {
        self.durable = self.durable.max(offset);
        while self
            .unacknowledged
            .front()
            .is_some_and(|(needs, _)| *needs <= self.durable)
        {
            if let Some((_, held)) = self.unacknowledged.pop_front() {
                self.release(held);
            }
        }
        if let Some(snapshot) = self
            .snapshot
            .take_if(|snapshot| snapshot.last_offset <= offset)
        {
            self.sweep(snapshot);
        }
    }

    /// Deletes what a snapshot has replaced, off this task, one deletion after another.
    fn sweep(&mut self, snapshot: Snapshot) {
        let partition = Arc::clone(self.journal.partition());
        let before = self.sweeping.take();
        self.sweeping = Some(tokio::spawn(async move {
            if let Some(before) = before {
                let _ = before.await;
            }
            // A panic in either was logged by the runtime; the next snapshot tries again.
            let _ = tokio::task::spawn_blocking(move || Journal::drop_before(&partition, snapshot))
                .await;
        }));
    }

    fn send(&mut self, token: Token, response: ResponseOf<H>) {
        if let Some(caller) = self.callers.remove(&token) {
            // The connection may be gone; the member's session tells, not this.
            let _ = caller.send(response);
        }
    }

    /// Carries out what was asked before the stop; who waits for others is told to look elsewhere.
    async fn finish(&mut self, queue: &mut mpsc::Receiver<Call<H>>) -> Result<(), Error> {
        queue.close();
        let mut turn = Vec::new();
        while let Ok(call) = queue.try_recv() {
            turn.push(call);
        }
        self.take_turn(&mut turn)?;
        if self.appended > self.durable {
            self.journal.partition().durable(self.appended).await?;
            self.acknowledge(self.appended);
        }
        self.callers.clear();
        Ok(())
    }

    /// Drops what memory says and reads the log back, as often as it takes. `None` when stopped.
    async fn reload(
        &mut self,
        queue: &mut mpsc::Receiver<Call<H>>,
        stop: &CancellationToken,
    ) -> Option<Self> {
        self.callers.clear();
        self.unacknowledged.clear();
        self.acting.clear();
        let mut wait = (self.load_time * RELOAD_SHARE).min(RELOAD_PAUSE_MAX);
        loop {
            let pause = tokio::time::sleep(wait);
            tokio::pin!(pause);
            loop {
                tokio::select! {
                    () = stop.cancelled() => return None,
                    () = &mut pause => break,
                    call = queue.recv() => drop(call?),
                }
            }
            let origin = self.origin.clone();
            let partition = origin.partition.index();
            match tokio::task::spawn_blocking(move || origin.load()).await {
                Ok(Ok(shard)) => {
                    debug!(coordinator = H::NAME, partition, "a coordinator is back");
                    return Some(shard);
                }
                Ok(Err(error)) => {
                    error!(coordinator = H::NAME, partition, %error, source = cause(&error), "a coordinator's log is still unreadable")
                }
                Err(panic) => {
                    error!(coordinator = H::NAME, partition, error = %panic, "reading a coordinator's log panicked")
                }
            }
            wait = RELOAD_PAUSE_MAX;
        }
    }
}

async fn wait(flushing: &mut Option<Flushing>) -> (i64, Result<(), Error>) {
    match flushing {
        Some(flushing) => flushing.await,
        None => std::future::pending().await,
    }
}
