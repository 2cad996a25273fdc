//! A partition as the rest of the broker sees it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak,
};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use super::aborted::Aborted;
use super::cleaner::Compaction;
use super::error::AppendError;
use super::flush::{Flushed, Flusher, Policy, Stopped};
use super::incoming::{self, Incoming};
use super::open_files::OpenFiles;
use super::recovery::{self, Recovered};
use super::segment::Segment;
use super::undecided::Undecided;
use super::writer::{FlushJob, Writer};
use crate::Error;
use crate::store::{Loss, TimestampType, TopicConfig};

/// Where batches went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Appended {
    /// The offset of the first record.
    pub(crate) base_offset: i64,
    /// The offset of the last record: what to give to [`Partition::durable`].
    pub(crate) last_offset: i64,
    /// The broker's timestamp if the topic has `message.timestamp.type=LogAppendTime`, else -1.
    pub(crate) log_append_time: i64,
    /// The first offset of the partition.
    pub(crate) log_start_offset: i64,
    /// An idempotent producer sent these records before; the offsets are the original ones.
    pub(crate) duplicate: bool,
}

/// The settings of a topic, which may change.
pub(crate) type SharedConfig = Arc<RwLock<Arc<TopicConfig>>>;

/// What all partitions of a data folder share.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) flusher: Arc<Flusher>,
    pub(crate) files: Arc<OpenFiles>,
}

/// Which partition, and where.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) topic: String,
    pub(crate) index: i32,
    pub(crate) folder: PathBuf,
}

/// What opening a partition found.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) partition: Arc<Partition>,
    pub(crate) checked_bytes: u64,
    pub(crate) losses: Vec<Loss>,
    pub(crate) foreign: Vec<PathBuf>,
}

/// One partition's log. Shared; all methods take `&self`.
///
/// Appends are one at a time. Reads take no lock that an append holds while it writes: bytes below a segment's size
/// never change.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(super) place: Place,
    pub(super) config: SharedConfig,
    pub(super) shared: Shared,
    me: Weak<Partition>,
    writer: Mutex<Writer>,
    segments: RwLock<Vec<Arc<Segment>>>,
    /// Held while the log start moves.
    pub(super) start_moves: Mutex<()>,
    pub(super) log_start: AtomicI64,
    log_end: AtomicI64,
    /// Held while records are forced to the disk.
    flushes: Mutex<()>,
    /// Held while the log is compacted.
    pub(super) compaction: Mutex<Compaction>,
    deleted: AtomicBool,
    pub(super) undecided: Mutex<Undecided>,
    last_stable: AtomicI64,
    pub(super) aborted: Mutex<Aborted>,
    high_watermark: watch::Sender<i64>,
    flushed: watch::Sender<Flushed>,
}

impl Partition {
    /// Opens the log in the folder of `place`, which must exist. Blocking.
    pub(crate) fn open(
        place: Place,
        config: SharedConfig,
        shared: Shared,
        now_ms: i64,
    ) -> Result<Opened, Error> {
        let mut recovered = recovery::recover(
            &place.folder,
            &place.topic,
            place.index,
            &shared.files,
            now_ms,
        )?;
        let partition = Self::new(place, config, shared, &mut recovered)?;
        if recovered.changed {
            // Consumers see at once what was recovered, so it has to stay.
            partition.flush(false);
            partition.check_usable(&partition.writer())?;
        }
        Ok(Opened {
            partition,
            checked_bytes: recovered.checked_bytes,
            losses: recovered.losses,
            foreign: recovered.foreign,
        })
    }

