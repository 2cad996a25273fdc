//! What depends on what when the code runs, by cargo's own account.
//!
//! Only normal dependencies count: tests may use what they like, and build scripts and procedural
//! macros run in the compiler.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Packages by name, and an edge for each normal dependency.
#[derive(Default)]
pub(crate) struct Graph {
    members: BTreeMap<String, PathBuf>,
    edges: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    /// Asks cargo, without network, for this machine's platform: other platforms' packages need
    /// not be downloaded here.
    pub(crate) fn of_this_workspace() -> Result<Self, Box<dyn Error>> {
        let host = host()?;
        let arguments = [
            "metadata",
            "--format-version",
            "1",
            "--offline",
            "--locked",
            "--filter-platform",
            &host,
        ];
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        Self::parse(&serde_json::from_slice(&run(
            env!("CARGO"),
            &arguments,
            &root,
        )?)?)
    }

    fn parse(metadata: &Value) -> Result<Self, Box<dyn Error>> {
        let packages = array(&metadata["packages"])?;
        let name_of: BTreeMap<&str, &str> = packages
            .iter()
            .filter_map(|package| Some((package["id"].as_str()?, package["name"].as_str()?)))
            .collect();
        let macros: BTreeSet<&str> = packages
            .iter()
            .filter(|package| is_macro(package))
            .filter_map(|package| package["id"].as_str())
            .collect();
        let mut graph = Self::default();
        for package in packages {
            let member = array(&metadata["workspace_members"])?.contains(&package["id"]);
            if let (true, Some(name), Some(manifest)) = (
                member,
                package["name"].as_str(),
                package["manifest_path"].as_str(),
            ) {
                let folder = Path::new(manifest)
                    .parent()
                    .ok_or("a manifest lies in a folder")?;
                graph.members.insert(name.to_owned(), folder.to_owned());
            }
        }
        for node in array(&metadata["resolve"]["nodes"])? {
            let from = node["id"]
                .as_str()
                .and_then(|id| name_of.get(id))
                .ok_or("a node is a package")?;
            for dependency in array(&node["deps"])?
                .iter()
                .filter(|dependency| is_normal(dependency))
            {
                let id = dependency["pkg"]
                    .as_str()
                    .ok_or("a dependency is a package")?;
                if !macros.contains(id) {
                    let to = name_of.get(id).ok_or("a dependency is a package")?;
                    graph
                        .edges
                        .entry((*from).to_owned())
                        .or_default()
                        .insert((*to).to_owned());
                }
            }
        }
        Ok(graph)
    }

    /// A made-up workspace.
    #[cfg(test)]
    pub(crate) fn new(members: &[&str], edges: &[(&str, &str)]) -> Self {
        let members = members
            .iter()
            .map(|name| ((*name).to_owned(), PathBuf::new()))
            .collect();
        let mut graph = Self {
            members,
            ..Self::default()
        };
        for (from, to) in edges {
            graph
                .edges
                .entry((*from).to_owned())
                .or_default()
                .insert((*to).to_owned());
        }
        graph
    }

    /// The workspace's packages.
    pub(crate) fn members(&self) -> impl Iterator<Item = &str> {
        self.members.keys().map(String::as_str)
    }

