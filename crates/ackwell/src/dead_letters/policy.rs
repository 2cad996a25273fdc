//! Where dead letters are written: names and header formats that others read.

use std::borrow::Cow;

use ackwell_core::Class;
use ackwell_core::envelope::DEAD_LETTER_SUFFIX;

/// Where Spring writes dead letters.
const SPRING_SUFFIX: &str = "-dlt";
/// Where records go that even a dead-letter listener or a replay can't get rid of.
const PARKED_SUFFIX: &str = ".parked";
/// How dead-letter topics are called, by us and by others.
pub(crate) const SUFFIXES: [&str; 5] = [DEAD_LETTER_SUFFIX, SPRING_SUFFIX, ".DLT", "-dlq", ".dlq"];

/// What becomes of records that can't be handled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeadLetters {
    /// They are written there, and passed once the broker has acknowledged that.
    To(Target),
    /// The listener stops instead, so that nothing is passed over.
    Stop,
}

/// Where dead letters are written, and with which headers. The topics are created at the start
/// with the origin's partitions where they are missing, and with room for the added headers in
/// `max.message.bytes`. A dead letter goes to the partition of its origin if the topic has it,
/// otherwise its key chooses.
///
/// ```
/// use ackwell::dead_letters::{per_class, spring, suffix};
/// use ackwell::{Class, Listener, extract::Text};
///
/// # async fn audit(Text(text): Text) {}
/// Listener::on("orders").dead_letters(suffix(".DLQ")).handle(audit); // as without it
/// Listener::on("orders").dead_letters(spring()).handle(audit); // orders-dlt, for Spring's tools
/// Listener::on("orders")
///     .dead_letters(per_class([(Class::Permanent, ".poison"), (Class::Transient, ".exhausted")]))
///     .handle(audit);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    naming: Naming,
    per_class: Vec<(Class, Naming)>,
    format: Format,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Naming {
    Suffix(Cow<'static, str>),
    Topic(Cow<'static, str>),
    Parked,
}

/// Which headers say where a dead letter comes from and why. Ackwell's are always there, so that
/// its tools and those of others read the same dead letters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// `original.*` and `failure.*`, all text. The default.
    #[default]
    Ackwell,
    /// The same, and those of Spring's `DeadLetterPublishingRecoverer`: `kafka_dlt-original-*`
    /// (partition as int32, offset and timestamp as int64, big endian) and
    /// `kafka_dlt-exception-*`.
    Spring,
}

/// To `<topic><suffix>`; `.DLQ` is the default.
pub fn suffix(suffix: impl Into<Cow<'static, str>>) -> Target {
    Target {
        naming: Naming::Suffix(suffix.into()),
        per_class: Vec::new(),
        format: Format::default(),
    }
}

/// To one topic, whatever the origin.
pub fn topic(name: impl Into<Cow<'static, str>>) -> Target {
    Target {
        naming: Naming::Topic(name.into()),
        ..suffix("")
    }
}

/// As Spring does: to `<topic>-dlt`, with Spring's headers beside ours.
pub fn spring() -> Target {
    suffix(SPRING_SUFFIX).format(Format::Spring)
}

/// To `<topic><suffix>` by the class of the failure; other classes go to `<topic>.DLQ`.
pub fn per_class<S: Into<Cow<'static, str>>>(
    suffixes: impl IntoIterator<Item = (Class, S)>,
) -> Target {
    let suffixes = suffixes.into_iter();
    suffixes.fold(Target::default(), |target, (class, suffix)| {
        target.class(class, suffix)
    })
}

/// To `<topic>.parked`, where nothing listens: what a dead-letter listener can't handle.
pub fn parked() -> Target {
    Target {
        naming: Naming::Parked,
        ..suffix("")
    }
}

/// Where a dead letter of `topic` is parked: `orders.DLQ` and `orders` have `orders.parked`.
pub fn parking_topic(topic: &str) -> String {
    let origin = origin_of(topic).unwrap_or(topic);
    format!("{origin}{PARKED_SUFFIX}")
}

/// The topic whose dead letters a topic of this name would hold.
pub(crate) fn origin_of(topic: &str) -> Option<&str> {
    let mut suffixes = SUFFIXES.iter().chain([&PARKED_SUFFIX]);
    suffixes.find_map(|suffix| topic.strip_suffix(suffix))
}

impl Default for DeadLetters {
    fn default() -> Self {
        DeadLetters::To(Target::default())
    }
}

impl From<Target> for DeadLetters {
    fn from(target: Target) -> Self {
        DeadLetters::To(target)
    }
}

impl Default for Target {
    fn default() -> Self {
        suffix(DEAD_LETTER_SUFFIX)
    }
}

impl Target {
    /// Failures of this class go to `<topic><suffix>` instead.
    #[must_use]
    pub fn class(mut self, class: Class, suffix: impl Into<Cow<'static, str>>) -> Self {
        self.per_class.retain(|(known, _)| *known != class);
        self.per_class.push((class, Naming::Suffix(suffix.into())));
        self
    }

    /// Which headers are written.
    #[must_use]
    pub fn format(mut self, format: Format) -> Self {
        self.format = format;
        self
    }

    pub(crate) fn headers(&self) -> Format {
        self.format
    }

    /// Where a record of `origin` goes that failed so.
    pub(crate) fn topic_for(&self, origin: &str, class: Class) -> String {
        let chosen = self.per_class.iter().find(|(known, _)| *known == class);
        chosen
            .map_or(&self.naming, |(_, naming)| naming)
            .name(origin)
    }

    /// All topics to which records of `origin` may go.
    pub(crate) fn topics_for(&self, origin: &str) -> Vec<String> {
        let chosen = self.per_class.iter().map(|(_, naming)| naming);
        let all = std::iter::once(&self.naming).chain(chosen);
        all.map(|naming| naming.name(origin)).collect()
    }
}

impl Naming {
    fn name(&self, origin: &str) -> String {
        match self {
            Naming::Suffix(suffix) => format!("{origin}{suffix}"),
            Naming::Topic(topic) => topic.to_string(),
            Naming::Parked => parking_topic(origin),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_has_its_own_topic_and_the_others_share_one() {
        let target = per_class([(Class::Permanent, ".poison")]);
        assert_eq!(
            target.topic_for("orders", Class::Permanent),
            "orders.poison"
        );
        assert_eq!(target.topic_for("orders", Class::Transient), "orders.DLQ");
        assert_eq!(target.topics_for("orders"), ["orders.DLQ", "orders.poison"]);
    }

    #[test]
    fn the_later_suffix_of_a_class_counts() {
        let target = suffix(".DLQ")
            .class(Class::Permanent, ".a")
            .class(Class::Permanent, ".b");
        assert_eq!(target.topics_for("t"), ["t.DLQ", "t.b"]);
    }

    #[test]
    fn a_topic_and_its_dead_letters_are_parked_together() {
        for topic in ["orders", "orders.DLQ", "orders-dlt", "orders.parked"] {
            assert_eq!(parking_topic(topic), "orders.parked", "{topic}");
        }
        assert_eq!(
            parked().topic_for("orders.DLQ", Class::Stop),
            "orders.parked"
        );
    }
}
