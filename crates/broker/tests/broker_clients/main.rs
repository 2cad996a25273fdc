//! The broker as a client that we did not write sees it: librdkafka, through rdkafka.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it did"
)]

mod admin;
mod compaction;
mod crash;
mod groups;
mod records;
mod support;
mod transactions;
