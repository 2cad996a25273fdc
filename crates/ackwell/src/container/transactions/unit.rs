//! The unit of work of transactional listeners: records of a partition in groups, each in one
//! transaction with their position.
//!
//! What a handler sends is kept until it has returned. So a transaction is open at the broker only
//! while handled records gather, and never because a handler waits; and a record that fails has
//! left nothing in it.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::{Claim, Transactional};
use crate::extensions::Extensions;
use crate::failure::Failure;
use crate::producer::OutgoingRecord;
use crate::transaction::{Kind, Open, TransactionError};
use crate::unit::{Handling, Judgement, Portion, Run, UnitOfWork};

/// How long handled records gather at the longest. A commit takes some milliseconds, so longer
/// gains little, and readers see nothing before it.
const GATHERED_MAX: Duration = Duration::from_millis(100);

/// Carries out runs in transactions.
pub(in crate::container) struct InTransactions(pub(in crate::container) Arc<Transactional>);

impl UnitOfWork for InTransactions {
    fn carry_out<'a>(&'a self, run: &'a mut Run) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            loop {
                let halt = match Lane::begin(&self.0, run).await {
                    Ok(None) => return,
                    Ok(Some(mut lane)) if run.is_batch() => lane.handle_portions(run).await,
                    Ok(Some(mut lane)) => lane.handle_all(run).await,
                    Err(halt) => Err(halt),
                };
                match halt {
                    Ok(()) | Err(Halt::Done) => return,
                    Err(Halt::Again) => {}
                    Err(Halt::Failed(failure)) => return run.failed(failure),
                    Err(Halt::Held(reason)) => return run.hold(reason),
                }
            }
        })
    }
}

/// Why a run does not go on.
enum Halt {
    /// The first unsettled record failed.
    Failed(Failure),
    /// Nothing failed, and yet it can't go on now.
    Held(String),
    /// What was not settled is to be started once more.
    Again,
    /// The run knows.
    Done,
}

impl From<TransactionError> for Halt {
    fn from(error: TransactionError) -> Self {
        match error.kind() {
            Kind::Outdated => Halt::Held(error.to_string()),
            Kind::Aborted | Kind::Fenced | Kind::Unknown => Halt::Failed(error.into()),
        }
    }
}

/// A partition's records on their way.
struct Lane<'a> {
    transactions: &'a Transactional,
    claim: Claim,
    group: Option<Group>,
}

/// Handled records that are committed together.
struct Group {
    open: Option<Open>,
    handled: usize,
    /// So many at most, while somebody among them is to be found who is to blame.
    most: usize,
    /// The offset of the first of them.
    first: i64,
    closes_at: Instant,
}

impl<'a> Lane<'a> {
    /// `None` if nothing is to be handled.
    async fn begin(transactions: &'a Transactional, run: &mut Run) -> Result<Option<Self>, Halt> {
        let Some(record) = run.peek() else {
            return Ok(None);
        };
        let claim = transactions.claim(record);
        let done = transactions.settled_before(&claim).await?;
        let mut known = 0;
        while run
            .peek()
            .is_some_and(|record| done.contains(&record.offset_read()))
        {
            run.set_aside();
            known += 1;
        }
        run.duplicates(known);
        Ok(Some(Lane {
            transactions,
            claim,
            group: None,
        }))
    }

    async fn handle_all(&mut self, run: &mut Run) -> Result<(), Halt> {
        while let Some(record) = run.peek() {
            let offset = record.offset_read();
            let transaction = self.transactions.seat();
            let mut extensions = Extensions::new();
            extensions.insert(transaction.clone());
            let most = run.group_max();
            let Some(handling) = run.start(extensions) else {
                break;
            };
            let end = self.drive(run, handling, offset).await?;
            let sent = transaction.take();
            if let Err(failure) = end {
                self.close(run, offset).await?;
                return Err(Halt::Failed(failure));
            }
            self.gather(run, (offset, most), &sent).await?;
            if self.is_full() {
                self.close_all(run).await?;
            }
            tokio::task::coop::consume_budget().await;
        }
        self.close_all(run).await
    }

    /// Runs a handler to its end. If it waits for long, what was handled before it is committed
    /// meanwhile.
    async fn drive(
        &mut self,
        run: &mut Run,
        mut handling: Handling,
        offset: i64,
    ) -> Result<Result<(), Failure>, Halt> {
        let first = poll_fn(|cx| Poll::Ready(handling.poll_unpin(cx))).await;
        if let Poll::Ready(end) = first {
            return Ok(end);
        }
        run.report();
        let since = Instant::now();
        if let Some(closes_at) = self.group.as_ref().map(|group| group.closes_at) {
            if let Ok(end) = tokio::time::timeout_at(closes_at, &mut handling).await {
                run.waited(since.elapsed());
                return Ok(end);
            }
            self.close(run, offset).await?;
            run.report();
        }
        let end = handling.await;
        run.waited(since.elapsed());
        Ok(end)
    }

