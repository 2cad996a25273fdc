//! The product service: products with stock, reserved for orders and given back.
//!
//! One request's way through this folder: [`listener`] takes it, [`store`] reserves
//! every item or none in the same transaction in which the answer is emitted.

pub(crate) mod http;
pub(crate) mod listener;
pub(crate) mod store;
