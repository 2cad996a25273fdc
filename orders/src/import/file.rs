//! The file of orders, one row at a time.
//!
//! A row is a line, whatever it holds: a stray quotation mark can't swallow its
//! neighbours, and a row's number stays its own however many before it are broken.

use std::io::{self, BufRead};

use csv::{ReaderBuilder, StringRecord, Trim};
use jiff::civil::Date;
use serde::Serialize;

use crate::money::{Cents, UnitPrice};

/// The columns that a file must have, in any order; others are not looked at.
const COLUMNS: [&str; 4] = ["customer_id", "date", "quantity", "amount"];
/// The longest line that is read, in bytes.
const MAX_LINE: usize = 4096;
/// How many products the customers are spread over.
const PRODUCTS: u64 = 100;

/// One purchase, as it is posted to the order service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    /// Its number: 1 for the line after the header.
    pub(crate) number: u64,
    /// As in the file.
    pub(crate) customer_id: String,
    /// `cd-NN`, NN = customer id modulo 100.
    pub(crate) product_id: String,
    /// At least one.
    pub(crate) quantity: u32,
    /// Amount divided by quantity, to six decimals.
    pub(crate) unit_price: UnitPrice,
}

/// The body of `POST /orders` for a row.
#[derive(Debug, Serialize)]
pub(crate) struct PostedOrder<'a> {
    customer_id: &'a str,
    items: [PostedItem<'a>; 1],
}

#[derive(Debug, Serialize)]
struct PostedItem<'a> {
    product_id: &'a str,
    quantity: u32,
    unit_price: String,
}

/// Why a row is not an order.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub(crate) struct BrokenRow {
    /// Its line in the file; the header is line 1.
    pub(crate) line: u64,
    /// What is wrong.
    pub(crate) problem: String,
}

/// Why a file cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// The disk said no.
    #[error("reading the file failed")]
    Io(#[from] io::Error),
    /// Nothing in it.
    #[error("the file is empty; its first line must be `customer_id,date,quantity,amount`")]
    Empty,
    /// A column is missing.
    #[error(
        "the file has no column `{missing}`; its first line is `{header}` and must name customer_id, date, quantity and amount"
    )]
    Header {
        /// The first one missing.
        missing: &'static str,
        /// What was found.
        header: String,
    },
}

/// The rows of a file, read as they are asked for.
pub(crate) struct Rows<R> {
    lines: Lines<R>,
    /// Where each of [`COLUMNS`] stands.
    at: [usize; 4],
    width: usize,
}

impl<R: BufRead> Rows<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// [`FileError`] if there is none, or it lacks a column.
    pub(crate) fn open(source: R) -> Result<Self, FileError> {
        let mut lines = Lines { source, number: 0 };
        let header = lines
            .next()
            .ok_or(FileError::Empty)??
            .text
            .unwrap_or_default();
        let header = header.trim_start_matches('\u{feff}');
        let names = fields(header);
        let mut at = [0; 4];
        for (column, at) in COLUMNS.into_iter().zip(&mut at) {
            let found = names.iter().position(|name| name == column);
            *at = found.ok_or_else(|| FileError::Header {
                missing: column,
                header: header.chars().take(80).collect(),
            })?;
        }
        Ok(Self {
            lines,
            at,
            width: names.len(),
        })
    }

    fn parse(&self, line: &Line) -> Result<Row, String> {
        let text = line.text.as_ref().map_err(Clone::clone)?;
        if text.bytes().filter(|byte| *byte == b'"').count() % 2 == 1 {
            return Err("a quotation mark is not closed on its line".to_owned());
        }
        let fields = fields(text);
        if fields.len() != self.width {
            return Err(format!("{} fields instead of {}", fields.len(), self.width));
        }
        let [customer_id, date, quantity, amount] =
            self.at.map(|at| fields.get(at).unwrap_or_default());
        let number: u64 = plain(customer_id)
            .ok_or_else(|| format!("customer_id must be a number, not `{}`", shown(customer_id)))?;
        date.parse::<Date>()
            .map_err(|_| format!("date must be YYYY-MM-DD, not `{}`", shown(date)))?;
        let quantity = plain(quantity)
            .and_then(|quantity| u32::try_from(quantity).ok())
            .filter(|quantity| *quantity > 0)
            .ok_or_else(|| {
                format!(
                    "quantity must be a whole number from 1, not `{}`",
                    shown(quantity)
                )
            })?;
        let amount: Cents = amount
            .parse()
            .map_err(|error| format!("amount {error}, not `{}`", shown(amount)))?;
        let unit_price = UnitPrice::share(amount, quantity)
            .filter(|unit| Cents::total([(quantity, *unit)]) == Some(amount))
            .ok_or_else(|| {
                format!("{amount} for {quantity} units has no unit price of six decimals")
            })?;
        Ok(Row {
            number: line.number - 1,
            customer_id: customer_id.to_owned(),
            product_id: format!("cd-{:02}", number % PRODUCTS),
            quantity,
            unit_price,
        })
    }
}

