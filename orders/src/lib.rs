//! The order system: Ackwell's proof.
//!
//! Services on Kafka, each with its own database, and the tools around them:
//!
//! | module | holds |
//! |---|---|
//! | `order` | the order service: HTTP → transaction → event; answer → final state |
//! | `product` | the product service: request → reservation → answer, in one transaction |
//! | `payment` | the payment service: charge and refund, through a gateway that knows no transaction |
//! | `notification` | the notification service: customers and shipping, once an order |
//! | `user` | the user service: a user, its event and its audit entry in one transaction |
//! | `events` | what they say to each other, a file a topic |
//! | `serve` | starting and stopping them, alone or with the embedded broker |
//! | `import` | posting a file of purchases, and waiting until each order is final |
//! | `audit` | proving the books from the databases and the topics |
//!
//! The binary is all there is to use; see `orders --help`.

mod audit;
mod cli;
mod config;
#[cfg(test)]
mod deploy;
mod error;
mod events;
mod import;
mod money;
mod notification;
mod order;
mod payment;
mod product;
mod serve;
mod user;
mod web;

pub use cli::main;
