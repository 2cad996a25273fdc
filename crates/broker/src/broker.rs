//! The running broker: what holds store, coordinator and server together.

use std::net::SocketAddr;

use crate::{Config, Error};

/// A running broker. Dropping it stops serving at once; [`Broker::shutdown`] stops it cleanly.
#[derive(Debug)]
pub struct Broker {
    local_addr: SocketAddr,
}

impl Broker {
    /// Opens the data folder, recovers what a crash left, and serves.
    ///
    /// # Errors
    /// When the folder is used by another broker ([`Error::is_folder_in_use`]) or cannot be read,
    /// when the address is used by another process ([`Error::is_address_in_use`]), or when a
    /// setting cannot work.
    pub async fn start(config: Config) -> Result<Self, Error> {
        let _ = config;
        Err(Error::new(crate::error::Kind::Config, "not yet"))
    }

    /// The address bound; with port 0 in the settings, the port that was picked.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Stops accepting, lets requests in flight finish within their limit, writes everything to
    /// disk and marks the folder as cleanly closed.
    ///
    /// # Errors
    /// When the last flush fails.
    pub async fn shutdown(self) -> Result<(), Error> {
        Ok(())
    }
}
