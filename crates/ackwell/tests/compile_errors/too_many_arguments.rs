//~ can't handle records
//~ up to 8 arguments
use ackwell::Listener;
use ackwell::extract::Offset;

async fn handle(
    _: Offset,
    _: Offset,
    _: Offset,
    _: Offset,
    _: Offset,
    _: Offset,
    _: Offset,
    _: Offset,
    _: Offset,
) {
}

pub fn declare() -> Listener {
    Listener::on("orders").handle(handle)
}
