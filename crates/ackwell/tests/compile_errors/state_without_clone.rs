//~ the trait bound `Connection: Clone` is not satisfied
use ackwell::{App, Config};

pub struct Connection;

pub fn declare() -> App {
    App::new(Config::default()).state(Connection)
}