    pub(crate) fn is_member(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    /// Where a member's manifest lies.
    pub(crate) fn folder(&self, member: &str) -> Option<&Path> {
        self.members.get(member).map(PathBuf::as_path)
    }

    /// What `name` depends on itself.
    pub(crate) fn direct(&self, name: &str) -> impl Iterator<Item = &str> {
        self.edges
            .get(name)
            .into_iter()
            .flatten()
            .map(String::as_str)
    }

    /// A shortest way from one package to another; `None` when there is none.
    pub(crate) fn path<'a>(&'a self, from: &'a str, to: &str) -> Option<Vec<&'a str>> {
        let mut reached_from = BTreeMap::from([(from, None)]);
        let mut waiting = VecDeque::from([from]);
        while let Some(name) = waiting.pop_front() {
            if name == to {
                let mut path: Vec<&str> =
                    std::iter::successors(Some(name), |name| reached_from[name]).collect();
                path.reverse();
                return Some(path);
            }
            for next in self.direct(name) {
                if !reached_from.contains_key(next) {
                    reached_from.insert(next, Some(name));
                    waiting.push_back(next);
                }
            }
        }
        None
    }
}

fn is_macro(package: &Value) -> bool {
    let kinds = |target: &Value| target["kind"].as_array().cloned().unwrap_or_default();
    package["targets"].as_array().is_some_and(|targets| {
        targets
            .iter()
            .flat_map(kinds)
            .any(|kind| kind == "proc-macro")
    })
}

fn is_normal(dependency: &Value) -> bool {
    dependency["dep_kinds"]
        .as_array()
        .is_some_and(|kinds| kinds.iter().any(|kind| kind["kind"].is_null()))
}

fn array(value: &Value) -> Result<&Vec<Value>, &'static str> {
    value
        .as_array()
        .ok_or("cargo metadata has another shape than this test knows")
}

/// This machine's platform, as rustc names it.
fn host() -> Result<String, Box<dyn Error>> {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let version = String::from_utf8(run(&rustc, &["-vV"], Path::new("."))?)?;
    let host = version
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .ok_or("rustc -vV names the host")?;
    Ok(host.to_owned())
}

fn run(program: &str, arguments: &[&str], folder: &Path) -> Result<Vec<u8>, Box<dyn Error>> {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .output()?;
    if !output.status.success() {
        let told = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{program} {}: {}", arguments.join(" "), told.trim()).into());
    }
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn package(name: &str, kind: &str) -> Value {
        json!({"id": format!("{name}@1"), "name": name, "manifest_path": format!("/w/{name}/Cargo.toml"), "targets": [{"kind": [kind]}]})
    }

    fn dependency(name: &str, kinds: &[Option<&str>]) -> Value {
        let kinds: Vec<Value> = kinds.iter().map(|kind| json!({"kind": kind})).collect();
        json!({"pkg": format!("{name}@1"), "dep_kinds": kinds})
    }

    fn metadata(dependency: &Value) -> Value {
        json!({
            "packages": [package("app", "bin"), package("tool", "lib"), package("derive", "proc-macro")],
            "workspace_members": ["app@1"],
            "resolve": {"nodes": [{"id": "app@1", "deps": [dependency]}]},
        })
    }

    fn reaches_tool(kinds: &[Option<&str>]) -> bool {
        Graph::parse(&metadata(&dependency("tool", kinds)))
            .unwrap()
            .path("app", "tool")
            .is_some()
    }

    #[test]
    fn only_what_runs_with_the_program_counts() {
        assert!(reaches_tool(&[None]));
        assert!(reaches_tool(&[Some("dev"), None]));
        assert!(!reaches_tool(&[Some("dev")]));
        assert!(!reaches_tool(&[Some("build"), Some("dev")]));
    }

    #[test]
    fn a_procedural_macro_runs_in_the_compiler_and_does_not_count() {
        let graph = Graph::parse(&metadata(&dependency("derive", &[None]))).unwrap();
        assert_eq!(graph.path("app", "derive"), None);
    }

    #[test]
    fn members_are_known_with_their_folders() {
        let graph = Graph::parse(&metadata(&dependency("tool", &[None]))).unwrap();
        assert_eq!(graph.members().collect::<Vec<_>>(), ["app"]);
        assert_eq!(graph.folder("app"), Some(Path::new("/w/app")));
    }

    #[test]
    fn the_shortest_path_is_told_and_a_circle_ends() {
        let graph = Graph::new(
            &[],
            &[("a", "b"), ("b", "a"), ("b", "c"), ("c", "d"), ("a", "c")],
        );
        assert_eq!(graph.path("a", "d"), Some(vec!["a", "c", "d"]));
        assert_eq!(graph.path("d", "a"), None);
    }
}