    fn is_full(&self) -> bool {
        self.group
            .as_ref()
            .is_some_and(|group| group.handled >= group.most || group.closes_at <= Instant::now())
    }

    /// Adds a handled record and what was sent for it.
    async fn gather(
        &mut self,
        run: &mut Run,
        (offset, most): (i64, usize),
        sent: &[OutgoingRecord],
    ) -> Result<(), Halt> {
        let group = self.group.get_or_insert_with(|| Group {
            open: None,
            handled: 0,
            most,
            first: offset,
            closes_at: Instant::now() + GATHERED_MAX,
        });
        group.handled += 1;
        match group.put(self.transactions, sent).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.undo(run, error)),
        }
    }

    /// Commits up to the last record that was started.
    async fn close_all(&mut self, run: &mut Run) -> Result<(), Halt> {
        match run.position() {
            Some(position) => self.close(run, position).await,
            None => Ok(()),
        }
    }

    /// Commits what was handled, and `position` with it.
    async fn close(&mut self, run: &mut Run, position: i64) -> Result<(), Halt> {
        let Some(group) = &mut self.group else {
            return Ok(());
        };
        let committed = match group.open.take() {
            Some(open) => Ok(open),
            None => self.transactions.pool.begin().await,
        };
        let records = group.first..position;
        let handled = group.handled;
        let committed = match committed {
            Ok(open) => self.transactions.commit(open, &self.claim, records).await,
            Err(error) => Err(error),
        };
        match committed {
            Ok(()) => {
                self.group = None;
                run.group_settled(handled);
                Ok(())
            }
            Err(error) => Err(self.undo(run, error)),
        }
    }

    /// Nothing of the group has come about, as far as that is known.
    fn undo(&mut self, run: &mut Run, error: TransactionError) -> Halt {
        let handled = self.group.take().map_or(0, |group| group.handled);
        let what = error.to_string();
        let Halt::Failed(failure) = Halt::from(error) else {
            return Halt::Held(what);
        };
        if run.group_failed(handled.max(1), failure) {
            Halt::Again
        } else {
            Halt::Done
        }
    }

    /// Lists, each in a transaction of its own. What the handler sent for a list that failed is
    /// forgotten with it.
    async fn handle_portions(&mut self, run: &mut Run) -> Result<(), Halt> {
        while let Some(mut portion) = run.next_portion() {
            let sent = self.handle_portion(run, &mut portion).await;
            let first = portion.first_offset();
            if let (Some(first), Some(position)) = (first, portion.position())
                && let Err(error) = self.commit(first..position, &sent).await
            {
                match Halt::from(error) {
                    Halt::Failed(failure) => portion.undone(failure),
                    halt => return Err(halt),
                }
            }
            run.close_portion(portion);
            tokio::task::coop::consume_budget().await;
        }
        Ok(())
    }

    /// Has a list handled, again without those that failed if need be; what was sent at last.
    async fn handle_portion(&self, run: &mut Run, portion: &mut Portion) -> Vec<OutgoingRecord> {
        while portion.has_work() {
            let transaction = self.transactions.seat();
            let mut extensions = Extensions::new();
            extensions.insert(transaction.clone());
            let handling = run.start_portion(portion, extensions);
            let end = run.drive(handling).await;
            let sent = transaction.take();
            match portion.judge(end) {
                Judgement::Keep => return sent,
                Judgement::TakeBack => portion.taken_back(),
            }
        }
        Vec::new()
    }

    async fn commit(
        &self,
        records: std::ops::Range<i64>,
        sent: &[OutgoingRecord],
    ) -> Result<(), TransactionError> {
        let open = self.transactions.pool.begin().await?;
        for record in sent {
            open.send(record.to_client(())).await?;
        }
        self.transactions.commit(open, &self.claim, records).await
    }
}

impl Group {
    async fn put(
        &mut self,
        transactions: &Transactional,
        sent: &[OutgoingRecord],
    ) -> Result<(), TransactionError> {
        if sent.is_empty() {
            return Ok(());
        }
        let open = match &mut self.open {
            Some(open) => open,
            none => none.insert(transactions.pool.begin().await?),
        };
        for record in sent {
            open.send(record.to_client(())).await?;
        }
        Ok(())
    }
}
