//! The group coordinator: who is in a consumer group, who reads what, and how far each group got.

mod config;
mod service;

pub(crate) use config::Config;
pub(crate) use service::{Client, Coordinator};
