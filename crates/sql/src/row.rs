//! What comes out of a query: rows that own their values.
//!
//! Owned, because the statement belongs to a connection that others wait for; a row
//! must not keep it busy while a handler thinks.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use uuid::Uuid;

use crate::error::{Error, Result};

/// One row of a query's answer.
#[derive(Debug, Clone)]
pub struct Row {
    columns: Arc<[String]>,
    cells: Vec<Cell>,
}

/// A stored value, as the database has it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Cell {
    /// No value.
    Null,
    /// A whole number.
    Integer(i64),
    /// A floating-point number.
    Real(f64),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
}

impl Row {
    pub(crate) fn new(columns: Arc<[String]>, cells: Vec<Cell>) -> Self {
        Self { columns, cells }
    }

    /// The value of a column, by its place (from 0) or its name.
    ///
    /// ```no_run
    /// # fn f(row: ackwell_sql::Row) -> Result<(), ackwell_sql::Error> {
    /// let stock: i64 = row.get("stock")?;
    /// let note: Option<String> = row.get(1)?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// When there is no such column, or its value is of another type (NULL is only an `Option`'s).
    pub fn get<T: FromCell>(&self, column: impl Column) -> Result<T> {
        let place = column.place(&self.columns).ok_or_else(|| {
            Error::usage(format!(
                "reading a row: no column {column:?}; there are: {}",
                self.columns.join(", ")
            ))
        })?;
        T::from_cell(&self.cells[place]).ok_or_else(|| {
            Error::usage(format!(
                "reading column {:?}: it holds {}, not {}",
                self.columns[place],
                self.cells[place].type_name(),
                T::NAME
            ))
        })
    }

    /// The names of the columns, in order.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }
}

impl Cell {
    fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "NULL",
            Self::Integer(_) => "an integer",
            Self::Real(_) => "a real number",
            Self::Text(_) => "text",
            Self::Bytes(_) => "bytes",
        }
    }
}

/// A column's place or name.
pub trait Column: fmt::Debug + sealed::Sealed {
    /// Where it stands among `columns`.
    #[doc(hidden)]
    fn place(&self, columns: &[String]) -> Option<usize>;
}

impl Column for usize {
    fn place(&self, columns: &[String]) -> Option<usize> {
        (*self < columns.len()).then_some(*self)
    }
}

impl Column for &str {
    fn place(&self, columns: &[String]) -> Option<usize> {
        columns.iter().position(|column| column == self)
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for usize {}
    impl Sealed for &str {}
}

/// A Rust type that a stored value can be read as.
pub trait FromCell: Sized {
    /// What the type is called in an error.
    const NAME: &'static str;
    /// The value, or `None` when the cell holds something else.
    fn from_cell(cell: &Cell) -> Option<Self>;
}

impl FromCell for i64 {
    const NAME: &'static str = "an integer";
    fn from_cell(cell: &Cell) -> Option<Self> {
        match cell {
            Cell::Integer(value) => Some(*value),
            _ => None,
        }
    }
}

impl FromCell for i32 {
    const NAME: &'static str = "an integer of 32 bits";
    fn from_cell(cell: &Cell) -> Option<Self> {
        i64::from_cell(cell)?.try_into().ok()
    }
}

impl FromCell for u32 {
    const NAME: &'static str = "an integer from 0 to 4294967295";
    fn from_cell(cell: &Cell) -> Option<Self> {
        i64::from_cell(cell)?.try_into().ok()
    }
}

impl FromCell for bool {
    const NAME: &'static str = "true or false";
    fn from_cell(cell: &Cell) -> Option<Self> {
        match i64::from_cell(cell)? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

impl FromCell for f64 {
    const NAME: &'static str = "a real number";
    fn from_cell(cell: &Cell) -> Option<Self> {
        match cell {
            Cell::Real(value) => Some(*value),
            _ => None,
        }
    }
}

impl FromCell for String {
    const NAME: &'static str = "text";
    fn from_cell(cell: &Cell) -> Option<Self> {
        match cell {
            Cell::Text(value) => Some(value.clone()),
            _ => None,
        }
    }
}

impl FromCell for Vec<u8> {
    const NAME: &'static str = "bytes";
    fn from_cell(cell: &Cell) -> Option<Self> {
        match cell {
            Cell::Bytes(value) => Some(value.clone()),
            _ => None,
        }
    }
}

impl FromCell for Uuid {
    const NAME: &'static str = "a UUID";
    fn from_cell(cell: &Cell) -> Option<Self> {
        match cell {
            Cell::Bytes(value) => Uuid::from_slice(value).ok(),
            Cell::Text(value) => Uuid::try_parse(value).ok(),
            _ => None,
        }
    }
}

impl FromCell for Timestamp {
    const NAME: &'static str = "a timestamp";
    fn from_cell(cell: &Cell) -> Option<Self> {
        match cell {
            Cell::Integer(value) => Timestamp::from_microsecond(*value).ok(),
            Cell::Text(value) => value.parse().ok(),
            _ => None,
        }
    }
}

impl<T: FromCell> FromCell for Option<T> {
    const NAME: &'static str = T::NAME;
    fn from_cell(cell: &Cell) -> Option<Self> {
        match cell {
            Cell::Null => Some(None),
            cell => T::from_cell(cell).map(Some),
        }
    }
}

impl FromCell for Cell {
    const NAME: &'static str = "a value";
    fn from_cell(cell: &Cell) -> Option<Self> {
        Some(cell.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        let columns: Arc<[String]> = ["id", "note"].map(String::from).into();
        Row::new(columns, vec![Cell::Integer(7), Cell::Null])
    }

    #[test]
    fn a_column_is_read_by_place_and_by_name() {
        assert_eq!(row().get::<i64>(0).unwrap(), 7);
        assert_eq!(row().get::<i64>("id").unwrap(), 7);
        assert_eq!(row().get::<Option<String>>("note").unwrap(), None);
    }

    #[test]
    fn a_missing_column_is_answered_with_those_that_exist() {
        let error = row().get::<i64>("stock").unwrap_err();
        assert_eq!(
            error.to_string(),
            "reading a row: no column \"stock\"; there are: id, note"
        );
    }

    #[test]
    fn a_value_of_another_type_is_an_error_that_names_both() {
        let error = row().get::<String>("id").unwrap_err();
        assert_eq!(
            error.to_string(),
            "reading column \"id\": it holds an integer, not text"
        );
        let error = row().get::<i64>("note").unwrap_err();
        assert_eq!(
            error.to_string(),
            "reading column \"note\": it holds NULL, not an integer"
        );
    }
}
