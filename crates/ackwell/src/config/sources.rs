//! Where settings come from: the file, the environment, flags.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::error::{Error, Problem};
use super::settings::Settings;

const DEFAULT_FILE: &str = "ackwell.toml";
const PREFIX: &str = "ACKWELL_";
const FILE_VARIABLE: &str = "ACKWELL_CONFIG";
/// Named in the interface, and therefore without the prefix or the section.
const VARIABLES: [(&str, &str); 3] = [
    ("KAFKA_BOOTSTRAP_SERVERS", "kafka.bootstrap_servers"),
    ("DATABASE_URL", "database.url"),
    ("ACKWELL_DATA", "data"),
];

/// The layers of the settings: defaults, file, environment, flags; later ones win.
///
/// ```
/// use ackwell::config::Sources;
///
/// let mut settings = Sources::new()
///     .with_environment([("KAFKA_BOOTSTRAP_SERVERS", "kafka-1:9092")])
///     .set("producer.compression", "lz4", "--compression")
///     .read()?;
/// let config = settings.config()?;
/// settings.finish()?;
/// assert_eq!(config.kafka.bootstrap_servers, "kafka-1:9092");
/// # Ok::<(), ackwell::config::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Sources {
    file: Option<PathBuf>,
    environment: BTreeMap<String, String>,
    variables: Vec<(String, String)>,
    flags: Vec<Layer>,
}

impl Default for Sources {
    fn default() -> Self {
        Self::new()
    }
}

impl Sources {
    /// `ackwell.toml` in the current folder, if there is one, and the process's environment.
    /// Variables that are not Unicode are left out.
    pub fn new() -> Self {
        let unicode = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self {
            file: None,
            environment: std::env::vars_os().filter_map(unicode).collect(),
            variables: VARIABLES
                .map(|(name, key)| (name.to_owned(), key.to_owned()))
                .into(),
            flags: Vec::new(),
        }
    }

    /// Another file, which must exist.
    #[must_use]
    pub fn file(mut self, path: impl Into<PathBuf>) -> Self {
        self.file = Some(path.into());
        self
    }

    /// Other variables in place of the process's environment: for tests.
    #[must_use]
    pub fn with_environment<N: Into<String>, V: Into<String>>(
        mut self,
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        self.environment = variables
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        self
    }

    /// A variable of the service's own: `.variable("ORDERS_FLOW", "orders.flow")`.
    #[must_use]
    pub fn variable(mut self, name: impl Into<String>, key: impl Into<String>) -> Self {
        self.variables.push((name.into(), key.into()));
        self
    }

    /// A value given on the command line; `flag` names it in errors.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl Into<String>, flag: &str) -> Self {
        self.flags.push(Layer::new(
            format!("flag `{flag}`"),
            split(key),
            value.into(),
        ));
        self
    }

    /// Reads the layers.
    ///
    /// # Errors
    /// When the file can't be read or is not TOML. Unknown and contradictory settings are found
    /// by [`Settings::config`], [`Settings::section`] and [`Settings::finish`].
    pub fn read(self) -> Result<Settings, Error> {
        let mut figment = Figment::new();
        let file = self.text_of_file()?;
        if let Some((path, text)) = &file {
            let toml = Toml::string(text).data().map_err(|error| {
                Problem::new(
                    path.display().to_string(),
                    format!("not TOML: {}", error.to_string().trim()),
                )
                .mend("mend the file, or name another one with `ACKWELL_CONFIG`")
            })?;
            figment = figment.merge(File {
                path: path.clone(),
                data: toml,
            });
        }
        for layer in self.environment_layers().into_iter().chain(self.flags) {
            figment = figment.merge(layer);
        }
        Ok(Settings::new(figment, file))
    }

    fn text_of_file(&self) -> Result<Option<(PathBuf, String)>, Error> {
        let named = self
            .file
            .clone()
            .or_else(|| self.environment.get(FILE_VARIABLE).map(PathBuf::from));
        let path = named.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_FILE));
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some((path, text))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && named.is_none() => {
                Ok(None)
            }
            Err(error) => Err(unreadable(&path, &error).into()),
        }
    }

    fn environment_layers(&self) -> Vec<Layer> {
        let key_of = |name: &str| {
            let named = self.variables.iter().find(|(variable, _)| variable == name);
            if let Some((_, key)) = named {
                return Some(split(key));
            }
            name.strip_prefix(PREFIX)
                .filter(|_| name != FILE_VARIABLE)
                .map(path_of_variable)
        };
        (self.environment.iter())
            .filter_map(|(name, value)| {
                Some(Layer::new(
                    format!("environment variable `{name}`"),
                    key_of(name)?,
                    value.clone(),
                ))
            })
            .collect()
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Problem {
    Problem::new(
        path.display().to_string(),
        format!("the file can't be read: {error}"),
    )
    .mend("correct the path, or the file's permissions")
}

fn split(key: &str) -> Vec<String> {
    key.split('.').map(str::to_owned).collect()
}

/// `KAFKA__EXTRA__SECURITY_PROTOCOL` is `kafka`, `extra`, `security.protocol`: librdkafka's names
/// have dots where a variable's can't.
fn path_of_variable(rest: &str) -> Vec<String> {
    let mut path: Vec<String> = rest.split("__").map(str::to_ascii_lowercase).collect();
    if let [section, clients, property] = path.as_mut_slice()
        && section == "kafka"
        && matches!(clients.as_str(), "extra" | "consumer" | "producer")
    {
        *property = property.replace('_', ".");
    }
    path
}

/// One value with a name for where it came from.
#[derive(Clone, Debug)]
struct Layer {
    source: String,
    path: Vec<String>,
    value: String,
}

impl Layer {
    fn new(source: String, path: Vec<String>, value: String) -> Self {
        Self {
            source,
            path,
            value,
        }
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.source.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let nested = |value, part: &String| Value::from(Dict::from([(part.clone(), value)]));
        let value = self
            .path
            .iter()
            .skip(1)
            .rev()
            .fold(Value::from(self.value.clone()), nested);
        let dict = self
            .path
            .first()
            .map(|root| Dict::from([(root.clone(), value)]))
            .unwrap_or_default();
        Ok(Map::from([(Profile::Default, dict)]))
    }
}

/// A parsed file that remembers its path.
struct File {
    path: PathBuf,
    data: Map<Profile, Dict>,
}

impl Provider for File {
    fn metadata(&self) -> Metadata {
        Metadata::from("file", self.path.as_path())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(self.data.clone())
    }
}
