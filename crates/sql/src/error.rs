//! What can go wrong with the database, and whether trying again helps.
//!
//! One type for the crate. It names what was being done; the driver's own error
//! is its [`source`](std::error::Error::source). It is cheap to clone, because one
//! failed commit is told to every member of its group.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use ackwell::{Class, Classify};

/// A database error, with predicates for what callers decide on.
#[derive(Clone)]
pub struct Error {
    kind: Kind,
    doing: Cow<'static, str>,
    /// The constraint that was violated.
    constraint: Option<Arc<str>>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

/// Why, in as many words as somebody acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Away, locked too long, full, or failing I/O: the same work may succeed later.
    Unavailable,
    /// The disk, or the limit set for the database, is full.
    Full,
    /// Another process holds the lock. Becomes `Unavailable` when the wait is over.
    Locked,
    /// Two transactions were in each other's way, and this one had to give in.
    Conflict,
    /// A unique or primary key exists already.
    Unique,
    /// A row that this one refers to is missing; it may still come.
    ForeignKey,
    /// Any other constraint.
    Constraint,
    /// The file is damaged, cut short or not a database.
    Damaged,
    /// The program and the database do not fit together.
    Schema,
    /// The statement, its parameters, or the way it was used is wrong.
    Usage,
    /// An event is larger than a message may be.
    TooLarge,
    /// The partition of the record belongs to another process by now.
    Fenced,
    /// A record of the topic's earlier log is parked in the record's place.
    Occupied,
}

/// What the crate's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn new(kind: Kind, doing: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            doing: doing.into(),
            constraint: None,
            source: None,
        }
    }

    pub(crate) fn because(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.source = Some(Arc::from(source.into()));
        self
    }

    pub(crate) fn violating(mut self, constraint: Option<String>) -> Self {
        self.constraint = constraint.map(Arc::from);
        self
    }

    pub(crate) fn usage(doing: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Usage, doing)
    }

    pub(crate) fn unavailable(doing: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Unavailable, doing)
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Says first what was being done when `self` happened.
    pub(crate) fn while_doing(mut self, doing: impl fmt::Display) -> Self {
        self.doing = format!("{doing}: {}", self.doing).into();
        self
    }

    /// The same, for callers who act on it as on `kind`.
    pub(crate) fn seen_as(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// Whether the database is away for now: locked too long by another process, its
    /// disk full, or I/O failing. The same work may succeed later; nothing of it was kept.
    pub fn is_unavailable(&self) -> bool {
        matches!(self.kind, Kind::Unavailable | Kind::Full | Kind::Locked)
    }

    /// Whether the disk, or the size limit of the database, is full.
    /// Then [`is_unavailable`](Self::is_unavailable) holds as well.
    pub fn is_full(&self) -> bool {
        self.kind == Kind::Full
    }

    /// Whether a unique or primary key exists already.
    ///
    /// The transaction can only be rolled back then. To go on, let the statement say
    /// so: `INSERT .. ON CONFLICT DO NOTHING`, and look at the number of rows.
    pub fn is_unique_violation(&self) -> bool {
        self.kind == Kind::Unique
    }

    /// Whether any constraint of the schema was violated, unique keys included.
    pub fn is_constraint_violation(&self) -> bool {
        matches!(
            self.kind,
            Kind::Unique | Kind::ForeignKey | Kind::Constraint
        )
    }

    /// The constraint that was violated: its name on PostgreSQL; on SQLite the name of a check, and
    /// table and columns (`products.id`) of a key.
    pub fn constraint(&self) -> Option<&str> {
        self.constraint.as_deref()
    }

    /// Whether two transactions were in each other's way, by a deadlock or because they can't be put in an
    /// order, and this one had to give in. The same work succeeds when it is done again.
    pub fn is_conflict(&self) -> bool {
        self.kind == Kind::Conflict
    }

    /// Whether the database file is damaged, cut short, or not a database.
    pub fn is_damaged(&self) -> bool {
        self.kind == Kind::Damaged
    }

    /// Whether an emitted event is larger than a message may be.
    pub fn is_too_large(&self) -> bool {
        self.kind == Kind::TooLarge
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.doing)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Error");
        out.field("kind", &self.kind).field("doing", &self.doing);
        if let Some(source) = &self.source {
            out.field("source", &format_args!("{source}"));
        }
        out.finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn std::error::Error + 'static))
    }
}

impl Classify for Error {
    /// Unavailable databases are waited for, damaged ones stop the listener. A missing
    /// referenced row may still come, and a conflict is over when the other one is done; everything
    /// else would fail the same way again.
    fn class(&self) -> Class {
        match self.kind {
            Kind::Unavailable | Kind::Full | Kind::Locked | Kind::Fenced | Kind::Occupied => {
                Class::Unavailable
            }
            Kind::Damaged => Class::Stop,
            Kind::ForeignKey | Kind::Conflict => Class::Transient,
            Kind::Unique | Kind::Constraint | Kind::Schema | Kind::Usage | Kind::TooLarge => {
                Class::Permanent
            }
        }
    }
}

/// An error with its causes, for a log line.
pub(crate) struct Chain<'a>(pub(crate) &'a dyn std::error::Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
