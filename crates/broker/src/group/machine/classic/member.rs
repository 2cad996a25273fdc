//! A member of a group: what it can, what it has, and what it waits for.

use bytes::Bytes;
use kafka_protocol::messages::JoinGroupRequest;
use kafka_protocol::protocol::StrBytes;

use super::super::{Client, Now, Token, owned};
use crate::group::record::MemberMetadata;

/// A member, from its first join that was taken until it leaves or is evicted.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) id: StrBytes,
    pub(super) instance_id: Option<StrBytes>,
    pub(super) client: Client,
    pub(super) rebalance_timeout_ms: u64,
    pub(super) session_timeout_ms: u64,
    /// In its order of preference.
    pub(super) protocols: Vec<Protocol>,
    pub(super) assignment: Bytes,
    /// Has the latest generation and has not asked for its assignment yet.
    pub(super) owes_sync: bool,
    waits: Option<Wait>,
    /// Its first join was not answered yet: it cannot heartbeat.
    is_new: bool,
    /// When its silence has become too long, unless it waits.
    silent_at: u64,
}

/// One assignor, or whatever else members agree on by name, with the member's metadata for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Protocol {
    pub(super) name: StrBytes,
    pub(super) metadata: Bytes,
}

/// A request that the member has not had an answer to. One at a time: a newer one replaces it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    Join(Token),
    Sync(Token),
}

impl Member {
    /// A member that has just sent its first join.
    pub(super) fn new(
        id: StrBytes,
        request: &JoinGroupRequest,
        client: &Client,
        now: Now,
        first_join_timeout_ms: u64,
    ) -> Self {
        let mut member = Self {
            id,
            instance_id: request.group_instance_id.as_ref().map(owned),
            client: client.short(),
            rebalance_timeout_ms: 0,
            session_timeout_ms: 0,
            protocols: Vec::new(),
            assignment: Bytes::new(),
            owes_sync: false,
            waits: None,
            is_new: true,
            silent_at: now.tick_ms + first_join_timeout_ms,
        };
        member.update(request, client);
        member
    }

    /// A member of the generation that the log ends with.
    pub(super) fn replayed(metadata: &MemberMetadata, protocol: &StrBytes, now: Now) -> Self {
        let session_timeout_ms = u64::try_from(metadata.session_timeout_ms).unwrap_or(0);
        Self {
            id: metadata.member_id.clone(),
            instance_id: metadata.instance_id.clone(),
            client: Client {
                id: metadata.client_id.clone(),
                host: metadata.client_host.clone(),
            },
            rebalance_timeout_ms: u64::try_from(metadata.rebalance_timeout_ms).unwrap_or(0),
            session_timeout_ms,
            protocols: vec![Protocol {
                name: protocol.clone(),
                metadata: metadata.subscription.clone(),
            }],
            assignment: metadata.assignment.clone(),
            owes_sync: false,
            waits: None,
            is_new: false,
            silent_at: now.tick_ms + session_timeout_ms,
        }
    }

    /// Takes over what a later join says.
    pub(super) fn update(&mut self, request: &JoinGroupRequest, client: &Client) {
        self.client = client.short();
        self.session_timeout_ms = u64::try_from(request.session_timeout_ms).unwrap_or(0);
        // Version 0 has no rebalance timeout; the session timeout stood for both (KIP-62).
        self.rebalance_timeout_ms =
            u64::try_from(request.rebalance_timeout_ms).unwrap_or(self.session_timeout_ms);
        if !self.offers(request) {
            self.protocols = request
                .protocols
                .iter()
                .map(|p| Protocol {
                    name: owned(&p.name),
                    metadata: Bytes::copy_from_slice(&p.metadata),
                })
                .collect();
        }
    }

    /// Whether a join says nothing new about protocols: it was repeated, not changed.
    pub(super) fn offers(&self, request: &JoinGroupRequest) -> bool {
        self.protocols.len() == request.protocols.len()
            && self
                .protocols
                .iter()
                .zip(&request.protocols)
                .all(|(a, b)| a.name == b.name && a.metadata == b.metadata)
    }

    pub(super) fn metadata(&self, protocol: &StrBytes) -> Bytes {
        self.protocols
            .iter()
            .find(|p| p.name == *protocol)
            .map(|p| p.metadata.clone())
            .unwrap_or_default()
    }

    pub(super) fn metadata_bytes(&self) -> usize {
        self.protocols
            .iter()
            .map(|p| p.name.len() + p.metadata.len())
            .sum()
    }

    /// Of `candidates`, the one that it prefers.
    pub(super) fn vote(&self, candidates: &[StrBytes]) -> Option<StrBytes> {
        self.protocols
            .iter()
            .map(|p| &p.name)
            .find(|name| candidates.contains(name))
            .cloned()
    }

    pub(super) fn is_static(&self) -> bool {
        self.instance_id.is_some()
    }

    pub(super) fn waits_for_join(&self) -> bool {
        matches!(self.waits, Some(Wait::Join(_)))
    }

    /// Waits from now on; gives the request that this one replaces.
    #[must_use]
    pub(super) fn wait(&mut self, wait: Wait) -> Option<Wait> {
        self.waits.replace(wait)
    }

    /// Its join is answered with a generation: it has a session from now on.
    pub(super) fn end_join(&mut self, now: Now) -> Option<Token> {
        self.is_new = false;
        self.owes_sync = true;
        self.alive(now);
        self.waits
            .take_if(|wait| matches!(wait, Wait::Join(_)))
            .map(Wait::token)
    }

    /// Its sync is answered: it has been waiting, so its session begins anew.
    pub(super) fn end_sync(&mut self, now: Now) -> Option<Token> {
        let token = self
            .waits
            .take_if(|wait| matches!(wait, Wait::Sync(_)))
            .map(Wait::token);
        if token.is_some() {
            self.alive(now);
        }
        token
    }

    /// It goes, or another process has taken its place: what it waited for, to be refused.
    pub(super) fn end_any(&mut self) -> Option<Wait> {
        self.waits.take()
    }

    /// It spoke. (A first join has its own limit, see [`Member::deadline`].)
    pub(super) fn alive(&mut self, now: Now) {
        if !self.is_new {
            self.silent_at = now.tick_ms + self.session_timeout_ms;
        }
    }

    /// When its silence counts as death. While it waits for an answer it cannot be expected to
    /// speak; only a first join has a limit, since the client may be gone and not know its id.
    pub(super) fn deadline(&self) -> Option<u64> {
        (self.is_new || self.waits.is_none()).then_some(self.silent_at)
    }

    pub(super) fn to_metadata(&self, protocol: &StrBytes) -> MemberMetadata {
        MemberMetadata {
            member_id: self.id.clone(),
            instance_id: self.instance_id.clone(),
            client_id: self.client.id.clone(),
            client_host: self.client.host.clone(),
            rebalance_timeout_ms: i32::try_from(self.rebalance_timeout_ms).unwrap_or(i32::MAX),
            session_timeout_ms: i32::try_from(self.session_timeout_ms).unwrap_or(i32::MAX),
            subscription: self.metadata(protocol),
            assignment: self.assignment.clone(),
        }
    }
}

impl Wait {
    fn token(self) -> Token {
        match self {
            Self::Join(token) | Self::Sync(token) => token,
        }
    }
}
