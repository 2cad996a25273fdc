//! What is asked for, checked.
//!
//! Everything behind this file may rely on it: an order that was built here has
//! at least one line, no absurd quantity, and a total that can be stored.

use serde::Deserialize;

use super::Item;
use crate::events::payment::PaymentMethod;
use crate::money::{Cents, UnitPrice};
use crate::web::Invalid;

/// The most lines of one order; its stock is reserved in one transaction.
pub(crate) const MAX_ITEMS: usize = 100;
/// The most units of one line.
pub(crate) const MAX_QUANTITY: u32 = 1_000_000;
/// The longest customer id, in characters.
const MAX_CUSTOMER_ID: usize = 64;
/// The longest product id.
const MAX_PRODUCT_ID: usize = 64;
/// The longest idempotency key.
const MAX_KEY: usize = 200;

/// An order that can be accepted. Two requests are the same when these are equal:
/// spaces, field order and trailing zeros don't count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewOrder {
    /// Whose it is.
    pub(crate) customer_id: String,
    /// At least one line.
    pub(crate) items: Vec<Item>,
    /// Their total.
    pub(crate) total: Cents,
    /// How it is paid.
    pub(crate) payment_method: PaymentMethod,
}

/// The body of `POST /orders`, as it came.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Body {
    customer_id: String,
    items: Vec<Line>,
    #[serde(default)]
    payment_method: PaymentMethod,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    product_id: String,
    quantity: i64,
    unit_price: String,
}

impl NewOrder {
    /// Checks a request.
    ///
    /// # Errors
    /// [`Invalid`], naming the field.
    pub(crate) fn check(body: Body) -> Result<Self, Invalid> {
        if let Some(problem) = customer_id_problem(&body.customer_id) {
            return Err(Invalid::new("customer_id", problem));
        }
        if body.items.is_empty() || body.items.len() > MAX_ITEMS {
            return Err(Invalid::new(
                "items",
                format!("must hold 1 to {MAX_ITEMS} items, not {}", body.items.len()),
            ));
        }
        let lines = body.items.into_iter().enumerate();
        let items = lines
            .map(|(at, line)| line.check(at))
            .collect::<Result<Vec<_>, _>>()?;
        let total = Cents::total(items.iter().map(|item| (item.quantity, item.unit_price)))
            .ok_or_else(|| Invalid::new("items", "add up to more than can be charged"))?;
        Ok(Self {
            customer_id: body.customer_id,
            items,
            total,
            payment_method: body.payment_method,
        })
    }
}

impl Line {
    fn check(self, at: usize) -> Result<Item, Invalid> {
        let field = |name: &str| format!("items[{at}].{name}");
        if let Some(problem) = product_id_problem(&self.product_id) {
            return Err(Invalid::new(field("product_id"), problem));
        }
        let quantity = u32::try_from(self.quantity)
            .ok()
            .filter(|quantity| (1..=MAX_QUANTITY).contains(quantity))
            .ok_or_else(|| {
                Invalid::new(
                    field("quantity"),
                    format!("must be from 1 to {MAX_QUANTITY}, not {}", self.quantity),
                )
            })?;
        let unit_price: UnitPrice = self
            .unit_price
            .parse()
            .map_err(|error| Invalid::new(field("unit_price"), format!("{error}")))?;
        Ok(Item {
            product_id: self.product_id,
            quantity,
            unit_price,
        })
    }
}

fn customer_id_problem(id: &str) -> Option<String> {
    let length = id.chars().count();
    let fine = (1..=MAX_CUSTOMER_ID).contains(&length) && !id.chars().any(char::is_control);
    (!fine).then(|| {
        format!("must have 1 to {MAX_CUSTOMER_ID} characters, none of them a control character")
    })
}

/// What is wrong with a product id, if anything; both services ask.
pub(crate) fn product_id_problem(id: &str) -> Option<String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let fine = (1..=MAX_PRODUCT_ID).contains(&id.len()) && id.bytes().all(allowed);
    (!fine).then(|| format!("must have 1 to {MAX_PRODUCT_ID} letters, digits, '-', '_' or '.'"))
}

/// What is wrong with an idempotency key, if anything.
pub(crate) fn key_problem(key: &[u8]) -> Option<String> {
    let fine = (1..=MAX_KEY).contains(&key.len()) && key.iter().all(u8::is_ascii_graphic);
    (!fine).then(|| format!("must have 1 to {MAX_KEY} visible ASCII characters"))
}

#[cfg(test)]
mod tests {
    use ackwell_http::{JsonBody, Problem};
    use proptest::prelude::*;

    use super::*;
    use crate::web::MAX_BODY;

    fn order(body: &[u8]) -> Result<NewOrder, Problem> {
        let JsonBody(body) = JsonBody::from_bytes(body)?;
        Ok(NewOrder::check(body)?)
    }