    fn new(
        place: Place,
        config: SharedConfig,
        shared: Shared,
        recovered: &mut Recovered,
    ) -> Result<Arc<Self>, Error> {
        let segments = std::mem::take(&mut recovered.segments);
        let Some(active) = segments.last().cloned() else {
            return Err(Error::new(
                crate::error::Kind::Corrupt,
                format!("{} has no segment", place.folder.display()),
            ));
        };
        let end = recovered.next_offset;
        let mut undecided = std::mem::take(&mut recovered.undecided);
        let last_stable = undecided.stable(end);
        Ok(Arc::new_cyclic(|me| Self {
            place,
            config,
            shared,
            me: me.clone(),
            writer: Mutex::new(Writer::new(recovered, active)),
            segments: RwLock::new(segments),
            start_moves: Mutex::new(()),
            log_start: AtomicI64::new(recovered.log_start),
            log_end: AtomicI64::new(end),
            flushes: Mutex::new(()),
            compaction: Mutex::new(std::mem::take(&mut recovered.compaction)),
            deleted: AtomicBool::new(false),
            undecided: Mutex::new(undecided),
            last_stable: AtomicI64::new(last_stable),
            aborted: Mutex::new(std::mem::take(&mut recovered.aborted)),
            high_watermark: watch::Sender::new(end),
            flushed: watch::Sender::new(Flushed { end, stopped: None }),
        }))
    }

    /// The topic's name.
    pub(crate) fn topic(&self) -> &str {
        &self.place.topic
    }

    /// The partition's number in its topic, from 0.
    pub(crate) fn index(&self) -> i32 {
        self.place.index
    }

    /// Checks batches (as they came in a produce request) and appends them: all, or none.
    ///
    /// Writes to the page cache, without waiting for the disk: see [`Partition::durable`]. `now_ms` is the
    /// broker's clock in milliseconds since the Unix epoch.
    pub(crate) fn append(&self, batches: Bytes, now_ms: i64) -> Result<Appended, AppendError> {
        let config = self.config();
        let batches = incoming::check(batches, &config, now_ms)?;
        let writer = self.writer();
        self.check_usable(&writer)?;
        if let [only] = batches.as_slice() {
            if let Some(written) = writer.producers.check(&only.header)? {
                return Ok(Appended {
                    base_offset: written.base_offset,
                    last_offset: written.last_offset,
                    log_append_time: written.append_time,
                    log_start_offset: self.log_start_offset(),
                    duplicate: true,
                });
            }
            writer.check_transaction(&only.header)?;
        }
        self.write(writer, &config, &batches, now_ms)
    }

    /// Appends batches that this broker made itself: what is checked of a client's is not asked.
    pub(crate) fn append_own(&self, batches: Bytes, now_ms: i64) -> Result<Appended, AppendError> {
        let batches = incoming::own(batches)?;
        let writer = self.writer();
        self.check_usable(&writer)?;
        self.write(writer, &self.config(), &batches, now_ms)
    }

    pub(super) fn write(
        &self,
        mut writer: MutexGuard<'_, Writer>,
        config: &TopicConfig,
        batches: &[Incoming],
        now_ms: i64,
    ) -> Result<Appended, AppendError> {
        let records: i64 = batches
            .iter()
            .map(|batch| i64::from(batch.header.records))
            .sum();
        // Only a log that somebody damaged gets there.
        let Some(end_offset) = writer.next_offset.checked_add(records) else {
            let what = format!("{} has no offsets left", self.place.folder.display());
            return Err(Error::new(crate::error::Kind::Corrupt, what).into());
        };
        let append_time = (config.timestamp_type == TimestampType::LogAppendTime).then_some(now_ms);
        if writer.is_roll_due(batches, config, now_ms) {
            self.roll(&mut writer)?;
        }
        let base_offset = writer.next_offset;
        let written = writer.write(batches, append_time, now_ms);
        if written.is_ok() {
            self.note_transactions(&mut writer, batches, base_offset, now_ms);
        }
        self.publish(writer);
        written?;
        Ok(Appended {
            base_offset,
            last_offset: end_offset - 1,
            log_append_time: append_time.unwrap_or(-1),
            log_start_offset: self.log_start_offset(),
            duplicate: false,
        })
    }

    /// Tells everybody about what the writer did, and has it flushed.
    pub(super) fn publish(&self, mut writer: MutexGuard<'_, Writer>) {
        self.log_end.store(writer.next_offset, Ordering::Release);
        if let Some(stopped) = writer.stopped.clone() {
            self.stop_flushing(stopped);
            return;
        }
        let policy = self.flush_policy();
        if !policy.waits {
            self.raise_high_watermark(writer.next_offset);
        }
        if let Some(delay) = writer.plan_flush(policy) {
            drop(writer);
            if let Some(me) = self.me.upgrade() {
                self.shared.flusher.schedule(me, delay);
            }
        }
    }

