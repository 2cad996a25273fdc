//! The broker as a client that we did not write sees it: librdkafka, through rdkafka.

mod admin;
mod crash;
mod groups;
mod records;
mod support;