impl<R: BufRead> Iterator for Rows<R> {
    type Item = io::Result<Result<Row, BrokenRow>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let line = match self.lines.next()? {
                Ok(line) => line,
                Err(error) => return Some(Err(error)),
            };
            if line.text.as_ref().is_ok_and(|text| text.trim().is_empty()) {
                continue;
            }
            let row = self.parse(&line).map_err(|problem| BrokenRow {
                line: line.number,
                problem,
            });
            return Some(Ok(row));
        }
    }
}

impl Row {
    /// What is posted.
    pub(crate) fn order(&self) -> PostedOrder<'_> {
        let item = PostedItem {
            product_id: &self.product_id,
            quantity: self.quantity,
            unit_price: format!("{:#}", self.unit_price),
        };
        PostedOrder {
            customer_id: &self.customer_id,
            items: [item],
        }
    }
}

/// The fields of one line, quoted or not.
fn fields(line: &str) -> StringRecord {
    let mut reader = ReaderBuilder::new()
        .has_headers(false)
        .trim(Trim::All)
        .buffer_capacity(line.len().max(1))
        .from_reader(line.as_bytes());
    let mut record = StringRecord::new();
    // The line is in memory and text: what is left to go wrong shows as missing fields.
    match reader.read_record(&mut record) {
        Ok(true) => record,
        Ok(false) | Err(_) => StringRecord::new(),
    }
}

/// A number in plain digits, without a sign.
fn plain(text: &str) -> Option<u64> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
}

/// A field in an error message: short, and nothing that moves the cursor.
fn shown(text: &str) -> String {
    text.chars()
        .filter(|character| !character.is_control())
        .take(40)
        .collect()
}

struct Line {
    number: u64,
    text: Result<String, String>,
}

struct Lines<R> {
    source: R,
    number: u64,
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = io::Result<Line>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut bytes = Vec::with_capacity(64);
        let read = match read_line(&mut self.source, &mut bytes) {
            Ok(0) => return None,
            Ok(read) => read,
            Err(error) => return Some(Err(error)),
        };
        self.number += 1;
        let text = if read > MAX_LINE {
            Err(format!("longer than {MAX_LINE} bytes"))
        } else {
            String::from_utf8(bytes).map_err(|_| "not UTF-8".to_owned())
        };
        Some(Ok(Line {
            number: self.number,
            text,
        }))
    }
}

