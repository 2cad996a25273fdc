//~ can't handle records
//~ arguments that implement `FromRecord`
use ackwell::Listener;

pub struct Order;

async fn handle(_: Order) {}

pub fn declare() -> Listener {
    Listener::on("orders").handle(handle)
}