    fn flush_policy(&self) -> Policy {
        Policy::of(self.shared.flusher.mode(), &self.config())
    }

    /// Waits until everything up to and with `last_offset` is as safe as the flush setting promises.
    ///
    /// # Cancel safety
    /// Dropping the future gives up waiting; the records are flushed anyway.
    pub(crate) async fn durable(&self, last_offset: i64) -> Result<(), Error> {
        let waits = self.flush_policy().waits;
        let is_done = |flushed: &Flushed| !waits || flushed.end > last_offset;
        let mut flushed = self.flushed.subscribe();
        let done = flushed
            .wait_for(|flushed| is_done(flushed) || flushed.stopped.is_some())
            .await;
        match done {
            Ok(flushed) if is_done(&flushed) => Ok(()),
            Ok(flushed) => Err(self.stopped_error(flushed.stopped.as_ref())),
            Err(_) => Err(self.stopped_error(Some(&Stopped::Closed))),
        }
    }

    /// Flushes for the queue; gives after how long what came meanwhile should be flushed.
    pub(super) fn flush_in_turn(&self, waited: bool) -> Option<Duration> {
        self.flush(false);
        let mut writer = self.writer();
        match waited {
            true => writer.waiting = false,
            false => writer.queued = false,
        }
        writer.plan_flush(self.flush_policy())
    }

    /// Flushes what was appended, and tells who waits. Blocking.
    pub(super) fn flush(&self, closing: bool) {
        // One at a time: nothing is durable before what came earlier is.
        let _flushes = self.flushes.lock().unwrap_or_else(PoisonError::into_inner);
        let job = self.begin_flush(closing);
        let result = job
            .as_ref()
            .map_or(Ok(()), |job| job.sync(&self.place.folder));
        match (result, job) {
            (Ok(()), Some(job)) => {
                // First: who is told that its records are durable may read them.
                self.raise_high_watermark(job.end);
                self.flushed
                    .send_modify(|flushed| flushed.end = flushed.end.max(job.end));
                job.write_checkpoint(&self.place.folder, &self.aborted);
            }
            (Ok(()), None) => {}
            (Err(error), _) => self.fail(&error),
        }
    }

    fn begin_flush(&self, closing: bool) -> Option<FlushJob> {
        let mut writer = self.writer();
        match writer.stopped {
            Some(Stopped::Failed(_) | Stopped::Deleted) => None,
            Some(Stopped::Closed) | None => writer.begin_flush(|| self.segments().clone(), closing),
        }
    }

    /// Takes no more records: what is on the disk is unknown.
    pub(crate) fn fail(&self, error: &Error) {
        let cause = std::error::Error::source(error)
            .map(|cause| format!(": {cause}"))
            .unwrap_or_default();
        let stopped = {
            let mut writer = self.writer();
            writer
                .stopped
                .get_or_insert_with(|| Stopped::Failed(format!("{error}{cause}").into()))
                .clone()
        };
        if let Stopped::Failed(reason) = &stopped {
            tracing::error!(topic = self.topic(), partition = self.index(), %reason, "a log only reads from now on");
        }
        self.stop_flushing(stopped);
    }

    fn stop_flushing(&self, stopped: Stopped) {
        self.flushed.send_modify(|flushed| {
            flushed.stopped.get_or_insert(stopped);
        });
    }

    /// Follows how far the log is on the disk.
    #[cfg(test)]
    pub(super) fn flushed(&self) -> watch::Receiver<Flushed> {
        self.flushed.subscribe()
    }

    /// Follows the high watermark: wakes when records become visible.
    pub(crate) fn watch(&self) -> watch::Receiver<i64> {
        self.high_watermark.subscribe()
    }

    /// The first offset that can be read.
    pub(crate) fn log_start_offset(&self) -> i64 {
        self.log_start.load(Ordering::Acquire)
    }

