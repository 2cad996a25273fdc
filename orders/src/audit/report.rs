//! What an audit found.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::books::Units;
use crate::money::Cents;
use crate::order::Status;

/// Differences that are printed; the rest is counted.
const SHOWN_MAX: usize = 1000;

/// The books, and where they differ.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    clean: bool,
    /// Orders by where they stand.
    pub(crate) orders: Orders,
    /// What the confirmed orders add up to.
    pub(crate) confirmed_total: Cents,
    /// Units of the confirmed orders.
    pub(crate) confirmed_units: i64,
    /// Products.
    pub(crate) products: u64,
    /// Units on the products' books.
    pub(crate) units: Units,
    /// What the gateway has taken.
    pub(crate) charged: Cents,
    /// What it gave back.
    pub(crate) refunded: Cents,
    /// Records by topic.
    pub(crate) events: BTreeMap<&'static str, u64>,
    /// What the reader should know; no differences.
    pub(crate) notes: Vec<String>,
    /// What does not fit, a sentence each.
    differences: Vec<String>,
    /// Differences beyond those listed.
    differences_not_shown: u64,
}

/// Orders by status.
#[derive(Debug, Default, Clone, Copy, Serialize)]
pub(crate) struct Orders {
    total: u64,
    pending: u64,
    confirmed: u64,
    cancelled: u64,
    manual_review: u64,
}

impl Orders {
    /// Counts an order.
    pub(crate) fn count(&mut self, status: Status) {
        self.total += 1;
        *match status {
            Status::Pending => &mut self.pending,
            Status::Confirmed => &mut self.confirmed,
            Status::Cancelled => &mut self.cancelled,
            Status::ManualReview => &mut self.manual_review,
        } += 1;
    }
}

impl Report {
    /// Adds a difference.
    pub(crate) fn differ(&mut self, sentence: String) {
        if self.differences.len() < SHOWN_MAX {
            self.differences.push(sentence);
        } else {
            self.differences_not_shown += 1;
        }
    }

    /// Adds the differences of an order.
    pub(crate) fn differ_on(&mut self, order: impl fmt::Display, clauses: Vec<String>) {
        for clause in clauses {
            self.differ(format!("order {order} {clause}"));
        }
    }

    /// Nothing is added any more.
    pub(crate) fn close(mut self) -> Self {
        self.clean = self.differences.is_empty();
        self.differences.sort_unstable();
        self
    }

    /// Whether nothing differs.
    pub(crate) fn is_clean(&self) -> bool {
        self.clean
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            orders,
            units,
            events,
            ..
        } = self;
        for difference in &self.differences {
            writeln!(f, "DIFFERENCE: {difference}")?;
        }
        if self.differences_not_shown > 0 {
            writeln!(f, "DIFFERENCE: {} more", self.differences_not_shown)?;
        }
        writeln!(
            f,
            "orders    {} accepted = {} confirmed + {} cancelled + {} in review + {} pending",
            orders.total, orders.confirmed, orders.cancelled, orders.manual_review, orders.pending
        )?;
        writeln!(
            f,
            "confirmed {} units for {}",
            self.confirmed_units, self.confirmed_total
        )?;
        writeln!(
            f,
            "stock     {} at start = {} now + {} reserved, {} products",
            units.stocked, units.stock, units.reserved, self.products
        )?;
        writeln!(
            f,
            "money     {} charged, {} of it refunded",
            self.charged, self.refunded
        )?;
        let counts: Vec<_> = events
            .iter()
            .map(|(topic, records)| format!("{records} on {topic}"))
            .collect();
        writeln!(f, "events    {}", counts.join(", "))?;
        for note in &self.notes {
            writeln!(f, "note      {note}")?;
        }
        match self.differences.len() {
            0 => write!(f, "The books are clean."),
            count => write!(
                f,
                "The books differ: {} differences.",
                count as u64 + self.differences_not_shown
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_difference_is_enough() {
        assert!(Report::default().close().is_clean());
        let mut report = Report::default();
        report.differ_on("x", vec!["is lost".to_owned()]);
        let report = report.close();
        assert!(!report.is_clean());
        assert!(
            report
                .to_string()
                .starts_with("DIFFERENCE: order x is lost\n")
        );
        assert!(
            report
                .to_string()
                .ends_with("The books differ: 1 differences.")
        );
    }

    #[test]
    fn a_flood_of_differences_is_counted_and_not_kept() {
        let mut report = Report::default();
        for at in 0..SHOWN_MAX + 5 {
            report.differ(format!("{at}"));
        }
        assert!(report.close().to_string().contains("DIFFERENCE: 5 more"));
    }
}
