//~ can't handle batches
//~ implement `FromBatch`
use ackwell::extract::{Key, Text};
use ackwell::{Batch, Listener};

async fn handle(_: Batch<Text>, _: Key) {}

pub fn declare() -> Listener {
    Listener::on("orders").handle_batch(handle)
}
