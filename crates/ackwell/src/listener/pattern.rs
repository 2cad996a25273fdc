//! Topics by a pattern of their names.
//!
//! Which topics a pattern means is decided here and nowhere else: the client library, the brokers
//! of KIP-848 and Java each have a regular-expression language of their own, and a pattern that
//! means one thing at the start and another when a topic appears would lose records. So the
//! container lists the topics, matches them here, and subscribes to names.

use std::borrow::Cow;
use std::collections::{HashSet, VecDeque};
use std::error::Error;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use regex_automata::Anchored;
use regex_automata::dfa::{Automaton, StartKind, dense};
use regex_automata::nfa::thompson;
use regex_automata::util::primitives::StateID;
use regex_automata::util::{start, syntax};

use crate::context::SetupError;
use crate::dead_letters::parking_topic;
use crate::topic::DEAD_LETTER_SUFFIX;

/// A pattern larger than this, compiled, is a mistake.
const DFA_BYTES_MAX: usize = 4 << 20;
/// How many pairs of states are looked at to tell two patterns apart.
const PAIRS_MAX: usize = 1 << 16;
/// The longest name of a topic, and what names are made of.
const NAME_BYTES_MAX: usize = 249;
const NAME_BYTES: &str = "abcdefghijklmnopqrstuvwxyz-ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._";
/// How often new topics are looked for: often enough that nobody waits, seldom enough that nobody
/// notices. Kafka's `metadata.max.age.ms` is five minutes.
const REFRESH: Duration = Duration::from_secs(10);
const REFRESH_RANGE: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(3_600);

/// Topics by a regular expression that the whole name must match, as in Java's
/// `subscribe(Pattern)`: `orders-[a-z]+` means `orders-eu`, and not `old-orders-eu`.
///
/// The syntax is that of the crate [`regex`](https://docs.rs/regex/latest/regex/#syntax), over bytes; a
/// topic's name is made of letters, digits, `.`, `_` and `-`.
///
/// Never meant are Kafka's own topics (`__consumer_offsets` and others that begin with `__`), and
/// what listeners make beside their topics: dead letters (`.DLQ`, `-dlt`), parked ones and
/// retry topics (`.retry.1`, `-retry`, `-retry-1000`). See
/// [`with_dead_letters`](Self::with_dead_letters).
///
/// With a pattern, records are retried in place or ordered by key, not by retry topics: those must
/// be there with their origin's partitions before a record is read, so that a topic that appears
/// while the listener runs, whose retry topics could not be made, would have to be left unread.
///
/// ```
/// use std::time::Duration;
/// use ackwell::Listener;
/// use ackwell::listener::Pattern;
///
/// let tenants = Pattern::new("orders-[a-z]+").refresh(Duration::from_secs(60));
/// let listener = Listener::matching(tenants).group("billing").handle(async || {});
/// # let _ = listener;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    source: Cow<'static, str>,
    refresh: Duration,
    dead_letters: bool,
}

impl Pattern {
    /// Topics whose whole name matches `regex`. What is no regular expression is an error at the
    /// start.
    pub fn new(regex: impl Into<Cow<'static, str>>) -> Self {
        Self {
            source: regex.into(),
            refresh: REFRESH,
            dead_letters: false,
        }
    }

    /// How often new topics are looked for; default 10 s, one request for all topics' metadata each
    /// time. A new topic is read from its beginning. From 100 ms to an hour.
    #[must_use]
    pub fn refresh(mut self, interval: Duration) -> Self {
        self.refresh = interval;
        self
    }

