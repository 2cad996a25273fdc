//! What a group does, one sentence each.

mod consumers;
mod fuzz;
mod joining;
mod leaving;
mod migration;
mod offsets;
mod operators;
mod static_members;
mod transactions;
mod world;
