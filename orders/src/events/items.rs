//! What is wanted of products: never nothing, and each product once.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::ops::Deref;

use serde::{Deserialize, Serialize};

/// The items of an order. A list without any can't be decoded, nor one that names a product twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Wanted>")]
pub(crate) struct Items(Vec<Wanted>);

/// Units of a product.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wanted {
    /// Which product.
    pub(crate) product_id: String,
    /// How many; zero or fewer can't be decoded.
    pub(crate) quantity: NonZeroU32,
}

/// Why a list is not the items of an order.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ItemsError {
    /// It is empty.
    #[error("no items are asked for")]
    None,
    /// One product, two quantities.
    #[error("the product {0} is named twice")]
    Twice(String),
}

impl Items {
    /// Of the lines of an order that was checked; lines of one product become one.
    pub(crate) fn of<'a>(lines: impl IntoIterator<Item = (&'a str, u32)>) -> Self {
        let mut units = BTreeMap::<&str, u32>::new();
        for (product, quantity) in lines {
            let sum = units.entry(product).or_default();
            *sum = sum.saturating_add(quantity);
        }
        let wanted = |(product, quantity): (&str, u32)| {
            Some(Wanted {
                product_id: product.to_owned(),
                quantity: NonZeroU32::new(quantity)?,
            })
        };
        Self(units.into_iter().filter_map(wanted).collect())
    }
}

impl Deref for Items {
    type Target = [Wanted];

    fn deref(&self) -> &[Wanted] {
        &self.0
    }
}

impl TryFrom<Vec<Wanted>> for Items {
    type Error = ItemsError;

    fn try_from(items: Vec<Wanted>) -> Result<Self, ItemsError> {
        let mut seen = std::collections::HashSet::with_capacity(items.len());
        match items.iter().find(|item| !seen.insert(&item.product_id)) {
            _ if items.is_empty() => Err(ItemsError::None),
            Some(twice) => Err(ItemsError::Twice(twice.product_id.clone())),
            None => Ok(Self(items)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_one_product_are_asked_for_once() {
        let items = Items::of([("cd-02", 1), ("cd-01", 2), ("cd-02", 3)]);
        let units: Vec<_> = items
            .iter()
            .map(|item| (item.product_id.as_str(), item.quantity.get()))
            .collect();
        assert_eq!(units, [("cd-01", 2), ("cd-02", 4)]);
    }

    #[test]
    fn a_list_that_asks_for_nothing_or_for_a_product_twice_is_refused() {
        let (once, more) = (Items::of([("a", 1)]).0, Items::of([("a", 2)]).0);
        assert_eq!(Items::try_from(vec![]), Err(ItemsError::None));
        assert_eq!(
            Items::try_from([once.clone(), more].concat()),
            Err(ItemsError::Twice("a".to_owned()))
        );
        assert!(Items::try_from(once).is_ok());
    }
}