    /// The offset behind the last record that consumers may see (`latest`).
    pub(crate) fn high_watermark(&self) -> i64 {
        *self.high_watermark.borrow()
    }

    /// The offset that the next record gets.
    pub(crate) fn log_end_offset(&self) -> i64 {
        self.log_end.load(Ordering::Acquire)
    }

    /// The bytes of all segments.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.segments().iter().map(|segment| segment.size()).sum()
    }

    /// The largest id of the producers that are known.
    pub(crate) fn max_producer_id(&self) -> Option<i64> {
        self.writer().producers.max_id()
    }

    /// Whether it takes no records after an error of the disk.
    pub(crate) fn is_read_only(&self) -> bool {
        self.read_only().is_some()
    }

    /// Why it takes no records, if that is for an error of the disk.
    pub(crate) fn read_only(&self) -> Option<Error> {
        match &self.writer().stopped {
            failed @ Some(Stopped::Failed(_)) => Some(self.stopped_error(failed.as_ref())),
            _ => None,
        }
    }

    /// Takes no more records; everything is flushed and a checkpoint written. Blocking; the flusher has stopped.
    pub(crate) fn close(&self) -> Result<(), Error> {
        self.writer().stopped.get_or_insert(Stopped::Closed);
        self.flush(true);
        let stopped = self.writer().stopped.clone();
        self.stop_flushing(Stopped::Closed);
        match stopped {
            Some(Stopped::Failed(_)) => Err(self.stopped_error(stopped.as_ref())),
            _ => Ok(()),
        }
    }

    /// Takes no more records, without waiting for anything.
    pub(crate) fn abandon(&self) {
        self.writer().stopped.get_or_insert(Stopped::Closed);
        self.stop_flushing(Stopped::Closed);
    }

    /// Takes no more records and gives none: the topic was deleted. Who waits is told.
    pub(crate) fn delete(&self) {
        self.deleted.store(true, Ordering::Release);
        self.writer().stopped = Some(Stopped::Deleted);
        self.stop_flushing(Stopped::Deleted);
        self.high_watermark.send_modify(|_| {});
    }

    pub(super) fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }

    pub(super) fn config(&self) -> Arc<TopicConfig> {
        self.config
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Begins a new segment.
    pub(super) fn roll(&self, writer: &mut Writer) -> Result<(), Error> {
        let segment = writer.roll(&self.place.folder, &self.shared.files)?;
        self.segments_mut().push(segment);
        Ok(())
    }

    pub(super) fn check_usable(&self, writer: &Writer) -> Result<(), Error> {
        writer
            .stopped
            .as_ref()
            .map_or(Ok(()), |stopped| Err(self.stopped_error(Some(stopped))))
    }

    fn stopped_error(&self, stopped: Option<&Stopped>) -> Error {
        stopped
            .unwrap_or(&Stopped::Closed)
            .error(&self.place.topic, self.place.index)
    }

    /// The offset behind the last record whose transaction, if it has one, is known to have ended.
    pub(crate) fn last_stable_offset(&self) -> i64 {
        self.last_stable
            .load(Ordering::Acquire)
            .max(self.log_start_offset())
    }

    /// How many offsets are behind the last stable one.
    pub(crate) fn undecided_records(&self) -> u64 {
        // In this order: both only grow.
        let stable = self.last_stable_offset();
        u64::try_from(self.high_watermark() - stable).unwrap_or(0)
    }

    fn raise_high_watermark(&self, to: i64) {
        {
            // First: who is woken by the high watermark reads up to here.
            let mut undecided = self.undecided();
            self.last_stable
                .fetch_max(undecided.stable(to), Ordering::AcqRel);
        }
        self.high_watermark.send_if_modified(|high_watermark| {
            let raised = to > *high_watermark;
            *high_watermark = to.max(*high_watermark);
            raised
        });
    }

    pub(super) fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn segments(&self) -> RwLockReadGuard<'_, Vec<Arc<Segment>>> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn segments_mut(&self) -> RwLockWriteGuard<'_, Vec<Arc<Segment>>> {
        self.segments
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
