//~ can't handle records
//~ where `E: Classify`
use ackwell::Listener;
use ackwell::extract::Text;

#[derive(Debug)]
pub struct NoStock;

async fn handle(_: Text) -> Result<(), NoStock> {
    Err(NoStock)
}

pub fn declare() -> Listener {
    Listener::on("orders").handle(handle)
}
