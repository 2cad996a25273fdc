//~ can't handle records
//~ `.handle_batch(..)`
use ackwell::extract::Text;
use ackwell::{Batch, Listener};

async fn handle(_: Batch<Text>) {}

pub fn declare() -> Listener {
    Listener::on("orders").handle(handle)
}