    /// Means dead-letter and retry topics, too, where they match.
    #[must_use]
    pub fn with_dead_letters(mut self) -> Self {
        self.dead_letters = true;
        self
    }

    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    /// Ready to match; the container does that at the start. For tests of one's patterns.
    ///
    /// # Errors
    /// When it is no regular expression, too large, matches nothing, or its times are out of range.
    pub fn compile(&self) -> Result<Matcher, SetupError> {
        let source = &*self.source;
        let wrong = |why: String| {
            SetupError::new(format!("`{source}` is not a pattern of topics: {why}"))
                .mend("write a regular expression, such as `orders-[a-z]+`")
        };
        if !REFRESH_RANGE.contains(&self.refresh) {
            let refresh = self.refresh;
            let what = format!("`Pattern::refresh({refresh:?})` is out of range");
            return Err(SetupError::new(what).mend("write a time from 100 ms to an hour"));
        }
        // Alone first: only then is it sure to stay within the brackets.
        build(source).map_err(wrong)?;
        let dfa = build(&format!("^(?:{source})$")).map_err(wrong)?;
        let anchored = start::Config::new().anchored(Anchored::Yes);
        let start = dfa.start_state(&anchored).map_err(|error| {
            SetupError::new(format!("`{source}` is not a pattern of topics: {error}"))
        })?;
        let matcher = Matcher {
            dfa,
            start,
            source: source.to_owned(),
            refresh: self.refresh,
            dead_letters: self.dead_letters,
        };
        match matcher.common(&matcher) {
            Common::Nothing => Err(SetupError::new(format!(
                "the pattern `{source}` matches no topic that it may mean"
            ))
            .mend("names have up to 249 letters, digits, `.`, `_` and `-`; for dead letters and retry topics add `Pattern::with_dead_letters`")),
            Common::Topic(_) | Common::Unknown => Ok(matcher),
        }
    }
}

impl From<&'static str> for Pattern {
    fn from(regex: &'static str) -> Self {
        Self::new(regex)
    }
}

impl From<String> for Pattern {
    fn from(regex: String) -> Self {
        Self::new(regex)
    }
}

/// The innermost cause, of which the last line says what is wrong.
fn reason(error: &dyn Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default();
    last.trim_start_matches("error: ").to_owned()
}

type Dfa = dense::DFA<Vec<u32>>;

/// The error says what is wrong with it.
fn build(pattern: &str) -> Result<Dfa, String> {
    let limits = dense::Config::new()
        .start_kind(StartKind::Anchored)
        .dfa_size_limit(Some(DFA_BYTES_MAX))
        .determinize_size_limit(Some(DFA_BYTES_MAX));
    let nfa = thompson::Config::new()
        .utf8(false)
        .nfa_size_limit(Some(DFA_BYTES_MAX));
    dense::Builder::new()
        .configure(limits)
        .syntax(syntax::Config::new().unicode(false).utf8(false))
        .thompson(nfa)
        .build(pattern)
        .map_err(|error| reason(&error))
}

/// A [`Pattern`] that is ready to match.
pub struct Matcher {
    dfa: Dfa,
    start: StateID,
    source: String,
    refresh: Duration,
    dead_letters: bool,
}

/// What two patterns have in common.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Common {
    Nothing,
    /// Both mean a topic of this name.
    Topic(String),
    /// They are too large to tell.
    Unknown,
}

impl Matcher {
    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    pub(crate) fn refresh(&self) -> Duration {
        self.refresh
    }

    /// Whether it means the topic `name`.
    pub fn means(&self, name: &str) -> bool {
        self.matches(name) && self.allows(name)
    }

    /// Whether it matches a topic that it does not mean: Kafka's own, or a listener's.
    pub(crate) fn leaves_out(&self, name: &str) -> bool {
        self.matches(name) && !self.allows(name)
    }

    fn matches(&self, name: &str) -> bool {
        let step = |state, byte| self.dfa.next_state(state, byte);
        let end = name.bytes().fold(self.start, step);
        self.dfa.is_match_state(self.dfa.next_eoi_state(end))
    }

    fn allows(&self, name: &str) -> bool {
        !name.starts_with("__") && (self.dead_letters || !is_made_by_a_listener(name))
    }

    /// A topic that both mean, the shortest there is: both automata are walked side by side.
    pub(crate) fn common(&self, other: &Self) -> Common {
        let first = (self.start, other.start);
        let mut seen = HashSet::from([first]);
        let mut names = VecDeque::from([(first, String::new())]);
        while let Some(((one, two), name)) = names.pop_front() {
            let ends = self.is_match_at_end(one) && other.is_match_at_end(two);
            if ends && !name.is_empty() && self.allows(&name) && other.allows(&name) {
                return Common::Topic(name);
            }
            if name.len() == NAME_BYTES_MAX {
                continue;
            }
            for byte in NAME_BYTES.bytes() {
                let next = (
                    self.dfa.next_state(one, byte),
                    other.dfa.next_state(two, byte),
                );
                let is_dead = self.dfa.is_dead_state(next.0) || other.dfa.is_dead_state(next.1);
                if !is_dead && seen.insert(next) {
                    let mut name = name.clone();
                    name.push(char::from(byte));
                    names.push_back((next, name));
                }
            }
            if seen.len() > PAIRS_MAX {
                return Common::Unknown;
            }
        }
        Common::Nothing
    }

