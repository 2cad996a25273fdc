//! What goes into a statement: one list of types that every database knows.
//!
//! A handler binds Rust values to `$1`, `$2`, ..; how each is stored is the database's
//! affair and stands in the table of [`Value`].

use std::borrow::Cow;

use jiff::Timestamp;
use uuid::Uuid;

/// A parameter of a statement.
///
/// | Rust | SQLite | PostgreSQL |
/// |---|---|---|
/// | `bool` | INTEGER 0 or 1 | BOOLEAN; SMALLINT, INTEGER, BIGINT 0 or 1 |
/// | `i64`, `i32`, `u32` | INTEGER | SMALLINT, INTEGER, BIGINT, NUMERIC, where it fits |
/// | `f64` | REAL | DOUBLE PRECISION, REAL |
/// | `str`, `String` | TEXT | TEXT, VARCHAR, CHAR, JSON, JSONB, UUID, enums |
/// | `[u8]`, `Vec<u8>` | BLOB | BYTEA |
/// | [`Uuid`] | BLOB of 16 bytes: half the index of its text, and in the order of its text | UUID, BYTEA, TEXT |
/// | [`Timestamp`] | INTEGER, microseconds since 1970 | TIMESTAMPTZ; BIGINT, microseconds since 1970 |
/// | `Option<T>` | NULL or `T` | NULL or `T` |
///
/// On PostgreSQL the server says of which type a placeholder is, by where it stands; a value that the type
/// can't hold is refused. What is read comes back the same way, also as NUMERIC (the type of `sum` of BIGINT:
/// an integer where it is whole and has no decimals, text otherwise) and DATE (text).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Value<'a> {
    /// No value.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A floating-point number. Not for money.
    Real(f64),
    /// Text.
    Text(Cow<'a, str>),
    /// Bytes.
    Bytes(Cow<'a, [u8]>),
    /// An id.
    Uuid(Uuid),
    /// An instant, kept to the microsecond.
    Timestamp(Timestamp),
}

/// A Rust type that can be bound to a placeholder; used by [`params!`](crate::params).
pub trait ToValue {
    /// The value as a parameter.
    fn to_value(&self) -> Value<'_>;
}

/// The parameters of a statement, in the order of `$1`, `$2`, ..
///
/// ```
/// use ackwell_sql::params;
/// let name = String::from("lamp");
/// let values = params![7_i64, name, None::<i64>];
/// assert_eq!(values.len(), 3);
/// ```
#[macro_export]
macro_rules! params {
    ($($value:expr),* $(,)?) => {
        &[$($crate::ToValue::to_value(&$value)),*] as &[$crate::Value<'_>]
    };
}

macro_rules! to_value {
    ($($rust:ty => |$self_:ident| $value:expr;)*) => {
        $(impl ToValue for $rust {
            fn to_value(&self) -> Value<'_> {
                let $self_ = self;
                $value
            }
        })*
    };
}

to_value! {
    bool => |v| Value::Bool(*v);
    i64 => |v| Value::Integer(*v);
    i32 => |v| Value::Integer(i64::from(*v));
    u32 => |v| Value::Integer(i64::from(*v));
    f64 => |v| Value::Real(*v);
    str => |v| Value::Text(Cow::Borrowed(v));
    String => |v| Value::Text(Cow::Borrowed(v));
    [u8] => |v| Value::Bytes(Cow::Borrowed(v));
    Vec<u8> => |v| Value::Bytes(Cow::Borrowed(v));
    bytes::Bytes => |v| Value::Bytes(Cow::Borrowed(v));
    Uuid => |v| Value::Uuid(*v);
    Timestamp => |v| Value::Timestamp(*v);
}

impl<T: ToValue + ?Sized> ToValue for &T {
    fn to_value(&self) -> Value<'_> {
        (**self).to_value()
    }
}

impl<T: ToValue> ToValue for Option<T> {
    fn to_value(&self) -> Value<'_> {
        self.as_ref().map_or(Value::Null, ToValue::to_value)
    }
}

impl ToValue for Cow<'_, str> {
    fn to_value(&self) -> Value<'_> {
        Value::Text(Cow::Borrowed(self))
    }
}

impl Value<'_> {
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "NULL",
            Self::Bool(_) => "a truth value",
            Self::Integer(_) => "an integer",
            Self::Real(_) => "a real number",
            Self::Text(_) => "text",
            Self::Bytes(_) => "bytes",
            Self::Uuid(_) => "a UUID",
            Self::Timestamp(_) => "a timestamp",
        }
    }

    /// The same value, borrowing nothing.
    pub(crate) fn into_owned(self) -> Value<'static> {
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(value),
            Self::Integer(value) => Value::Integer(value),
            Self::Real(value) => Value::Real(value),
            Self::Text(value) => Value::Text(Cow::Owned(value.into_owned())),
            Self::Bytes(value) => Value::Bytes(Cow::Owned(value.into_owned())),
            Self::Uuid(value) => Value::Uuid(value),
            Self::Timestamp(value) => Value::Timestamp(value),
        }
    }
}