    fn body(quantity: &str, unit_price: &str) -> String {
        format!(
            r#"{{"customer_id":"1","items":[{{"product_id":"cd-01","quantity":{quantity},"unit_price":{unit_price}}}]}}"#
        )
    }

    fn refusal(body: &str) -> String {
        let problem = order(body.as_bytes()).unwrap_err();
        problem.to_value()["detail"].as_str().unwrap().to_owned()
    }

    #[test]
    fn an_order_is_its_values_not_its_text() {
        let plain = order(body("2", "\"14.665\"").as_bytes()).unwrap();
        let spaced = order(body(" 2 ", " \"14.665000\"").as_bytes()).unwrap();
        assert_eq!(plain, spaced);
        assert_eq!(plain.total.to_string(), "29.33");
    }

    #[test]
    fn a_free_order_is_an_order() {
        assert_eq!(
            order(body("1", "\"0.00\"").as_bytes()).unwrap().total.get(),
            0
        );
    }

    #[test]
    fn malformed_json_is_refused_with_its_position() {
        assert!(refusal("{\"customer_id\": \"1\",\n \"items\": [}").contains("line 2, column"));
        assert!(refusal("").contains("empty"));
        assert!(refusal("[1]").contains("line 1"));
        assert!(refusal(&"[".repeat(10_000)).contains("line 1"));
    }

    #[test]
    fn unknown_missing_and_repeated_fields_are_named() {
        assert!(
            refusal(r#"{"customer_id":"1","items":[],"coupon":"x"}"#)
                .contains("unknown field `coupon`")
        );
        assert!(refusal(r#"{"items":[]}"#).contains("missing field `customer_id`"));
        assert!(
            refusal(r#"{"customer_id":"1","customer_id":"2","items":[]}"#)
                .contains("duplicate field")
        );
    }

    #[test]
    fn quantities_that_make_no_sense_are_refused_by_field() {
        for quantity in [
            "0",
            "-1",
            "1000001",
            "9223372036854775807",
            "-9223372036854775808",
        ] {
            assert!(
                refusal(&body(quantity, "\"1\"")).starts_with("items[0].quantity must be from 1"),
                "{quantity}"
            );
        }
        for quantity in ["1.5", "1e3", "99999999999999999999", "\"1\"", "null", "NaN"] {
            assert!(
                refusal(&body(quantity, "\"1\"")).contains("line 1"),
                "{quantity}"
            );
        }
    }

    #[test]
    fn prices_that_are_no_money_are_refused_by_field() {
        for price in [
            "\"-1\"",
            "\"1.0000001\"",
            "\"1000001\"",
            "\"1e3\"",
            "\"\"",
            "\"abc\"",
        ] {
            assert!(
                refusal(&body("1", price)).starts_with("items[0].unit_price must"),
                "{price}"
            );
        }
        assert!(refusal(&body("1", "9.77")).contains("expected a string"));
    }

    #[test]
    fn items_are_counted() {
        assert!(
            refusal(r#"{"customer_id":"1","items":[]}"#).starts_with("items must hold 1 to 100")
        );
        let line = r#"{"product_id":"cd-01","quantity":1,"unit_price":"1"}"#;
        let many = vec![line; MAX_ITEMS + 1].join(",");
        assert!(refusal(&format!(r#"{{"customer_id":"1","items":[{many}]}}"#)).contains("not 101"));
        let most = vec![line; MAX_ITEMS].join(",");
        let body = format!(r#"{{"customer_id":"1","items":[{most}]}}"#);
        assert!(body.len() < MAX_BODY);
        assert!(order(body.as_bytes()).is_ok());
    }

    #[test]
    fn ids_and_keys_have_limits() {
        assert!(refusal(r#"{"customer_id":"","items":[]}"#).starts_with("customer_id must"));
        assert!(refusal(r#"{"customer_id":"a\u0000","items":[]}"#).starts_with("customer_id must"));
        assert_eq!(product_id_problem("cd-01"), None);
        for id in ["", "a b", "a/b", "ä", &"x".repeat(65)] {
            assert!(product_id_problem(id).is_some(), "{id}");
        }
        assert_eq!(key_problem(b"sample-row-1"), None);
        for key in [&b""[..], b"a b", b"\xff", &[b'x'; 201]] {
            assert!(key_problem(key).is_some());
        }
    }

    #[test]
    fn the_largest_order_can_be_charged() {
        let line = r#"{"product_id":"cd-01","quantity":1000000,"unit_price":"1000000"}"#;
        let body = format!(
            r#"{{"customer_id":"1","items":[{}]}}"#,
            vec![line; MAX_ITEMS].join(",")
        );
        assert_eq!(
            order(body.as_bytes()).unwrap().total.to_string(),
            "100000000000000.00"
        );
    }

    proptest! {
        #[test]
        fn no_body_is_a_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = order(&body);
        }
    }
}