    fn is_match_at_end(&self, state: StateID) -> bool {
        self.dfa.is_match_state(self.dfa.next_eoi_state(state))
    }
}

impl fmt::Debug for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Matcher").field(&self.source).finish()
    }
}

/// Whether it is named as the dead-letter and retry topics of listeners are, ours or Spring's.
fn is_made_by_a_listener(name: &str) -> bool {
    let numbered = |stem: &str| {
        let digits = name.len() - name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        digits > 0 && name[..name.len() - digits].ends_with(stem)
    };
    let parked = parking_topic("");
    let suffixes = [DEAD_LETTER_SUFFIX, "-dlt", "-retry", &parked];
    suffixes.iter().any(|suffix| name.ends_with(suffix))
        || numbered(".retry.")
        || numbered("-retry-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matcher(source: &'static str) -> Matcher {
        Pattern::new(source).compile().unwrap()
    }

    fn refused(pattern: Pattern) -> String {
        pattern.compile().unwrap_err().to_string()
    }

    #[test]
    fn a_pattern_means_whole_names() {
        let orders = matcher("orders-[a-z]+|bills");
        for name in ["orders-eu", "bills"] {
            assert!(orders.means(name), "{name}");
        }
        for name in [
            "orders-",
            "old-orders-eu",
            "orders-eu2",
            "bills2",
            "",
            "orders-EU",
        ] {
            assert!(!orders.means(name), "{name}");
        }
        assert!(matcher("(?i)orders").means("OrDerS"));
        assert!(matcher("orders-\\d+").means("orders-17"));
    }

    #[test]
    fn dead_letters_retry_topics_and_kafkas_own_are_never_meant_by_accident() {
        let everything = matcher(".*");
        for name in [
            "orders.DLQ",
            "orders-dlt",
            "orders.retry.1",
            "orders.retry.12",
            "orders-retry",
            "orders-retry-1000",
            "__consumer_offsets",
        ] {
            assert!(
                !everything.means(name) && everything.leaves_out(name),
                "{name}"
            );
        }
        for name in [
            "orders",
            "retry",
            "orders.retry",
            "DLQ",
            "dlt-orders",
            "_orders",
        ] {
            assert!(everything.means(name), "{name}");
        }
        let all = Pattern::new(".*").with_dead_letters().compile().unwrap();
        assert!(all.means("orders.DLQ") && !all.means("__consumer_offsets"));
    }

    #[test]
    fn what_is_no_pattern_or_means_nothing_is_refused_with_a_reason() {
        let said = refused(Pattern::new("orders-[a-z"));
        assert!(
            said.contains("`orders-[a-z` is not a pattern") && said.contains("unclosed"),
            "{said}"
        );
        assert!(refused(Pattern::new("a)|(b")).contains("not a pattern"));
        assert!(refused(Pattern::new("a b")).contains("matches no topic"));
        assert!(refused(Pattern::new("")).contains("matches no topic"));
        assert!(refused(Pattern::new(".*\\.DLQ")).contains("with_dead_letters"));
        assert!(refused(Pattern::new("[a-z]{1,249}{1,249}")).contains("not a pattern"));
        let never = Pattern::new("a").refresh(Duration::ZERO);
        assert!(refused(never).contains("out of range"));
    }

    #[test]
    fn two_patterns_are_told_apart_or_a_topic_is_named_that_both_mean() {
        let (eu, us) = (matcher("orders-eu-.*"), matcher("orders-us-.*"));
        assert_eq!(eu.common(&us), Common::Nothing);
        let common = matcher("orders-.*").common(&matcher(".*-eu"));
        assert_eq!(common, Common::Topic("orders-eu".to_owned()));
        assert_eq!(
            matcher("a+").common(&matcher("a{3,}")),
            Common::Topic("aaa".to_owned())
        );
    }
}
