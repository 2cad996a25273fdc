//! PostgreSQL's NUMERIC, as far as whole numbers and reading go: `sum` of a BIGINT column is one.
//!
//! Its binary format: how many digits, the first digit's power, sign, how many decimals are shown,
//! then the digits to the base of 10,000, each of two bytes.

use tokio_postgres::types::private::BytesMut;

use crate::row::Cell;

const BASE: u64 = 10_000;
const NEGATIVE: u16 = 0x4000;

/// Writes a whole number.
pub(super) fn encode(value: i64, out: &mut BytesMut) {
    let mut digits = Vec::new();
    let mut rest = value.unsigned_abs();
    while rest > 0 {
        digits.push((rest % BASE) as u16);
        rest /= BASE;
    }
    let count = digits.len() as u16;
    let sign = if value < 0 { NEGATIVE } else { 0 };
    for part in [count, count.saturating_sub(1), sign, 0] {
        out.extend_from_slice(&part.to_be_bytes());
    }
    for digit in digits.iter().rev() {
        out.extend_from_slice(&digit.to_be_bytes());
    }
}

/// A whole number of 64 bits as an integer, everything else as text; `None` if it is damaged.
pub(super) fn decode(raw: &[u8]) -> Option<Cell> {
    let (head, digits) = raw.split_first_chunk::<8>()?;
    let part = |place: usize| u16::from_be_bytes([head[place], head[place + 1]]);
    let (weight, sign, decimals) = (part(2).cast_signed(), part(4), usize::from(part(6)));
    match sign {
        0 | NEGATIVE => {}
        0xD000 => return Some(Cell::Text("Infinity".into())),
        0xF000 => return Some(Cell::Text("-Infinity".into())),
        _ => return Some(Cell::Text("NaN".into())),
    }
    let digit = |power: i16| -> Option<u16> {
        let place = i32::from(weight) - i32::from(power);
        let at = usize::try_from(place).ok()?.checked_mul(2)?;
        let bytes = digits.get(at..at + 2)?;
        Some(u16::from_be_bytes([bytes[0], bytes[1]]))
    };
    let mut text = String::from(if sign == NEGATIVE { "-" } else { "" });
    for power in (0..=weight.max(0)).rev() {
        let digit = digit(power).unwrap_or(0);
        if power == weight.max(0) {
            text.push_str(&digit.to_string());
        } else {
            text.push_str(&format!("{digit:04}"));
        }
    }
    if decimals == 0 {
        return Some(text.parse().map(Cell::Integer).unwrap_or(Cell::Text(text)));
    }
    let groups = decimals.div_ceil(4);
    let mut fraction = String::with_capacity(groups * 4);
    for group in 1..=groups {
        let power = -i16::try_from(group).ok()?;
        fraction.push_str(&format!("{:04}", digit(power).unwrap_or(0)));
    }
    fraction.truncate(decimals);
    Some(Cell::Text(format!("{text}.{fraction}")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_whole_number_comes_back_as_it_was(value in any::<i64>()) {
            let mut out = BytesMut::new();
            encode(value, &mut out);
            prop_assert_eq!(decode(&out), Some(Cell::Integer(value)));
        }

        #[test]
        fn damaged_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = decode(&bytes);
        }
    }

    #[test]
    fn decimals_are_text() {
        // 12345.0670: digits 1, 2345, 0670.
        let parts = [3_u16, 1, 0, 4, 1, 2345, 670];
        let raw: Vec<u8> = parts.iter().flat_map(|part| part.to_be_bytes()).collect();
        assert_eq!(decode(&raw), Some(Cell::Text("12345.0670".into())));
        // -0.005: digit 50 at power -1.
        let parts = [1_u16, u16::MAX, NEGATIVE, 3, 50];
        let raw: Vec<u8> = parts.iter().flat_map(|part| part.to_be_bytes()).collect();
        assert_eq!(decode(&raw), Some(Cell::Text("-0.005".into())));
    }
}
