//! Who may do what, as it is written down.

use super::ANONYMOUS;

/// Who may do what. Default: everybody may do everything, as in Kafka without an authorizer.
///
/// With rules, what no rule allows is refused (Kafka's `StandardAuthorizer` with
/// `allow.everyone.if.no.acl.found=false`). There are no rules that forbid.
///
/// ```
/// use ackwell_broker::{Access, Right, Rule};
///
/// let mut access = Access::ruled();
/// access.super_users = vec!["admin".to_owned()];
/// let mut orders = Rule::new("orders", [Right::Read, Right::Write]);
/// orders.topics = vec!["orders".to_owned(), "orders.*".to_owned()];
/// orders.groups = vec!["orders-*".to_owned()];
/// access.rules = vec![orders];
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Access {
    /// Whether rules decide. Default off.
    pub ruled: bool,

    /// Users who may do everything.
    pub super_users: Vec<String>,

    /// What others may do. A user may what one of its rules allows.
    pub rules: Vec<Rule>,
}

impl Access {
    /// Nobody may do anything, until rules or super users are added.
    pub fn ruled() -> Self {
        Self {
            ruled: true,
            ..Self::default()
        }
    }
}

/// What one user, or everybody, may do with the topics, groups and transactional ids named.
///
/// A name ends with `*` to mean all names that begin so; `*` alone means all of them.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Rule {
    /// The user's name; `*` means everybody, `ANONYMOUS` those who came by a listener that asks
    /// nobody.
    pub user: String,

    /// What is allowed on everything that the rule names.
    pub may: Vec<Right>,

    /// Topics. Default none.
    pub topics: Vec<String>,

    /// Consumer groups. Default none.
    pub groups: Vec<String>,

    /// Transactional ids of producers. Default none.
    pub transactional_ids: Vec<String>,

    /// The broker itself: with [`Right::Admin`], its settings, folders and transactions. Default
    /// no.
    pub cluster: bool,
}

impl Rule {
    /// A rule for `user` that names nothing yet.
    pub fn new(user: impl Into<String>, may: impl IntoIterator<Item = Right>) -> Self {
        Self {
            user: user.into(),
            may: may.into_iter().collect(),
            topics: Vec::new(),
            groups: Vec::new(),
            transactional_ids: Vec::new(),
            cluster: false,
        }
    }

    /// A rule for those who were not asked who they are.
    pub fn for_anonymous(may: impl IntoIterator<Item = Right>) -> Self {
        Self::new(ANONYMOUS, may)
    }
}

/// A kind of use. Each includes seeing that the thing exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Right {
    /// Topics: reading records. Groups: being a member, committing offsets.
    Read,
    /// Topics: producing records. Transactional ids: producing in transactions.
    Write,
    /// Topics: creating, deleting, growing, settings, deleting records. Groups: deleting them and
    /// their offsets. The broker: what concerns all of it.
    Admin,
}
