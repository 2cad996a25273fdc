//~ can't handle records
//~ taken by value
use ackwell::{Listener, Record};

async fn handle(_: &Record) {}

pub fn declare() -> Listener {
    Listener::on("orders").handle(handle)
}
