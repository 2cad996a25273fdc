//! Connections: accepting, framing, limits, responses in request order.
//!
//! Everything that comes in here is from outside. Whatever a peer sends or fails to send, the
//! worst that happens is that its own connection is closed with one log line.
//!
//! | file | what it does |
//! |---|---|
//! | [`accept`] | takes connections up to the limit, and ends them at shutdown |
//! | [`connection`] | one peer: requests in order, responses in the same order |
//! | [`frame`] | cuts the stream into requests, within the size limit |

mod accept;
mod connection;
mod frame;

pub(crate) use accept::Server;
