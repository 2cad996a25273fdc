//! Notices of failures on their way to those who want to hear of them.
//!
//! What users do there is their business and may take its time, so it happens on a thread of its
//! own, behind a queue that drops rather than waits.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

use super::Hook;
use super::listener::{
    Destination, FailedAttempt, FailureListener, Recovered, RecoveryFailed, Settlement,
};

/// Notices that may wait for one listener to failures: more than a burst, and not much memory.
const NOTICES_MAX: usize = 1_024;
/// How long the end of an app waits for notices that are on their way.
const FLUSH_WAIT: Duration = Duration::from_secs(2);

/// Something to tell.
#[derive(Debug, Clone)]
pub(crate) enum Notice {
    Failed(FailedAttempt),
    Recovered(Recovered),
    RecoveryFailed(RecoveryFailed),
}

enum Message {
    Tell(Notice),
    Flush(oneshot::Sender<()>),
}

/// The way to one [`FailureListener`]. Cheap to clone; its thread ends with the last clone.
#[derive(Clone)]
pub(crate) struct Notifier {
    queue: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

impl Notifier {
    /// For a listener as it was declared.
    pub(crate) fn of(hook: Hook) -> Self {
        Notifier::start(hook.listener)
    }

    /// Starts its thread. Should the system have none to give, notices are dropped and counted.
    pub(crate) fn start(listener: Arc<dyn FailureListener>) -> Self {
        let (queue, messages) = sync_channel(NOTICES_MAX);
        // The thread ends by itself when the queue is closed; `flush` waits for what is in it.
        let started = thread::Builder::new()
            .name("failure-notices".to_owned())
            .spawn(move || deliver_all(&messages, &*listener));
        if let Err(error) = started {
            tracing::error!(%error, "a failure listener has no thread and hears nothing");
        }
        let dropped = Arc::default();
        Notifier { queue, dropped }
    }

    /// Tells it later, or drops it if too many wait; whether it will be told.
    pub(crate) fn tell(&self, notice: Notice) -> bool {
        match self.queue.try_send(Message::Tell(notice)) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
                if dropped.is_power_of_two() {
                    tracing::warn!(dropped, "a failure listener is slow; notices are dropped");
                }
                false
            }
        }
    }

    /// Waits until what has been told so far is delivered, for two seconds at most.
    pub(crate) async fn flush(&self) {
        let (done, delivered) = oneshot::channel();
        let sent = self.queue.try_send(Message::Flush(done)).is_ok();
        if !sent || tokio::time::timeout(FLUSH_WAIT, delivered).await.is_err() {
            tracing::warn!("a failure listener is slow and is left behind");
        }
    }
}

fn deliver_all(messages: &Receiver<Message>, listener: &dyn FailureListener) {
    while let Ok(message) = messages.recv() {
        match message {
            Message::Tell(notice) => {
                let told = AssertUnwindSafe(|| deliver(listener, &notice));
                if std::panic::catch_unwind(told).is_err() {
                    tracing::error!("a failure listener panicked");
                }
            }
            // Whoever asked may have stopped waiting.
            Message::Flush(done) => drop(done.send(())),
        }
    }
}

fn deliver(listener: &dyn FailureListener, notice: &Notice) {
    match notice {
        Notice::Failed(attempt) => {
            listener.attempt_failed(attempt);
            let last = Settlement::Recover(Destination::DeadLetter);
            if attempt.next == last || attempt.next == Settlement::Stop {
                listener.given_up(attempt);
            }
        }
        Notice::Recovered(recovered) => listener.recovered(recovered),
        Notice::RecoveryFailed(failed) => listener.recovery_failed(failed),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc;
    use std::time::SystemTime;

    use super::*;
    use crate::failure::{Alert, Class, Place, Raised};

    fn failed(offset: i64, next: Settlement) -> Notice {
        Notice::Failed(FailedAttempt {
            place: place(offset),
            at: SystemTime::now(),
            class: Class::Transient,
            reason: "no".to_owned(),
            attempt: 1,
            next,
        })
    }

    fn place(offset: i64) -> Place {
        Place {
            listener: "l".into(),
            topic: "t".to_owned(),
            partition: 0,
            offset,
        }
    }

    const AGAIN: Settlement = Settlement::RetryAfter(Duration::ZERO);

    #[derive(Default)]
    struct Heard(Mutex<Vec<String>>);

    impl Heard {
        fn add(&self, what: &str, offset: i64) {
            self.0.lock().unwrap().push(format!("{what} {offset}"));
        }
    }

    impl FailureListener for Heard {
        fn attempt_failed(&self, attempt: &FailedAttempt) {
            assert!(attempt.place.offset != 13, "unlucky");
            self.add("failed", attempt.place.offset);
        }

        fn given_up(&self, attempt: &FailedAttempt) {
            self.add("given up", attempt.place.offset);
        }
    }

    #[tokio::test]
    async fn a_listener_hears_of_attempts_and_of_the_last_one() {
        let heard = Arc::new(Heard::default());
        let notifier = Notifier::start(Arc::clone(&heard) as Arc<dyn FailureListener>);
        notifier.tell(failed(1, AGAIN));
        notifier.tell(failed(1, Settlement::Recover(Destination::DeadLetter)));
        notifier.flush().await;
        let heard = heard.0.lock().unwrap().clone();
        assert_eq!(heard, ["failed 1", "failed 1", "given up 1"]);
    }

    #[tokio::test]
    async fn a_panic_in_a_listener_ends_nothing() {
        let heard = Arc::new(Heard::default());
        let notifier = Notifier::start(Arc::clone(&heard) as Arc<dyn FailureListener>);
        notifier.tell(failed(13, AGAIN));
        notifier.tell(failed(14, AGAIN));
        notifier.flush().await;
        assert_eq!(*heard.0.lock().unwrap(), ["failed 14"]);
    }

    /// Waits in its first notice until it may go on.
    struct Slow(Mutex<mpsc::Receiver<()>>);

    impl FailureListener for Slow {
        fn attempt_failed(&self, _: &FailedAttempt) {
            let _ = self.0.lock().unwrap().recv();
        }
    }

    #[test]
    fn a_slow_listener_costs_notices_and_no_time() {
        let (go_on, gate) = mpsc::channel::<()>();
        let notifier = Notifier::start(Arc::new(Slow(Mutex::new(gate))));
        let told = (0..5_000)
            .filter(|offset| notifier.tell(failed(*offset, AGAIN)))
            .count();
        // One may be in its hands beside those that wait.
        assert!((NOTICES_MAX..=NOTICES_MAX + 1).contains(&told), "{told}");
        assert_eq!(
            notifier.dropped.load(Ordering::Relaxed),
            5_000 - told as u64
        );
        drop(go_on);
    }

    #[tokio::test]
    async fn an_alert_is_raised_once_when_its_threshold_is_reached() {
        let raised = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&raised);
        let call = move |alert: &Raised| {
            seen.lock()
                .unwrap()
                .push((alert.count, alert.reason.clone()))
        };
        let alert = Alert::failed_attempts(3);
        let notifier = Notifier::start(Arc::new(crate::failure::AlertHook::new(alert, call)));
        for offset in 0..9 {
            notifier.tell(failed(offset, AGAIN));
        }
        notifier.flush().await;
        assert_eq!(*raised.lock().unwrap(), [(3, Some("no".to_owned()))]);
    }
}
