//! Waiting until orders are final, without asking for each.
//!
//! Orders become final nearly in the order of acceptance. So the list is read from
//! the earliest order that is still awaited to its end, again and again: the pages
//! behind it are never read twice, and the cost follows what is in flight.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::client::{ClientError, Seen, Service};
use super::progress::Progress;
use super::report::Tally;

/// The pause between two readings of the list.
const PAUSE: Duration = Duration::from_millis(100);

/// What posting and watching share.
pub(crate) struct Ledger {
    state: Mutex<State>,
    progress: Progress,
}

#[derive(Default)]
struct State {
    tally: Tally,
    awaited: HashSet<Uuid>,
    /// Every row has been posted.
    posted_all: bool,
    last_change: Option<Instant>,
}

impl Ledger {
    pub(crate) fn new(progress: Progress) -> Self {
        Self {
            state: Mutex::default(),
            progress,
        }
    }

    /// An order is about to be posted; from now on it is looked for.
    pub(crate) fn expect(&self, id: Uuid) {
        self.state().awaited.insert(id);
    }

    /// An order turned out not to exist.
    pub(crate) fn forget(&self, id: Uuid) {
        self.state().awaited.remove(&id);
    }

    /// Counts something about the rows.
    pub(crate) fn count(&self, count: impl FnOnce(&mut Tally)) {
        let mut state = self.state();
        count(&mut state.tally);
        let (posted, finished) = (
            state.tally.accepted + state.tally.repeated,
            state.tally.finished(),
        );
        drop(state);
        self.progress.update(posted, finished);
    }

    /// No further order is posted.
    pub(crate) fn posted_all(&self) {
        let mut state = self.state();
        state.posted_all = true;
        state.last_change = Some(Instant::now());
    }

    /// The orders that are awaited still.
    pub(crate) fn unfinished(&self) -> Vec<Uuid> {
        self.state().awaited.iter().copied().collect()
    }

    /// The tally; what is awaited still counts as failed.
    pub(crate) fn close(&self) -> Tally {
        let mut state = self.state();
        let mut tally = std::mem::take(&mut state.tally);
        tally.failed += state.awaited.len() as u64;
        tally
    }

    /// Whether no row is left to post.
    fn has_posted_all(&self) -> bool {
        self.state().posted_all
    }

    /// The ids that are awaited, without those in `open`.
    fn awaited_beside(&self, open: &HashSet<Uuid>) -> Vec<Uuid> {
        self.state().awaited.difference(open).copied().collect()
    }

    /// How long nothing has become final since everything was posted.
    fn standstill(&self) -> Duration {
        self.state()
            .last_change
            .map_or(Duration::ZERO, |at| at.elapsed())
    }

    /// Takes note of an order; whether it is awaited still.
    fn see(&self, order: &Seen) -> bool {
        let mut state = self.state();
        if !order.status.is_final() {
            return state.awaited.contains(&order.order_id);
        }
        if state.awaited.remove(&order.order_id) {
            state.tally.finish(order.status, order.micros());
            state.last_change = state.last_change.map(|_| Instant::now());
        }
        false
    }

    fn show(&self) {
        self.count(|_| {});
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Watches until every expected order is final, or nothing has moved for `standstill`.
/// `first` is the order accepted before all others that this import posts.
pub(crate) async fn until_final(
    ledger: &Ledger,
    orders: &Service,
    first: Uuid,
    standstill: Duration,
) -> Result<(), ClientError> {
    let mut from = first.to_string();
    loop {
        let posted_all = ledger.has_posted_all();
        let open = read_list(ledger, orders, &mut from).await?;
        if posted_all {
            let unlisted = ledger.awaited_beside(&open);
            look_up(ledger, orders, unlisted).await?;
            if ledger.unfinished().is_empty() || ledger.standstill() > standstill {
                return Ok(());
            }
        }
        ledger.show();
        tokio::time::sleep(PAUSE).await;
    }
}

/// Reads the list from `from` to its end, and moves `from` to just before the first
/// awaited order. Returns those that are awaited still.
async fn read_list(
    ledger: &Ledger,
    orders: &Service,
    from: &mut String,
) -> Result<HashSet<Uuid>, ClientError> {
    let mut open = HashSet::new();
    let mut cursor = Some(from.clone());
    while let Some(after) = cursor {
        let (page, next) = orders.orders(&after).await?;
        for order in &page {
            if ledger.see(order) {
                open.insert(order.order_id);
            } else if open.is_empty() {
                *from = order.order_id.to_string();
            }
        }
        cursor = next;
    }
    Ok(open)
}

/// Orders that an earlier import placed may stand before the first of this one: they
/// are asked for one by one.
async fn look_up(
    ledger: &Ledger,
    orders: &Service,
    unlisted: Vec<Uuid>,
) -> Result<(), ClientError> {
    for id in unlisted {
        if let Some(order) = orders.order(id).await? {
            ledger.see(&order);
        }
    }
    Ok(())
}
