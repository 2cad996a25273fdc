//! Whether somebody may do something: the rules of the settings, made ready to be asked.
//!
//! Each handler asks for what its request names, since a request may name ten topics of which two
//! are refused; an API that has no handler that asks is refused to everybody but super users, so
//! that a new one is not open by accident.

use rustc_hash::{FxHashMap, FxHashSet};

use crate::config::ANONYMOUS;
use crate::{Access, Right, Rule};

/// What is to be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resource<'a> {
    Topic(&'a str),
    Group(&'a str),
    TransactionalId(&'a str),
    Cluster,
}

/// What is to be done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// Seeing that it exists and how it is: whoever has any right on it.
    Describe,
    Read,
    Write,
    Admin,
}

/// Answers whether.
#[derive(Debug)]
pub(crate) enum Judge {
    /// Everybody may do everything.
    Open,
    Ruled(Rules),
}

/// The rules by user.
#[derive(Debug)]
pub(crate) struct Rules {
    super_users: FxHashSet<String>,
    by_user: FxHashMap<String, Vec<Grant>>,
    for_everybody: Vec<Grant>,
}

/// A rule without its user.
#[derive(Debug, Clone)]
struct Grant {
    may: Vec<Right>,
    topics: Vec<Pattern>,
    groups: Vec<Pattern>,
    transactional_ids: Vec<Pattern>,
    cluster: bool,
}

#[derive(Debug, Clone)]
enum Pattern {
    Name(String),
    Prefix(String),
}

impl Judge {
    pub(crate) fn new(access: &Access) -> Self {
        if !access.ruled {
            return Self::Open;
        }
        let mut rules = Rules {
            super_users: access.super_users.iter().cloned().collect(),
            by_user: FxHashMap::default(),
            for_everybody: Vec::new(),
        };
        for rule in &access.rules {
            let grants = match rule.user.as_str() {
                "*" => &mut rules.for_everybody,
                user => rules.by_user.entry(user.to_owned()).or_default(),
            };
            grants.push(Grant::new(rule));
        }
        Self::Ruled(rules)
    }

    /// Whether `user` (nobody: was not asked) may.
    pub(crate) fn may(&self, user: Option<&str>, what: Use, resource: Resource<'_>) -> bool {
        match self {
            Self::Open => true,
            Self::Ruled(rules) => {
                let user = user.unwrap_or(ANONYMOUS);
                rules.super_users.contains(user)
                    || rules
                        .grants(user)
                        .any(|grant| grant.allows(what) && grant.names(resource))
            }
        }
    }

    /// Whether rules decide.
    pub(crate) fn is_ruled(&self) -> bool {
        matches!(self, Self::Ruled(_))
    }

    /// Whether `user` may do everything.
    pub(crate) fn is_super(&self, user: Option<&str>) -> bool {
        match self {
            Self::Open => true,
            Self::Ruled(rules) => rules.super_users.contains(user.unwrap_or(ANONYMOUS)),
        }
    }

    /// Whether `user` may write to some topic: what an idempotent producer needs (KIP-679).
    pub(crate) fn may_write_somewhere(&self, user: Option<&str>) -> bool {
        match self {
            Self::Open => true,
            Self::Ruled(rules) => {
                let user = user.unwrap_or(ANONYMOUS);
                rules.super_users.contains(user)
                    || rules
                        .grants(user)
                        .any(|grant| grant.allows(Use::Write) && !grant.topics.is_empty())
            }
        }
    }
}

impl Rules {
    fn grants(&self, user: &str) -> impl Iterator<Item = &Grant> {
        let own = self.by_user.get(user).into_iter().flatten();
        own.chain(&self.for_everybody)
    }
}

impl Grant {
    fn new(rule: &Rule) -> Self {
        let patterns = |names: &[String]| names.iter().map(|name| Pattern::new(name)).collect();
        Self {
            may: rule.may.clone(),
            topics: patterns(&rule.topics),
            groups: patterns(&rule.groups),
            transactional_ids: patterns(&rule.transactional_ids),
            cluster: rule.cluster,
        }
    }

    fn allows(&self, what: Use) -> bool {
        match what {
            Use::Describe => !self.may.is_empty(),
            Use::Read => self.may.contains(&Right::Read),
            Use::Write => self.may.contains(&Right::Write),
            Use::Admin => self.may.contains(&Right::Admin),
        }
    }

    fn names(&self, resource: Resource<'_>) -> bool {
        let (patterns, name) = match resource {
            Resource::Topic(name) => (&self.topics, name),
            Resource::Group(name) => (&self.groups, name),
            Resource::TransactionalId(name) => (&self.transactional_ids, name),
            Resource::Cluster => return self.cluster,
        };
        patterns.iter().any(|pattern| pattern.fits(name))
    }
}

impl Pattern {
    fn new(text: &str) -> Self {
        match text.strip_suffix('*') {
            Some(prefix) => Self::Prefix(prefix.to_owned()),
            None => Self::Name(text.to_owned()),
        }
    }

    fn fits(&self, name: &str) -> bool {
        match self {
            Self::Name(own) => own == name,
            Self::Prefix(prefix) => name.starts_with(prefix.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Resource::{Cluster, Group, Topic, TransactionalId};

    fn judge() -> Judge {
        let mut access = Access::ruled();
        access.super_users = vec!["admin".to_owned()];
        let mut orders = Rule::new("orders", [Right::Read, Right::Write]);
        orders.topics = vec!["orders".to_owned(), "orders.*".to_owned()];
        orders.groups = vec!["orders-*".to_owned()];
        orders.transactional_ids = vec!["orders-1".to_owned()];
        let mut audit = Rule::new("audit", [Right::Read]);
        audit.topics = vec!["*".to_owned()];
        let mut operator = Rule::new("operator", [Right::Admin]);
        operator.topics = vec!["*".to_owned()];
        operator.cluster = true;
        let mut everybody = Rule::new("*", [Right::Read]);
        everybody.topics = vec!["news".to_owned()];
        access.rules = vec![orders, audit, operator, everybody];
        Judge::new(&access)
    }

    fn may(user: &str, what: Use, resource: Resource<'_>) -> bool {
        judge().may(Some(user), what, resource)
    }

    #[test]
    fn without_rules_everybody_may_do_everything() {
        let judge = Judge::new(&Access::default());
        assert!(judge.may(None, Use::Admin, Cluster));
        assert!(judge.may_write_somewhere(None));
        assert!(judge.is_super(None));
    }

    #[test]
    fn with_rules_nobody_may_what_no_rule_allows() {
        let judge = Judge::new(&Access::ruled());
        assert!(!judge.may(None, Use::Describe, Topic("orders")));
        assert!(!judge.may(Some("orders"), Use::Describe, Topic("orders")));
        assert!(!judge.may_write_somewhere(Some("orders")));
    }

    #[test]
    fn a_name_is_itself_and_a_star_is_what_begins_so() {
        assert!(may("orders", Use::Write, Topic("orders")));
        assert!(may("orders", Use::Write, Topic("orders.DLQ")));
        assert!(!may("orders", Use::Write, Topic("orders2")));
        assert!(!may("orders", Use::Write, Topic("order")));
        assert!(may("orders", Use::Read, Group("orders-1")));
        assert!(!may("orders", Use::Read, Group("orders")));
        assert!(may("orders", Use::Write, TransactionalId("orders-1")));
        assert!(!may("orders", Use::Write, TransactionalId("orders-11")));
        assert!(may("audit", Use::Read, Topic("anything")));
    }

    #[test]
    fn a_right_is_not_another_and_each_includes_seeing() {
        assert!(!may("orders", Use::Admin, Topic("orders")));
        assert!(!may("audit", Use::Write, Topic("orders")));
        assert!(!may("operator", Use::Read, Topic("orders")));
        for user in ["orders", "audit", "operator"] {
            assert!(may(user, Use::Describe, Topic("orders")));
        }
        assert!(!may("audit", Use::Describe, Group("orders-1")));
    }

    #[test]
    fn a_name_on_one_kind_of_thing_is_nothing_on_another() {
        assert!(!may("orders", Use::Read, Group("orders")));
        assert!(!may("audit", Use::Read, Group("anything")));
        assert!(!may("audit", Use::Describe, Cluster));
        assert!(may("operator", Use::Admin, Cluster));
    }

    #[test]
    fn rules_for_everybody_add_to_ones_own() {
        assert!(may("orders", Use::Read, Topic("news")));
        assert!(may("nobody", Use::Read, Topic("news")));
        assert!(judge().may(None, Use::Read, Topic("news")));
        assert!(!judge().may(None, Use::Read, Topic("orders")));
    }

    #[test]
    fn super_users_may_do_everything() {
        assert!(may("admin", Use::Admin, Cluster));
        assert!(judge().is_super(Some("admin")));
        assert!(!judge().is_super(Some("operator")));
        assert!(!judge().is_super(None));
    }

    #[test]
    fn an_idempotent_producer_needs_some_topic_to_write_to() {
        assert!(judge().may_write_somewhere(Some("orders")));
        assert!(judge().may_write_somewhere(Some("admin")));
        assert!(!judge().may_write_somewhere(Some("audit")));
    }
}
