//! What operators ask: which transactions there are, and how one stands (KIP-664, KIP-994).

use std::collections::BTreeSet;

use kafka_protocol::protocol::StrBytes;

use super::super::record::Transaction;
use super::{Machine, Response};
use crate::coordinator::{Now, Token};

/// Which transactions are asked for; empty sets ask for all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    /// Names of states, as Kafka writes them.
    pub(crate) states: BTreeSet<StrBytes>,
    pub(crate) producer_ids: BTreeSet<i64>,
    /// Open for longer than this.
    pub(crate) open_longer_ms: Option<i64>,
}

impl Filter {
    fn lets_through(&self, transaction: &Transaction, now: Now) -> bool {
        let state = StrBytes::from_static_str(transaction.state.name());
        let open_for = now.unix_ms.saturating_sub(transaction.start_ms);
        (self.states.is_empty() || self.states.contains(&state))
            && (self.producer_ids.is_empty()
                || self.producer_ids.contains(&transaction.producer.id))
            && self.open_longer_ms.is_none_or(|than| open_for > than)
    }
}

impl Machine {
    pub(super) fn describe(&mut self, token: Token, id: &StrBytes) {
        let found = self.ids.get(id).map(|entry| entry.transaction.clone());
        self.reply(token, Response::Described(found));
    }

    pub(super) fn incomplete(&mut self, token: Token) {
        let incomplete = self.ids.values().map(|entry| &entry.transaction);
        let incomplete = incomplete
            .filter(|transaction| !transaction.partitions.is_empty())
            .map(|transaction| (transaction.producer, transaction.partitions.clone()))
            .collect();
        self.reply(token, Response::Incomplete(incomplete));
    }

    pub(super) fn list(&mut self, now: Now, token: Token, filter: &Filter) {
        let listed = self
            .ids
            .iter()
            .filter(|(_, entry)| filter.lets_through(&entry.transaction, now))
            .map(|(id, entry)| {
                let transaction = &entry.transaction;
                (id.clone(), transaction.producer, transaction.state)
            });
        let listed = listed.collect();
        self.reply(token, Response::Listed(listed));
    }
}
