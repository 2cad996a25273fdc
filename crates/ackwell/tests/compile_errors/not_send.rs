//~ can't handle records
//~ its future must be `Send`
use std::rc::Rc;

use ackwell::Listener;
use ackwell::extract::Text;

async fn handle(Text(text): Text) {
    let shared = Rc::new(text);
    std::future::ready(()).await;
    drop(shared);
}

pub fn declare() -> Listener {
    Listener::on("orders").handle(handle)
}
