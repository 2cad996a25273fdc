//~ expected function signature `fn(ackwell::extract::Event<_>) -> _`
//~ found function signature `fn(Text) -> _`
use ackwell::Listener;
use ackwell::extract::Text;

async fn handle(_: Text) {}

pub fn declare() -> Listener {
    Listener::on("orders").on_event(handle).into()
}
