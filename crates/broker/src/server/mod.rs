//! Connections: accepting, framing, limits, responses in request order.
//!
//! Everything that comes in here is from outside. Whatever a peer sends or fails to send, the
//! worst that happens is that its own connection is closed with one log line.
//!
//! | file | what it does |
//! |---|---|
//! | [`accept`] | takes connections up to the limit, and ends them at shutdown |
//! | [`tls`] | reads the files of a listener with TLS |
//! | [`login`] | lets a peer say who it is, where the listener asks |
//! | [`connection`] | one peer: requests in order, responses in the same order |
//! | [`frame`] | cuts the stream into requests, within the size limit |
//! | [`sink`] | sends bytes, and records from files |

mod accept;
mod connection;
mod frame;
mod login;
mod memory;
mod sink;
mod tls;

pub(crate) use accept::{Door, Server};
pub(crate) use memory::{Held, Memory};
