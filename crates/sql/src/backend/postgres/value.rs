//! Values on their way to and from PostgreSQL, in its binary format.
//!
//! The server says of which type a placeholder or a column is. A value goes into every type
//! that can hold it without loss, so that one statement serves both databases although SQLite has
//! fewer types.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use jiff::Span;
use jiff::civil::date;
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, Kind, ToSql, Type, to_sql_checked};
use uuid::Uuid;

use super::numeric;
use crate::error::{Error, Result};
use crate::row::{Cell, Row};
use crate::value::Value;

/// PostgreSQL counts time from 2000-01-01; microseconds from 1970 to there.
const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// A parameter on its way.
#[derive(Debug)]
pub(super) struct Bound<'a>(pub(super) &'a Value<'a>);

/// A parameter whose type can't hold its value.
#[derive(Debug)]
pub(super) struct Unfit(String);

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for Unfit {}

impl ToSql for Bound<'_> {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        if let Kind::Domain(base) = ty.kind() {
            return self.to_sql(base, out);
        }
        match encode(self.0, ty, out) {
            Some(is_null) => Ok(is_null),
            None => Err(Box::new(Unfit(format!(
                "{} does not go into the type {}",
                self.0.type_name(),
                ty.name()
            )))),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// Writes the value as `ty`; `None` if it does not fit.
fn encode(value: &Value<'_>, ty: &Type, out: &mut BytesMut) -> Option<IsNull> {
    match value {
        Value::Null => return Some(IsNull::Yes),
        Value::Bool(value) if *ty == Type::BOOL => out.extend_from_slice(&[u8::from(*value)]),
        Value::Bool(value) => integer(i64::from(*value), ty, out)?,
        Value::Integer(value) => integer(*value, ty, out)?,
        Value::Real(value) => real(*value, ty, out)?,
        Value::Text(value) => text(value, ty, out)?,
        Value::Bytes(value) if *ty == Type::BYTEA || value.len() == 16 && *ty == Type::UUID => {
            out.extend_from_slice(value);
        }
        Value::Bytes(_) => return None,
        Value::Uuid(value) if *ty == Type::UUID || *ty == Type::BYTEA => {
            out.extend_from_slice(value.as_bytes());
        }
        Value::Uuid(value) => text(&value.to_string(), ty, out)?,
        Value::Timestamp(value) if *ty == Type::TIMESTAMPTZ || *ty == Type::TIMESTAMP => {
            let micros = value.as_microsecond().checked_sub(EPOCH_MICROS)?;
            out.extend_from_slice(&micros.to_be_bytes());
        }
        Value::Timestamp(value) => integer(value.as_microsecond(), ty, out)?,
    }
    Some(IsNull::No)
}

fn integer(value: i64, ty: &Type, out: &mut BytesMut) -> Option<()> {
    match *ty {
        Type::INT8 => out.extend_from_slice(&value.to_be_bytes()),
        Type::INT4 => out.extend_from_slice(&i32::try_from(value).ok()?.to_be_bytes()),
        Type::INT2 => out.extend_from_slice(&i16::try_from(value).ok()?.to_be_bytes()),
        Type::OID => out.extend_from_slice(&u32::try_from(value).ok()?.to_be_bytes()),
        Type::NUMERIC => numeric::encode(value, out),
        Type::BOOL if value == 0 || value == 1 => out.extend_from_slice(&[value as u8]),
        // Whole numbers up to 2^53 are themselves.
        Type::FLOAT8 if value.unsigned_abs() <= 1 << 53 => {
            out.extend_from_slice(&(value as f64).to_be_bytes());
        }
        _ if ty.name() == "xid8" => {
            out.extend_from_slice(&u64::try_from(value).ok()?.to_be_bytes())
        }
        _ => return None,
    }
    Some(())
}

fn real(value: f64, ty: &Type, out: &mut BytesMut) -> Option<()> {
    match *ty {
        Type::FLOAT8 => out.extend_from_slice(&value.to_be_bytes()),
        Type::FLOAT4 => out.extend_from_slice(&(value as f32).to_be_bytes()),
        _ => return None,
    }
    Some(())
}

fn text(value: &str, ty: &Type, out: &mut BytesMut) -> Option<()> {
    match *ty {
        Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::JSON | Type::UNKNOWN => {}
        Type::JSONB => out.extend_from_slice(&[1]),
        Type::UUID => {
            out.extend_from_slice(Uuid::try_parse(value).ok()?.as_bytes());
            return Some(());
        }
        _ if matches!(ty.kind(), Kind::Enum(_)) => {}
        _ => return None,
    }
    out.extend_from_slice(value.as_bytes());
    Some(())
}

/// A column's bytes, as they came.
struct Raw<'a>(&'a [u8]);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(Self(raw))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// A row of an answer.
pub(super) fn row(row: &tokio_postgres::Row, columns: &Arc<[String]>) -> Result<Row> {
    let cells = row.columns().iter().enumerate().map(|(place, column)| {
        let raw: Option<Raw<'_>> = row.try_get(place).map_err(|error| {
            Error::usage(format!("reading column {:?}", column.name())).because(error)
        })?;
        let Some(Raw(raw)) = raw else {
            return Ok(Cell::Null);
        };
        cell(column.type_(), raw).ok_or_else(|| {
            Error::usage(format!(
                "reading column {:?}: a row can't hold the type {}; cast it in the query, say to text",
                column.name(),
                column.type_()
            ))
        })
    });
    let cells = cells.collect::<Result<_>>()?;
    Ok(Row::new(Arc::clone(columns), cells))
}

