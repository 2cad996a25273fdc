//! What became of an import.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::order::Status;

/// Counts what happens to the rows of an import.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Rows read, broken ones too.
    pub(crate) rows: u64,
    /// Orders that did not exist before.
    pub(crate) accepted: u64,
    /// Orders that an earlier import had placed.
    pub(crate) repeated: u64,
    /// Rows that became no order, or whose order was not final in time.
    pub(crate) failed: u64,
    confirmed: u64,
    cancelled: u64,
    manual_review: u64,
    /// Microseconds from acceptance to final state.
    latencies: Vec<u64>,
}

/// The result; its fields and their order are a public interface.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Report {
    rows: u64,
    accepted: u64,
    repeated: u64,
    confirmed: u64,
    cancelled: u64,
    manual_review: u64,
    failed: u64,
    seconds: f64,
    orders_per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
}

impl Tally {
    /// Counts an order that reached a final state after `micros`.
    pub(crate) fn finish(&mut self, status: Status, micros: u64) {
        match status {
            Status::Confirmed => self.confirmed += 1,
            Status::Cancelled => self.cancelled += 1,
            Status::ManualReview => self.manual_review += 1,
            Status::Pending => return,
        }
        self.latencies.push(micros);
    }

    /// Orders in a final state.
    pub(crate) fn finished(&self) -> u64 {
        self.confirmed + self.cancelled + self.manual_review
    }

    /// The report after `elapsed`.
    pub(crate) fn report(mut self, elapsed: Duration) -> Report {
        self.latencies.sort_unstable();
        let seconds = elapsed.as_secs_f64();
        Report {
            rows: self.rows,
            accepted: self.accepted,
            repeated: self.repeated,
            confirmed: self.confirmed,
            cancelled: self.cancelled,
            manual_review: self.manual_review,
            failed: self.failed,
            seconds: rounded(seconds, 1000.0),
            orders_per_second: rounded(self.finished() as f64 / seconds.max(0.001), 10.0),
            p50_ms: millis(percentile(&self.latencies, 50)),
            p99_ms: millis(percentile(&self.latencies, 99)),
        }
    }
}

impl Report {
    /// Whether every row became a final order.
    pub(crate) fn is_clean(&self) -> bool {
        self.failed == 0
    }
}

/// Nearest rank: the smallest value that `percent` of all do not exceed; 0 without any.
fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

fn millis(micros: u64) -> f64 {
    rounded(micros as f64 / 1000.0, 1000.0)
}

fn rounded(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "rows            {}", self.rows)?;
        writeln!(f, "  accepted      {}", self.accepted)?;
        writeln!(f, "  repeated      {}", self.repeated)?;
        writeln!(f, "  failed        {}", self.failed)?;
        writeln!(f, "orders")?;
        writeln!(f, "  confirmed     {}", self.confirmed)?;
        writeln!(f, "  cancelled     {}", self.cancelled)?;
        writeln!(f, "  in review     {}", self.manual_review)?;
        writeln!(
            f,
            "time            {:.3} s, {:.1} orders a second",
            self.seconds, self.orders_per_second
        )?;
        write!(
            f,
            "to final state  p50 {:.3} ms, p99 {:.3} ms",
            self.p50_ms, self.p99_ms
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let hundred: Vec<u64> = (1..=100).collect();
        assert_eq!(percentile(&hundred, 50), 50);
        assert_eq!(percentile(&hundred, 99), 99);
        assert_eq!(percentile(&[7], 99), 7);
        assert_eq!(percentile(&[1, 9], 50), 1);
        assert_eq!(percentile(&[], 50), 0);
    }

    #[test]
    fn json_has_exactly_the_promised_fields() {
        let mut tally = Tally {
            rows: 3,
            accepted: 2,
            failed: 1,
            ..Tally::default()
        };
        tally.finish(Status::Confirmed, 1500);
        tally.finish(Status::Cancelled, 2500);
        let report = tally.report(Duration::from_secs(2));
        assert!(!report.is_clean());
        assert_eq!(
            serde_json::to_string(&report).unwrap(),
            "{\"rows\":3,\"accepted\":2,\"repeated\":0,\"confirmed\":1,\"cancelled\":1,\"manual_review\":0,\
             \"failed\":1,\"seconds\":2.0,\"orders_per_second\":1.0,\"p50_ms\":1.5,\"p99_ms\":2.5}"
        );
    }

    #[test]
    fn an_import_of_nothing_is_clean() {
        let report = Tally::default().report(Duration::ZERO);
        assert!(report.is_clean());
        assert_eq!(report.p99_ms, 0.0);
    }
}
