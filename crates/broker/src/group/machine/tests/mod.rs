//! What a group does, one sentence each.

mod consumers;
mod joining;
mod leaving;
mod migration;
mod offsets;
mod operators;
mod static_members;
mod world;