/// A value that is not null; `None` if its type is unknown here.
fn cell(ty: &Type, raw: &[u8]) -> Option<Cell> {
    if let Kind::Domain(base) = ty.kind() {
        return cell(base, raw);
    }
    Some(match *ty {
        Type::BOOL => Cell::Integer(i64::from(*raw.first()?)),
        Type::INT8 => Cell::Integer(i64::from_be_bytes(raw.try_into().ok()?)),
        Type::INT4 => Cell::Integer(i32::from_be_bytes(raw.try_into().ok()?).into()),
        Type::INT2 => Cell::Integer(i16::from_be_bytes(raw.try_into().ok()?).into()),
        Type::OID => Cell::Integer(u32::from_be_bytes(raw.try_into().ok()?).into()),
        Type::FLOAT8 => Cell::Real(f64::from_be_bytes(raw.try_into().ok()?)),
        Type::FLOAT4 => Cell::Real(f32::from_be_bytes(raw.try_into().ok()?).into()),
        Type::NUMERIC => numeric::decode(raw)?,
        Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::JSON | Type::UNKNOWN => {
            text_cell(raw)?
        }
        Type::JSONB => text_cell(raw.get(1..)?)?,
        Type::BYTEA | Type::UUID => Cell::Bytes(raw.to_vec()),
        Type::TIMESTAMPTZ | Type::TIMESTAMP => {
            let micros = i64::from_be_bytes(raw.try_into().ok()?);
            Cell::Integer(micros.checked_add(EPOCH_MICROS)?)
        }
        Type::DATE => {
            let days = i32::from_be_bytes(raw.try_into().ok()?);
            let day = date(2000, 1, 1).checked_add(Span::new().try_days(days).ok()?);
            Cell::Text(day.ok()?.to_string())
        }
        Type::VOID => Cell::Null,
        _ if matches!(ty.kind(), Kind::Enum(_)) => text_cell(raw)?,
        _ if ty.name() == "xid8" => Cell::Integer(i64::from_be_bytes(raw.try_into().ok()?)),
        _ => return None,
    })
}

fn text_cell(raw: &[u8]) -> Option<Cell> {
    let text = std::str::from_utf8(raw).ok()?;
    Some(Cell::Text(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn there_and_back(value: Value<'_>, ty: &Type) -> Option<Cell> {
        let mut out = BytesMut::new();
        encode(&value, ty, &mut out)?;
        cell(ty, &out)
    }

    #[test]
    fn a_number_goes_into_every_type_that_can_hold_it() {
        for ty in [Type::INT2, Type::INT4, Type::INT8, Type::NUMERIC, Type::OID] {
            let back = there_and_back(Value::Integer(30_000), &ty);
            assert_eq!(back, Some(Cell::Integer(30_000)), "{ty}");
        }
        assert_eq!(there_and_back(Value::Integer(70_000), &Type::INT2), None);
        assert_eq!(there_and_back(Value::Integer(1), &Type::TEXT), None);
        assert_eq!(
            there_and_back(Value::Bool(true), &Type::INT4),
            Some(Cell::Integer(1))
        );
    }

    #[test]
    fn times_and_ids_come_back_as_they_were() {
        let at: Timestamp = "2026-11-22T08:05:00.123456Z".parse().unwrap();
        let expected = Cell::Integer(at.as_microsecond());
        for ty in [Type::TIMESTAMPTZ, Type::INT8] {
            assert_eq!(
                there_and_back(Value::Timestamp(at), &ty),
                Some(expected.clone())
            );
        }
        let id = Uuid::from_u128(7);
        for ty in [Type::UUID, Type::BYTEA] {
            let back = there_and_back(Value::Uuid(id), &ty);
            assert_eq!(back, Some(Cell::Bytes(id.as_bytes().to_vec())));
        }
        let text = there_and_back(Value::Uuid(id), &Type::TEXT);
        assert_eq!(text, Some(Cell::Text(id.to_string())));
    }
}
