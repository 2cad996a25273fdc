//! Subscriptions by regular expression, which the coordinator resolves (KIP-848).
//!
//! The syntax is RE2's, as in Apache Kafka, which this engine shares but for rarities; `\w` and its
//! like are ASCII in both. The expression is simulated, not searched with backtracking: it takes time
//! linear in the topic's name whatever the expression, so no client can stall the coordinator.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::protocol::StrBytes;
use regex_automata::nfa::thompson;
use regex_automata::nfa::thompson::pikevm::PikeVM;
use regex_automata::util::syntax;

use super::super::owned;
use super::super::topics::Topics;

/// Bytes of an expression. librdkafka joins all expressions of a subscription to one.
const PATTERN_MAX: usize = 16 * 1024;
/// Bytes of a compiled expression.
const COMPILED_MAX: usize = 1024 * 1024;

/// An expression that is valid.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    text: StrBytes,
    matcher: PikeVM,
}

impl Pattern {
    /// Must match the whole of a name, as in Kafka.
    pub(super) fn new(text: &StrBytes) -> Result<Self, String> {
        if text.len() > PATTERN_MAX {
            return Err(format!("it is longer than {PATTERN_MAX} bytes"));
        }
        // Bytes instead of characters: topics' names are ASCII.
        let matcher = PikeVM::builder()
            .syntax(syntax::Config::new().unicode(false).utf8(false))
            .thompson(
                thompson::Config::new()
                    .nfa_size_limit(Some(COMPILED_MAX))
                    .utf8(false),
            )
            .build(&format!(r"\A(?:{})\z", &**text))
            .map_err(|error| describe(&error))?;
        Ok(Self {
            text: owned(text),
            matcher,
        })
    }

    fn resolve(&self, topics: &Topics) -> BTreeSet<StrBytes> {
        let mut cache = self.matcher.create_cache();
        topics
            .names()
            .filter(|name| self.matcher.is_match(&mut cache, name.as_bytes()))
            .cloned()
            .collect()
    }
}

/// The expressions that members of a group have subscribed to, and what they stand for.
#[derive(Debug, Default)]
pub(super) struct Patterns(BTreeMap<StrBytes, (Pattern, BTreeSet<StrBytes>)>);

impl Patterns {
    pub(super) fn add(&mut self, pattern: Pattern, topics: &Topics) {
        let resolved = pattern.resolve(topics);
        self.0.insert(pattern.text.clone(), (pattern, resolved));
    }

    /// Looks up again what expressions stand for. After a restart they are only in members'
    /// subscriptions, where nothing invalid gets.
    pub(super) fn resolve<'a>(
        &mut self,
        used: impl Iterator<Item = &'a StrBytes>,
        topics: &Topics,
    ) {
        for (pattern, resolved) in self.0.values_mut() {
            *resolved = pattern.resolve(topics);
        }
        for text in used {
            if !self.0.contains_key(text)
                && let Ok(pattern) = Pattern::new(text)
            {
                self.add(pattern, topics);
            }
        }
    }

    pub(super) fn topics(&self, pattern: &StrBytes) -> Option<&BTreeSet<StrBytes>> {
        self.0.get(pattern).map(|(_, topics)| topics)
    }

    /// Forgets what nobody uses any more.
    pub(super) fn keep<'a>(&mut self, used: impl Iterator<Item = &'a StrBytes>) {
        let used: BTreeSet<_> = used.collect();
        self.0.retain(|pattern, _| used.contains(pattern));
    }
}

/// The error and its causes: the outermost says only that there is one.
fn describe(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", describe(cause)),
        None => error.to_string(),
    }
}
