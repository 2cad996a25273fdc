//! The broker that the clients of a benchmark talk to: the embedded one, or one that runs already.

use std::path::Path;

use crate::Outcome;
use crate::process::{Child, program};

/// Which broker.
#[derive(clap::Args)]
pub(crate) struct Target {
    /// Measure on this broker, for instance Apache Kafka, instead of starting `ackwell broker`.
    #[arg(long)]
    bootstrap_servers: Option<String>,
    /// A consumer setting of librdkafka for both sides, as name=value; may be repeated.
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = setting)]
    settings: Vec<(String, String)>,
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("it is written name=value")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// A broker to talk to. The embedded one ends when dropped.
pub(crate) struct Broker {
    address: String,
    child: Option<Child>,
    settings: Vec<(String, String)>,
}

impl Target {
    /// Starts the embedded broker on a free port with `flags`, unless another one is named.
    pub(crate) fn start(&self, data: &Path, flags: &[&str]) -> Outcome<Broker> {
        match &self.bootstrap_servers {
            Some(address) => Ok(Broker {
                address: address.clone(),
                child: None,
                settings: self.settings.clone(),
            }),
            None => Ok(Broker {
                settings: self.settings.clone(),
                ..start(&program("ackwell")?, data, flags)?
            }),
        }
    }

    pub(crate) fn is_embedded(&self) -> bool {
        self.bootstrap_servers.is_none()
    }

    /// Its name in a report.
    pub(crate) fn name(&self) -> String {
        match &self.bootstrap_servers {
            Some(address) => format!("broker at {address}"),
            None => "embedded broker as a process of its own".to_owned(),
        }
    }
}

/// Starts `ackwell broker` on a free port.
pub(crate) fn start(program: &Path, data: &Path, flags: &[&str]) -> Outcome<Broker> {
    let data = data.to_str().ok_or("the data folder's name is not text")?;
    let mut arguments = vec!["broker", "--listen", "127.0.0.1:0", "--data", data];
    arguments.extend(flags);
    let child = Child::start(program, &arguments, &[], 1)?;
    let address = child.addresses()[0].to_string();
    Ok(Broker {
        address,
        child: Some(child),
        settings: Vec::new(),
    })
}

impl Broker {
    /// One that runs already.
    pub(crate) fn at(address: &str) -> Self {
        Broker {
            address: address.to_owned(),
            child: None,
            settings: Vec::new(),
        }
    }

    /// What clients connect to.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// What consumers are told beside their defaults.
    pub(crate) fn settings(&self) -> impl Iterator<Item = (&str, &str)> {
        self.settings
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Its process; `None` when it is not ours.
    pub(crate) fn process(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Stops it well, if it is ours.
    pub(crate) fn stop(self) -> Outcome<()> {
        self.child.map_or(Ok(()), Child::stop)
    }
}
