//! The merged settings: sections are taken one by one, and what nobody took is unknown.

use std::collections::BTreeSet;
use std::path::PathBuf;

use figment::error::Kind;
use figment::value::{Tag, Value};
use figment::{Figment, Source};
use serde::de::DeserializeOwned;

use super::error::{Error, Problem};
use super::locate;
use super::{Config, Database, Kafka, Producer, Stop, Topics, Transactions};

/// How alike two names must be for "did you mean" (Jaro-Winkler; 1 is the same).
const ALIKE: f64 = 0.8;

/// The settings as read, not yet typed.
#[derive(Debug)]
pub struct Settings {
    figment: Figment,
    file: Option<(PathBuf, String)>,
    taken: BTreeSet<String>,
}

impl Settings {
    pub(super) fn new(figment: Figment, file: Option<(PathBuf, String)>) -> Self {
        Self {
            figment,
            file,
            taken: BTreeSet::new(),
        }
    }

    /// The settings that every service has.
    ///
    /// # Errors
    /// When one is unknown, malformed or contradicts another; with every problem that can be seen.
    pub fn config(&mut self) -> Result<Config, Error> {
        let defaults = Config::default();
        let config = Config {
            data: self.value("data")?.unwrap_or(defaults.data),
            kafka: self.section::<Kafka>("kafka")?,
            producer: self.section::<Producer>("producer")?,
            transactions: self.section::<Transactions>("transactions")?,
            database: self.section::<Database>("database")?,
            topics: self.section::<Topics>("topics")?,
            stop: self.section::<Stop>("stop")?,
        };
        let Err(error) = config.check() else {
            return Ok(config);
        };
        let located = error.problems().iter().cloned().map(|problem| {
            let source = self.source_of(problem.key());
            problem.found_in_opt(source)
        });
        Error::from_problems(located.collect()).map(|()| config)
    }

    /// A section of the service's own. Derive `Deserialize` with
    /// `#[serde(deny_unknown_fields, default)]`; a missing section is an empty one.
    ///
    /// # Errors
    /// When a setting in it is unknown or malformed.
    pub fn section<T: DeserializeOwned>(&mut self, name: &str) -> Result<T, Error> {
        self.taken.insert(name.to_owned());
        if let Ok(value) = self.figment.find_value(name)
            && value.as_dict().is_none()
        {
            let problem = Problem::new(name, "it is a section, not a value")
                .mend(format!("write it as `[{name}]`"));
            return Err(problem.found_in_opt(self.source_of(name)).into());
        }
        self.figment
            .focus(name)
            .extract_lossy()
            .map_err(|error| self.explain(name, error))
    }

    /// Refuses what no section took.
    ///
    /// # Errors
    /// With every unknown section.
    pub fn finish(self) -> Result<(), Error> {
        let roots: figment::value::Dict = self.figment.extract().unwrap_or_default();
        let unknown = roots
            .keys()
            .filter(|name| !self.taken.contains(*name))
            .map(|name| {
                let known = self.taken.iter().map(String::as_str);
                self.unknown(name.clone(), name, known)
            });
        Error::from_problems(unknown.collect())
    }

    fn value<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, Error> {
        self.taken.insert(name.to_owned());
        if !self.figment.contains(name) {
            return Ok(None);
        }
        self.figment
            .extract_inner_lossy(name)
            .map(Some)
            .map_err(|error| self.explain("", error))
    }

    fn explain(&self, section: &str, error: figment::Error) -> Error {
        let path = std::iter::once(section).chain(error.path.iter().map(String::as_str));
        let key = path
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join(".");
        match error.kind {
            Kind::UnknownField(field, known) => {
                let key = if key.ends_with(&format!(".{field}")) {
                    key
                } else {
                    format!("{key}.{field}")
                };
                self.unknown(key, &field, known.iter().copied())
            }
            Kind::UnknownVariant(value, known) => {
                let what = format!("`{value}` is not one of {}", list(known.iter().copied()));
                let mend = nearest(&value, known.iter().copied())
                    .map(|near| format!("did you mean `{near}`?"));
                let problem = Problem::new(key.clone(), what).found_in_opt(self.source_of(&key));
                match mend {
                    Some(mend) => problem.mend(mend),
                    None => problem,
                }
            }
            kind => Problem::new(key.clone(), kind.to_string()).found_in_opt(self.source_of(&key)),
        }
        .into()
    }

    fn unknown<'a>(
        &self,
        key: String,
        name: &str,
        known: impl Iterator<Item = &'a str> + Clone,
    ) -> Problem {
        let source = self.source_of(&key);
        let mend = match nearest(name, known.clone()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("known here: {}", list(known)),
        };
        Problem::new(key, "unknown setting")
            .mend(mend)
            .found_in_opt(source)
    }

    /// Where a setting's value came from; `None` for a default.
    fn source_of(&self, key: &str) -> Option<String> {
        let tag = self.tag_of(key)?;
        let metadata = self.figment.get_metadata(tag)?;
        match (&metadata.source, &self.file) {
            (Some(Source::File(path)), Some((_, text))) => Some(match locate::line_of(text, key) {
                Some(line) => format!("{}, line {line}", path.display()),
                None => path.display().to_string(),
            }),
            _ => Some(metadata.name.to_string()),
        }
    }

    /// The tag of the value at `key`, whose names may themselves hold dots.
    fn tag_of(&self, key: &str) -> Option<Tag> {
        fn walk(value: &Value, rest: &str) -> Option<Tag> {
            let Some(dict) = value.as_dict() else {
                return rest.is_empty().then(|| value.tag());
            };
            if rest.is_empty() {
                return dict
                    .values()
                    .next()
                    .and_then(|value| walk(value, ""))
                    .or(Some(value.tag()));
            }
            dict.iter().find_map(|(name, value)| {
                let rest = rest.strip_prefix(name.as_str())?;
                let rest = if rest.is_empty() {
                    rest
                } else {
                    rest.strip_prefix('.')?
                };
                walk(value, rest)
            })
        }
        let roots: Value = self.figment.extract().ok()?;
        walk(&roots, key)
    }
}

pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, candidate)| candidate)
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ")
}
