//! What the compiler says about a handler that can't be one, in words that help.
//!
//! Each file of `compile_errors/` is one mistake. Lines that begin with `//~` are what the compiler
//! must say, whichever version it is; the `.stderr` beside holds all that version [`BLESSED`] says.
//! The cases are compiled against the libraries that this test was built with, so nothing is built
//! for them. After a change on purpose:
//!
//! ```sh
//! BLESS=1 cargo test --workspace --test app_compile_errors
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, thread};

/// The compiler whose words are kept in full.
const BLESSED: &str = "rustc 1.95.";

#[test]
fn a_mistake_is_told_in_words_that_help() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compile_errors");
    let mut cases: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect();
    cases.sort();
    assert!(cases.len() >= 10, "{} cases", cases.len());
    let compiler = Compiler::here();
    let problems: String = thread::scope(|scope| {
        let compiler = &compiler;
        let checks: Vec<_> = (cases.iter())
            .map(|case| scope.spawn(move || compiler.check(case)))
            .collect();
        checks
            .into_iter()
            .map(|check| check.join().unwrap())
            .collect()
    });
    assert!(problems.is_empty(), "{problems}");
}

/// The compiler, and the libraries that this test was built with.
struct Compiler {
    rustc: PathBuf,
    libraries: PathBuf,
    ackwell: PathBuf,
    is_blessed: bool,
}

impl Compiler {
    fn here() -> Self {
        let rustc = PathBuf::from(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
        let version = Command::new(&rustc).arg("--version").output().unwrap();
        let libraries = env::current_exe().unwrap().parent().unwrap().to_owned();
        let ackwell = fs::read_dir(&libraries)
            .unwrap()
            .map(|entry| entry.unwrap())
            .filter(|entry| {
                let name = entry.file_name().into_string().unwrap_or_default();
                name.starts_with("libackwell-") && name.ends_with(".rlib")
            })
            .max_by_key(|entry| entry.metadata().unwrap().modified().unwrap());
        Self {
            is_blessed: version.stdout.starts_with(BLESSED.as_bytes()),
            ackwell: ackwell.expect("the library is beside its test").path(),
            libraries,
            rustc,
        }
    }

    /// Compiles a case; answers what is wrong with what the compiler says.
    fn check(&self, case: &Path) -> String {
        let name = case.file_stem().unwrap().to_string_lossy().into_owned();
        let out = tempfile::tempdir().unwrap();
        let mut library = std::ffi::OsString::from("ackwell=");
        library.push(&self.ackwell);
        let mut dependency = std::ffi::OsString::from("dependency=");
        dependency.push(&self.libraries);
        let compiled = Command::new(&self.rustc)
            .args(["--edition=2024", "--crate-type=lib", "--emit=metadata"])
            .args([
                "--color=never",
                "--cap-lints=allow",
                "--diagnostic-width=140",
            ])
            .arg("--out-dir")
            .arg(out.path())
            .arg("-L")
            .arg(dependency)
            .arg("--extern")
            .arg(library)
            .arg(case)
            .output()
            .unwrap();
        if compiled.status.success() {
            return format!("{name}: it compiles\n");
        }
        let said = normalised(&String::from_utf8_lossy(&compiled.stderr), case);
        self.compare(&name, case, &said)
    }

    fn compare(&self, name: &str, case: &Path, said: &str) -> String {
        let mut problems = String::new();
        let source = fs::read_to_string(case).unwrap();
        let mut expected = source.lines().filter_map(|line| line.strip_prefix("//~ "));
        if let Some(missing) = expected.find(|phrase| !said.contains(phrase)) {
            let _ = writeln!(problems, "{name}: nothing is said of `{missing}`:\n{said}");
        }
        let kept = case.with_extension("stderr");
        if env::var_os("BLESS").is_some() {
            fs::write(&kept, said).unwrap();
        } else if self.is_blessed && fs::read_to_string(&kept).unwrap_or_default() != said {
            let _ = writeln!(
                problems,
                "{name}: it says something else (BLESS=1 keeps it):\n{said}"
            );
        }
        problems
    }
}

/// Without what changes by machine, and by a change elsewhere in this crate: paths, the lines of our
/// own sources, and the lists of what else implements a trait.
fn normalised(said: &str, case: &Path) -> String {
    let mut kept = String::new();
    let (mut is_ours, mut is_list) = (false, false);
    for line in said.lines() {
        let line = line.replace(
            &*case.to_string_lossy(),
            &case.file_name().unwrap().to_string_lossy(),
        );
        let text = line.trim_start();
        if text.starts_with("--> ") || text.starts_with("::: ") {
            is_ours = text.contains('/');
        } else if text.is_empty() || !is_of_source(text) {
            is_ours = false;
        }
        is_list = match text.contains("following other types implement") {
            true => true,
            false => is_list && line.starts_with("            "),
        };
        let is_of_machine = text.contains("full name for the type") || text.contains("`--verbose`");
        if !is_ours && !is_list && !is_of_machine {
            kept.push_str(line.trim_end());
            kept.push('\n');
        }
    }
    kept
}

/// Whether a line shows source: `12 | fn f()`, `   | ^^^`, `...`.
fn is_of_source(text: &str) -> bool {
    let rest = text
        .trim_start_matches(|c: char| c.is_ascii_digit())
        .trim_start();
    rest.starts_with('|') || rest.starts_with("...")
}
