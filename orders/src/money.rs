//! Money as exact integers.
//!
//! Outside, an amount is a decimal string; inside, it is a count of cents, and a
//! unit price a count of millionths. Binary floating point never touches either,
//! so a total is the same on every machine and equals what was charged.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Millionths in a cent.
const MICROS_PER_CENT: i64 = 10_000;

/// An amount in cents; never negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Cents(i64);

/// The price of one unit in millionths of a dollar; never negative.
///
/// Six decimals are what a whole amount divided by its quantity needs to come
/// back to the cent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct UnitPrice(i64);

/// Why a text is not an amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MoneyError {
    /// Something else than digits with at most one point between them.
    #[error("must be a decimal number such as \"9.77\", in plain digits")]
    NotADecimal,
    /// Below zero.
    #[error("must not be negative")]
    Negative,
    /// More decimals than the amount can carry.
    #[error("must have at most {max} decimals")]
    TooManyDecimals {
        /// How many it can carry.
        max: u32,
    },
    /// Above the limit.
    #[error("must be at most {max}")]
    TooLarge {
        /// The limit, in whole dollars.
        max: i64,
    },
}

impl Cents {
    /// The largest amount that is read from outside, in whole dollars: far above
    /// any order, far below what a 64-bit count of cents holds.
    pub(crate) const MAX_DOLLARS: i64 = 100_000_000;

    /// An amount as it was stored.
    pub(crate) const fn from_stored(cents: i64) -> Self {
        Self(cents)
    }

    /// The count of cents.
    pub(crate) const fn get(self) -> i64 {
        self.0
    }

    /// The sum of both.
    pub(crate) const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The total of lines of quantity and unit price, rounded half-even to
    /// cents, once and at the end. `None` if it exceeds what can be stored.
    pub(crate) fn total(lines: impl IntoIterator<Item = (u32, UnitPrice)>) -> Option<Self> {
        let micros: i128 = lines
            .into_iter()
            .map(|(quantity, price)| i128::from(quantity) * i128::from(price.0))
            .sum();
        let cents = div_half_even(micros, i128::from(MICROS_PER_CENT));
        i64::try_from(cents).ok().map(Self)
    }
}

impl UnitPrice {
    /// The largest price of one unit, in whole dollars.
    pub(crate) const MAX_DOLLARS: i64 = 1_000_000;

    /// An amount divided by its quantity, rounded half-even to six decimals.
    /// `None` for a quantity of zero.
    pub(crate) fn share(amount: Cents, quantity: u32) -> Option<Self> {
        let micros = i128::from(amount.0) * i128::from(MICROS_PER_CENT);
        let share = (quantity > 0).then(|| div_half_even(micros, i128::from(quantity)))?;
        i64::try_from(share).ok().map(Self)
    }
}

/// Division of numbers that are not negative, ties to the even neighbour.
fn div_half_even(value: i128, by: i128) -> i128 {
    let (quotient, twice_rest) = (value / by, (value % by) * 2);
    let up = twice_rest > by || (twice_rest == by && quotient % 2 == 1);
    quotient + i128::from(up)
}

/// Reads plain digits with at most `decimals` decimals as a count of the last one.
fn parse_scaled(text: &str, decimals: u32, max_dollars: i64) -> Result<i64, MoneyError> {
    match text.strip_prefix('-') {
        None => parse_digits(text, decimals, max_dollars),
        Some(rest) => parse_digits(rest, decimals, max_dollars).and(Err(MoneyError::Negative)),
    }
}

fn parse_digits(text: &str, decimals: u32, max_dollars: i64) -> Result<i64, MoneyError> {
    let (whole, fraction) = match text.split_once('.') {
        Some((_, "")) => return Err(MoneyError::NotADecimal),
        Some(parts) => parts,
        None => (text, ""),
    };
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) {
        return Err(MoneyError::NotADecimal);
    }
    let width = decimals as usize;
    if fraction.len() > width {
        return Err(MoneyError::TooManyDecimals { max: decimals });
    }
    let too_large = MoneyError::TooLarge { max: max_dollars };
    let scale = 10_i64.pow(decimals);
    let whole: i64 = whole.parse().map_err(|_| too_large)?;
    let fraction: i64 = format!("{fraction:0<width$}")
        .parse()
        .map_err(|_| MoneyError::NotADecimal)?;
    let scaled = whole
        .checked_mul(scale)
        .and_then(|value| value.checked_add(fraction));
    scaled
        .filter(|value| *value <= max_dollars * scale)
        .ok_or(too_large)
}

