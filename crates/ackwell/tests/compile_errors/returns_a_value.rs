//~ can't handle records
//~ it returns `()` or `Result<(), E>`
use ackwell::Listener;
use ackwell::extract::Text;

async fn handle(Text(text): Text) -> usize {
    text.len()
}

pub fn declare() -> Listener {
    Listener::on("orders").handle(handle)
}
