//! What is due: open transactions whose time is over, requests that waited long enough, and ids
//! that nobody has used for a week.

use kafka_protocol::error::ResponseError;
use kafka_protocol::protocol::StrBytes;
use tracing::{info, warn};

use super::super::record::{Change, State};
use super::Machine;
use crate::coordinator::Now;

impl Machine {
    pub(super) fn expire(&mut self, now: Now) {
        while let Some((at, id)) = self.timers.first().cloned() {
            if at > now.tick_ms {
                break;
            }
            self.timers.pop_first();
            if let Some(entry) = self.ids.get_mut(&id) {
                entry.timer = None;
            }
            self.on_due(&id, now);
            self.settle(&id);
        }
        if self.expiry_ms <= now.tick_ms {
            self.expiry_ms = now.tick_ms.saturating_add(self.config.expiry_check_ms);
            self.forget_unused(now);
        }
    }

    fn on_due(&mut self, id: &StrBytes, now: Now) {
        let Some(entry) = self.ids.get_mut(id) else {
            return;
        };
        let is_due = |at: u64| at <= now.tick_ms;
        if let Some(held) = entry.held.take_if(|held| is_due(held.until)) {
            self.refuse(
                held.token,
                &held.request,
                ResponseError::ConcurrentTransactions,
            );
        }
        let timed_out = self
            .ids
            .get(id)
            .is_some_and(|entry| entry.timeout_at.is_some_and(is_due));
        if timed_out {
            warn!(transactional_id = %id, "a transaction timed out: it is aborted");
            self.fence(id, now);
        }
    }

    fn forget_unused(&mut self, now: Now) {
        let unused: Vec<_> = self
            .ids
            .iter()
            .filter(|(_, entry)| {
                let idle = now.unix_ms.saturating_sub(entry.transaction.update_ms);
                let open = matches!(
                    entry.transaction.state,
                    State::Ongoing | State::Preparing(_)
                );
                !open && idle >= self.config.id_expiration_ms
            })
            .map(|(id, _)| id.clone())
            .collect();
        for id in unused {
            info!(transactional_id = %id, "a transactional id expired");
            self.ids.remove(&id);
            self.output.changes.push(Change {
                transactional_id: id,
                value: None,
            });
        }
    }
}
