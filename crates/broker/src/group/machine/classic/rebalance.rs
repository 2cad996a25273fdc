//! When a generation ends, and when the next one is complete.

use std::cmp::max;

use kafka_protocol::error::ResponseError;
use tracing::{info, warn};

use super::super::{Context, Response, sync_refused};
use super::{Classic, InitialDelay, Phase};

impl Classic {
    /// The membership changed. Begins a rebalance, or if one is under way, looks whether the change
    /// was what it waited for.
    pub(super) fn rebalance(&mut self, cx: &mut Context<'_>, reason: &'static str) {
        if !matches!(self.phase, Phase::PreparingRebalance { .. }) {
            self.prepare(cx, reason);
        }
        self.complete_if_joined(cx);
    }

    fn prepare(&mut self, cx: &mut Context<'_>, reason: &'static str) {
        info!(group = %self.id, generation = self.generation, members = self.members.len(), reason, "rebalance");
        for member in self.members.values_mut() {
            member.owes_sync = false;
            if let Some(token) = member.end_sync(cx.now) {
                cx.reply(token, sync_refused(ResponseError::RebalanceInProgress));
            }
        }
        let delay = cx.config.initial_rebalance_delay_ms;
        let limit = self.rebalance_timeout_ms();
        self.phase = if self.phase == Phase::Empty {
            let initial = InitialDelay {
                remaining_ms: limit.saturating_sub(delay),
                newcomer: false,
            };
            Phase::PreparingRebalance {
                until: cx.now.tick_ms + delay,
                initial: Some(initial),
            }
        } else {
            Phase::PreparingRebalance {
                until: cx.now.tick_ms + limit,
                initial: None,
            }
        };
    }

    /// Completes the generation once nobody is missing: neither members of the last one nor those
    /// who were given an id and are about to use it. An empty group's first wait is sat out.
    pub(super) fn complete_if_joined(&mut self, cx: &mut Context<'_>) {
        let waited_for = !self.pending.is_empty()
            || self.members.values().any(|member| !member.waits_for_join());
        if matches!(self.phase, Phase::PreparingRebalance { initial: None, .. }) && !waited_for {
            self.complete(cx);
        }
    }

    /// The time is up that the phase had.
    pub(super) fn on_phase_deadline(&mut self, cx: &mut Context<'_>) {
        let now = cx.now.tick_ms;
        match self.phase {
            Phase::PreparingRebalance { until, initial } if until <= now => match initial {
                Some(initial) if initial.newcomer && initial.remaining_ms > 0 => {
                    self.extend(cx, initial)
                }
                _ => self.complete(cx),
            },
            Phase::CompletingRebalance { sync_until } | Phase::Stable { sync_until }
                if sync_until <= now =>
            {
                self.evict_unsynced(cx);
            }
            _ => {}
        }
    }

    /// Somebody came while the empty group waited: it waits once more, as long as that is no longer
    /// in all than a rebalance may take.
    fn extend(&mut self, cx: &mut Context<'_>, initial: InitialDelay) {
        let delay = cx
            .config
            .initial_rebalance_delay_ms
            .min(initial.remaining_ms);
        let remaining_ms = initial.remaining_ms - delay;
        // At least a millisecond, so that a delay of 0 does not fall due again at the same moment.
        let until = cx.now.tick_ms + max(delay, 1);
        self.phase = Phase::PreparingRebalance {
            until,
            initial: Some(InitialDelay {
                remaining_ms,
                newcomer: false,
            }),
        };
    }

    /// Ends the gathering of joins. Members that did not rejoin are out, except static ones, who
    /// have their session to come back; if only those are left, the others' next step is theirs.
    fn complete(&mut self, cx: &mut Context<'_>) {
        let late: Vec<_> = self
            .members
            .values()
            .filter(|m| !m.waits_for_join() && !m.is_static())
            .map(|m| m.id.clone())
            .collect();
        for id in late {
            warn!(group = %self.id, member = %id, "member evicted: it did not rejoin in time");
            self.remove(cx, &id);
        }
        if !self.elect_leader() && !self.members.is_empty() {
            let until = cx.now.tick_ms + max(self.rebalance_timeout_ms(), 1);
            self.phase = Phase::PreparingRebalance {
                until,
                initial: None,
            };
            return;
        }
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        if self.members.is_empty() {
            self.become_empty(cx)
        } else {
            self.announce(cx)
        }
    }

    /// Keeps the leader if it rejoined, else takes another who did.
    fn elect_leader(&mut self) -> bool {
        let leader = self.leader.as_ref().and_then(|id| self.members.get(id));
        if leader.is_some_and(|member| member.waits_for_join()) {
            return true;
        }
        let Some(next) = self.members.values().find(|member| member.waits_for_join()) else {
            return false;
        };
        self.leader = Some(next.id.clone());
        true
    }

    fn become_empty(&mut self, cx: &mut Context<'_>) {
        info!(group = %self.id, generation = self.generation, "group is empty");
        self.phase = Phase::Empty;
        self.protocol = None;
        self.leader = None;
        self.write(cx);
    }

    /// Tells everybody the new generation. It is written when it has assignments.
    fn announce(&mut self, cx: &mut Context<'_>) {
        self.protocol = self.elect_protocol();
        info!(
            group = %self.id, generation = self.generation, members = self.members.len(),
            protocol = self.protocol.as_deref().unwrap_or_default(), leader = self.leader.as_deref().unwrap_or_default(),
            "generation complete"
        );
        self.phase = Phase::CompletingRebalance {
            sync_until: cx.now.tick_ms + max(self.rebalance_timeout_ms(), 1),
        };
        let joined: Vec<_> = self
            .members
            .values_mut()
            .map(|member| (member.id.clone(), member.end_join(cx.now)))
            .collect();
        for (id, token) in joined {
            if let Some(token) = token {
                cx.reply(token, Response::Join(self.generation_response(id)));
            }
        }
    }

    /// Members that took the new generation and never asked for their assignment hold partitions
    /// that nobody reads.
    fn evict_unsynced(&mut self, cx: &mut Context<'_>) {
        let owing: Vec<_> = self
            .members
            .values()
            .filter(|m| m.owes_sync)
            .map(|m| m.id.clone())
            .collect();
        for id in &owing {
            warn!(group = %self.id, member = %id, "member evicted: it did not sync in time");
            self.remove(cx, id);
        }
        if !owing.is_empty() {
            self.rebalance(cx, "members did not sync in time");
        }
    }

    /// How long a rebalance may take: as long as the slowest member asked for.
    fn rebalance_timeout_ms(&self) -> u64 {
        self.members
            .values()
            .map(|member| member.rebalance_timeout_ms)
            .max()
            .unwrap_or(0)
    }
}