/// Reads up to and with the next line feed, and keeps at most [`MAX_LINE`] bytes.
/// Returns how many were read; 0 is the end.
fn read_line(source: &mut impl BufRead, kept: &mut Vec<u8>) -> io::Result<usize> {
    let mut read = 0;
    loop {
        let buffer = match source.fill_buf() {
            Ok(buffer) => buffer,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let used = end.map_or(buffer.len(), |end| end + 1);
        let room = MAX_LINE.saturating_sub(kept.len());
        kept.extend(buffer.iter().take(used.min(room)));
        source.consume(used);
        read += used;
        if end.is_some() || used == 0 {
            return Ok(read);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::BufReader;
    use std::path::Path;

    use super::*;

    fn rows(text: &[u8]) -> Vec<Result<Row, BrokenRow>> {
        Rows::open(text).unwrap().map(Result::unwrap).collect()
    }

    fn problem(line: &str) -> String {
        let text = format!("customer_id,date,quantity,amount\n{line}\n");
        rows(text.as_bytes()).remove(0).unwrap_err().to_string()
    }

    #[test]
    fn a_row_becomes_an_order() {
        let row = rows(b"customer_id,date,quantity,amount\n00104,1997-01-01,2,29.33\n")
            .remove(0)
            .unwrap();
        assert_eq!(
            serde_json::to_value(row.order()).unwrap(),
            serde_json::json!({
                "customer_id": "00104",
                "items": [{"product_id": "cd-04", "quantity": 2, "unit_price": "14.665000"}],
            })
        );
        assert_eq!(row.number, 1);
    }

    #[test]
    fn broken_rows_are_named_by_line_and_the_rest_is_read() {
        let text = b"customer_id,date,quantity,amount\r\n1,1997-01-01,1,1.00\r\n\r\n\"2,1997-01-01,1,1.00\n\xff\n3,1997-01-02,1,1.00";
        let rows = rows(text);
        let read: Vec<_> = rows
            .iter()
            .map(|row| row.as_ref().map(|row| row.number).map_err(|row| row.line))
            .collect();
        assert_eq!(read, [Ok(1), Err(4), Err(5), Ok(5)]);
    }

    #[test]
    fn each_kind_of_broken_row_says_what_is_wrong() {
        for (line, expected) in [
            ("1,1997-01-01,1", "line 2: 3 fields instead of 4"),
            ("1,1997-01-01,1,1.00,9", "line 2: 5 fields instead of 4"),
            (
                "x,1997-01-01,1,1.00",
                "line 2: customer_id must be a number, not `x`",
            ),
            (
                "1,1997-02-30,1,1.00",
                "line 2: date must be YYYY-MM-DD, not `1997-02-30`",
            ),
            (
                "1,1997-01-01,0,1.00",
                "line 2: quantity must be a whole number from 1, not `0`",
            ),
            (
                "1,1997-01-01,-1,1.00",
                "line 2: quantity must be a whole number from 1, not `-1`",
            ),
            (
                "1,1997-01-01,1.5,1.00",
                "line 2: quantity must be a whole number from 1, not `1.5`",
            ),
            (
                "1,1997-01-01,99999999999999999999,1",
                "line 2: quantity must be a whole number",
            ),
            (
                "1,1997-01-01,1,-1.00",
                "line 2: amount must not be negative, not `-1.00`",
            ),
            (
                "1,1997-01-01,1,1.001",
                "line 2: amount must have at most 2 decimals, not `1.001`",
            ),
            ("1,1997-01-01,1,", "line 2: amount must be a decimal number"),
            (
                "1,1997-01-01,30000,1.01",
                "line 2: 1.01 for 30000 units has no unit price",
            ),
        ] {
            assert!(
                problem(line).starts_with(expected),
                "{line}: {}",
                problem(line)
            );
        }
        assert_eq!(problem(&"1".repeat(5000)), "line 2: longer than 4096 bytes");
    }

    #[test]
    fn a_file_without_the_columns_is_refused() {
        let message = |text: &str| Rows::open(text.as_bytes()).err().unwrap().to_string();
        assert!(message("").contains("empty"));
        assert!(message("customer_id,date,quantity\n").contains("no column `amount`"));
        let moved = rows(
            "\u{feff}amount,quantity,date,customer_id,note\n3.00,3,1997-01-01,7,x\n".as_bytes(),
        );
        assert_eq!(moved[0].as_ref().unwrap().unit_price.to_string(), "1.00");
    }

    fn every_total_is_the_rows_amount(path: &Path) -> (u64, i64, u64) {
        let text = fs::read_to_string(path).unwrap();
        let amounts = text
            .lines()
            .skip(1)
            .map(|line| line.rsplit(',').next().unwrap().parse::<Cents>().unwrap());
        let file = Rows::open(BufReader::new(text.as_bytes())).unwrap();
        let (mut count, mut sum, mut units) = (0, 0, 0);
        for (row, amount) in file.zip(amounts) {
            let row = row.unwrap().unwrap();
            let posted = format!("{:#}", row.unit_price).parse().unwrap();
            assert_eq!(
                Cents::total([(row.quantity, posted)]),
                Some(amount),
                "row {}",
                row.number
            );
            count += 1;
            sum += amount.get();
            units += u64::from(row.quantity);
        }
        (count, sum, units)
    }

    #[test]
    fn every_total_of_the_sample_is_the_rows_amount() {
        let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/sample.csv");
        assert_eq!(every_total_is_the_rows_amount(&sample).0, 200);
    }

    #[test]
    fn every_total_of_the_whole_file_is_the_rows_amount_where_it_is_at_hand() {
        let whole = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/cdnow.csv");
        if whole.exists() {
            assert_eq!(
                every_total_is_the_rows_amount(&whole),
                (69_659, 250_031_563, 167_881)
            );
        }
    }
}