impl FromStr for Cents {
    type Err = MoneyError;

    fn from_str(text: &str) -> Result<Self, MoneyError> {
        parse_scaled(text, 2, Self::MAX_DOLLARS).map(Self)
    }
}

impl FromStr for UnitPrice {
    type Err = MoneyError;

    fn from_str(text: &str) -> Result<Self, MoneyError> {
        parse_scaled(text, 6, Self::MAX_DOLLARS).map(Self)
    }
}

impl fmt::Display for Cents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.0 / 100, self.0 % 100)
    }
}

/// With `{:#}` all six decimals, else as few as it takes, and at least two.
impl fmt::Display for UnitPrice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000);
        if f.alternate() {
            return f.write_str(&text);
        }
        let shortest = text.len() - 4;
        let kept = text.trim_end_matches('0').len().max(shortest);
        f.write_str(text.get(..kept).unwrap_or(&text))
    }
}

impl Serialize for Cents {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for UnitPrice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cents {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for UnitPrice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn price(text: &str) -> UnitPrice {
        text.parse().unwrap()
    }

    #[test]
    fn a_total_is_rounded_half_even_to_cents() {
        let total = |unit: &str| Cents::total([(1, price(unit))]).unwrap().to_string();
        assert_eq!(total("0.005"), "0.00");
        assert_eq!(total("0.015"), "0.02");
        assert_eq!(total("0.025"), "0.02");
        assert_eq!(total("0.025001"), "0.03");
        assert_eq!(total("14.664999"), "14.66");
    }

    #[test]
    fn lines_are_summed_before_they_are_rounded() {
        let halves = [(1, price("0.005")), (1, price("0.005"))];
        assert_eq!(Cents::total(halves).unwrap().to_string(), "0.01");
    }

    #[test]
    fn text_that_is_no_plain_decimal_is_refused() {
        for text in [
            "", ".", "1.", ".5", "1e3", "+1", " 1", "1_000", "1,5", "0x1", "NaN", "1.2.3", "--1",
            "-",
        ] {
            assert_eq!(
                text.parse::<UnitPrice>(),
                Err(MoneyError::NotADecimal),
                "{text:?}"
            );
        }
        assert_eq!("-0.01".parse::<Cents>(), Err(MoneyError::Negative));
        assert_eq!(
            "0.001".parse::<Cents>(),
            Err(MoneyError::TooManyDecimals { max: 2 })
        );
        assert_eq!(
            "0.0000001".parse::<UnitPrice>(),
            Err(MoneyError::TooManyDecimals { max: 6 })
        );
        for text in ["1000000.000001", "99999999999999999999999999"] {
            assert_eq!(
                text.parse::<UnitPrice>(),
                Err(MoneyError::TooLarge { max: 1_000_000 })
            );
        }
        assert_eq!(price("1000000").0, 1_000_000_000_000);
    }

    #[test]
    fn a_price_shows_two_to_six_decimals() {
        assert_eq!(price("9").to_string(), "9.00");
        assert_eq!(price("9.770000").to_string(), "9.77");
        assert_eq!(price("14.665").to_string(), "14.665");
        assert_eq!(price("0.000001").to_string(), "0.000001");
        assert_eq!(format!("{:#}", price("9.77")), "9.770000");
    }

    #[test]
    fn a_total_beyond_what_is_stored_is_none() {
        let most = (u32::MAX, UnitPrice(i64::MAX));
        assert_eq!(Cents::total([most, most]), None);
    }

    proptest! {
        #[test]
        fn a_share_times_its_quantity_is_the_amount(cents in 0_i64..10_000_000, quantity in 1_u32..10_000) {
            let amount = Cents(cents);
            let unit = UnitPrice::share(amount, quantity).unwrap();
            prop_assert_eq!(Cents::total([(quantity, unit)]), Some(amount));
        }

        #[test]
        fn what_is_shown_reads_back(micros in 0..=UnitPrice::MAX_DOLLARS * 1_000_000) {
            let unit = UnitPrice(micros);
            prop_assert_eq!(price(&unit.to_string()), unit);
            prop_assert_eq!(price(&format!("{unit:#}")), unit);
        }

        #[test]
        fn no_text_is_a_panic(text in "\\PC*") {
            let _ = text.parse::<Cents>();
            let _ = text.parse::<UnitPrice>();
        }
    }
}
