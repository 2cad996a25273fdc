//! What a listener makes of failures: the classes and policies that it gives to causes.
//!
//! An error's own class is a guess made far from the listener: a timeout may be worth an hour of
//! patience here and none there. And most errors are others' types, which say no class at all.

use std::any::type_name;
use std::error::Error;
use std::fmt;

use super::{Class, Failure};
use crate::retry::RetryPolicy;

/// A listener's own view of failures, by their causes.
///
/// The outermost error for which there is a rule decides, and of several rules for it the first.
/// A rule wins over the class that the error gives itself.
#[derive(Clone, Default)]
pub struct Verdicts {
    rules: Vec<Rule>,
    others: Option<Class>,
    policies: Vec<RetryPolicy>,
}

#[derive(Clone, Copy)]
struct Rule {
    applies: fn(&(dyn Error + 'static)) -> bool,
    cause: &'static str,
    verdict: Verdict,
}

/// What is made of one failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) class: Class,
    /// 0 for the listener's own, else the place of [`Verdicts::policies`], from 1.
    pub(crate) policy: usize,
}

impl Verdicts {
    /// Failures caused by an `E` are of this class.
    pub fn classify<E: Error + 'static>(&mut self, class: Class) {
        self.rule::<E>(Verdict { class, policy: 0 });
    }

    /// Failures caused by an `E` are transient, and repeated by this policy.
    pub fn retry_for<E: Error + 'static>(&mut self, policy: RetryPolicy) {
        self.policies.push(policy);
        self.rule::<E>(Verdict {
            class: Class::Transient,
            policy: self.policies.len(),
        });
    }

    /// Transient failures for whose causes there is no rule are of this class instead.
    pub fn classify_others(&mut self, class: Class) {
        self.others = Some(class);
    }

    fn rule<E: Error + 'static>(&mut self, verdict: Verdict) {
        self.rules.push(Rule {
            applies: |error| error.is::<E>(),
            cause: type_name::<E>(),
            verdict,
        });
    }

    /// Policies by cause, in the order in which they were declared.
    pub(crate) fn policies(&self) -> &[RetryPolicy] {
        &self.policies
    }

    /// A cause for which there are two rules, of which the second would never apply.
    pub(crate) fn repeated(&self) -> Option<&'static str> {
        let mut seen = std::collections::BTreeSet::new();
        let mut causes = self.rules.iter().map(|rule| rule.cause);
        causes.find(|cause| !seen.insert(*cause))
    }

    pub(crate) fn judge(&self, failure: &Failure) -> Verdict {
        let rule_for = |error| self.rules.iter().find(|rule| (rule.applies)(error));
        if let Some(rule) = failure.causes().find_map(rule_for) {
            return rule.verdict;
        }
        let class = match (failure.class(), self.others) {
            (Class::Transient, Some(other)) => other,
            (class, _) => class,
        };
        Verdict { class, policy: 0 }
    }
}

impl fmt::Debug for Verdicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules = self.rules.iter().map(|rule| (rule.cause, rule.verdict));
        f.debug_map()
            .entries(rules)
            .entry(&"others", &self.others)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::time::Duration;

    use super::*;
    use crate::Classify;

    #[derive(Debug, thiserror::Error)]
    #[error("paying")]
    struct Paying(#[source] io::Error);

    impl Classify for Paying {
        fn class(&self) -> Class {
            Class::Permanent
        }
    }

    fn paying() -> Failure {
        Paying(io::Error::other("boom")).into()
    }

    fn class(verdicts: &Verdicts, failure: &Failure) -> Class {
        verdicts.judge(failure).class
    }

    #[test]
    fn without_a_rule_the_errors_own_class_stands() {
        let verdicts = Verdicts::default();
        assert_eq!(class(&verdicts, &paying()), Class::Permanent);
        assert_eq!(
            class(&verdicts, &Failure::unavailable("x")),
            Class::Unavailable
        );
    }

    #[test]
    fn a_cause_beneath_decides_if_nothing_above_it_has_a_rule() {
        let mut verdicts = Verdicts::default();
        verdicts.classify::<io::Error>(Class::Unavailable);
        assert_eq!(class(&verdicts, &paying()), Class::Unavailable);
        verdicts.classify::<Paying>(Class::Skip);
        assert_eq!(class(&verdicts, &paying()), Class::Skip);
    }

    #[test]
    fn a_cause_with_a_policy_is_transient_and_repeated_by_it() {
        let mut verdicts = Verdicts::default();
        verdicts.retry_for::<fmt::Error>(RetryPolicy::none());
        verdicts.retry_for::<io::Error>(RetryPolicy::fixed(Duration::from_secs(1)));
        let verdict = verdicts.judge(&paying());
        assert_eq!((verdict.class, verdict.policy), (Class::Transient, 2));
    }

    #[test]
    fn a_set_of_retryable_causes_leaves_the_others_to_another_class() {
        let mut verdicts = Verdicts::default();
        verdicts.classify::<io::Error>(Class::Transient);
        verdicts.classify_others(Class::Permanent);
        assert_eq!(class(&verdicts, &paying()), Class::Transient);
        assert_eq!(class(&verdicts, &Failure::transient("x")), Class::Permanent);
        assert_eq!(
            class(&verdicts, &Failure::unavailable("x")),
            Class::Unavailable
        );
    }

    #[test]
    fn two_rules_for_one_cause_are_found() {
        let mut verdicts = Verdicts::default();
        verdicts.classify::<io::Error>(Class::Skip);
        assert_eq!(verdicts.repeated(), None);
        verdicts.classify::<io::Error>(Class::Stop);
        assert_eq!(verdicts.repeated(), Some("std::io::error::Error"));
    }
}
