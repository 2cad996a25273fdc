//~ `fn(Text) {handle}` can't handle records
//~ a handler is an `async fn`
use ackwell::Listener;
use ackwell::extract::Text;

fn handle(_: Text) {}

pub fn declare() -> Listener {
    Listener::on("orders").handle(handle)
}
