//! What a crate's sources name. The standard library is nobody's dependency, so a file or a clock
//! from there is found only by reading.
//!
//! It reads tokens, not syntax: every path in the text counts, with the braces of a `use` expanded.
//! Comments and strings don't count. An alias (`use std as other`) would slip through; whoever
//! writes one means to.

use std::io;
use std::path::{Path, PathBuf};

use crate::table::Row;

/// Every forbidden path in the sources below `src`, as sentences.
pub(crate) fn check(row: &Row, src: &Path) -> io::Result<Vec<String>> {
    let mut broken = Vec::new();
    if row.never_says.is_empty() {
        return Ok(broken);
    }
    for file in rust_files(src)? {
        for (line, path) in paths(&std::fs::read_to_string(&file)?) {
            if let Some(forbidden) = row
                .never_says
                .iter()
                .find(|forbidden| is_within(&path, forbidden))
            {
                broken.push(format!(
                    "{} must not use {forbidden}, and does in {}:{line}: {}",
                    row.name,
                    file.display(),
                    row.because
                ));
            }
        }
    }
    Ok(broken)
}

fn is_within(path: &str, forbidden: &str) -> bool {
    path.strip_prefix(forbidden)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn rust_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Every path named in `source` with its line; `a::{b, c::d}` gives `a::b` and `a::c::d`.
fn paths(source: &str) -> Vec<(usize, String)> {
    let tokens = tokens(source);
    let (mut found, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        at = path(&tokens, at, "", &mut found);
    }
    found
}

/// Reads the path that starts at `at`, if one does, and returns where reading goes on.
fn path(
    tokens: &[(usize, &str)],
    mut at: usize,
    prefix: &str,
    found: &mut Vec<(usize, String)>,
) -> usize {
    let mut name = prefix.to_owned();
    loop {
        match tokens.get(at) {
            Some((_, "{")) if !name.is_empty() => return group(tokens, at + 1, &name, found),
            Some((line, word)) if is_word(word) => {
                name = if name.is_empty() {
                    (*word).to_owned()
                } else {
                    format!("{name}::{word}")
                };
                if tokens.get(at + 1).is_none_or(|(_, next)| *next != "::") {
                    found.push((*line, name));
                    return at + 1;
                }
                at += 2;
            }
            _ => return at + 1,
        }
    }
}

fn group(
    tokens: &[(usize, &str)],
    mut at: usize,
    prefix: &str,
    found: &mut Vec<(usize, String)>,
) -> usize {
    while let Some((_, token)) = tokens.get(at) {
        match *token {
            "}" => return at + 1,
            "," => at += 1,
            _ => at = path(tokens, at, prefix, found),
        }
    }
    at
}

fn is_word(token: &str) -> bool {
    token.starts_with(|first: char| first.is_alphanumeric() || first == '_')
}

/// Words, `::` and single signs with their lines, without blanks, comments, strings and characters.
fn tokens(source: &str) -> Vec<(usize, &str)> {
    let (mut tokens, mut line, mut rest) = (Vec::new(), 1, source);
    while let Some(first) = rest.chars().next() {
        let length = match skipped(rest) {
            0 if rest.starts_with("::") => 2,
            0 if is_word(rest) => rest
                .find(|sign: char| !sign.is_alphanumeric() && sign != '_')
                .unwrap_or(rest.len()),
            0 => first.len_utf8(),
            length => length,
        };
        let (token, after) = rest.split_at(length);
        if skipped(rest) == 0 {
            tokens.push((line, token));
        }
        line += token.matches('\n').count();
        rest = after;
    }
    tokens
}

/// The length of the blank, comment or literal at the start of `rest`; 0 when there is none.
fn skipped(rest: &str) -> usize {
    let until = |end: &str, from: usize| {
        rest[from..]
            .find(end)
            .map_or(rest.len(), |at| from + at + end.len())
    };
    let blank = rest.len() - rest.trim_start().len();
    if blank > 0 {
        return blank;
    }
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return until("*/", 2);
    }
    if let Some(raw) = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r')) {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            let from = rest.len() - raw.len() + hashes + 1;
            return until(&format!("\"{}", "#".repeat(hashes)), from);
        }
    }
    match rest.as_bytes() {
        [b'"', ..] => quoted(rest, '"'),
        [b'\'', b'\\', ..] => quoted(rest, '\''),
        [b'\'', ..] if rest.chars().nth(2) == Some('\'') => quoted(rest, '\''),
        _ => 0,
    }
}

fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, sign) in rest.char_indices().skip(1) {
        match sign {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if sign == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::CRATES;

    fn names(source: &str) -> Vec<String> {
        paths(source)
            .into_iter()
            .map(|(_, path)| path)
            .filter(|path| path.contains("::"))
            .collect()
    }

    #[test]
    fn a_use_with_braces_names_every_path_in_it() {
        assert_eq!(
            names("use std::{fs, time::{Duration, Instant}, io::{self}};"),
            [
                "std::fs",
                "std::time::Duration",
                "std::time::Instant",
                "std::io::self"
            ]
        );
    }

    #[test]
    fn a_path_in_an_expression_counts() {
        assert_eq!(
            names("let now = std::time::Instant::now();"),
            ["std::time::Instant::now"]
        );
        assert_eq!(names("match x { a::B => { c() } }"), ["a::B"]);
    }

    #[test]
    fn comments_strings_and_characters_do_not_count() {
        assert_eq!(
            names(
                "// std::fs\n/* std::net */ \"std::env \\\" a::b\" '\"' r#\"c::d \" \"# 'x' f::g"
            ),
            ["f::g"]
        );
    }

    #[test]
    fn a_lifetime_is_not_taken_for_a_character() {
        assert_eq!(names("fn f<'a>(x: &'a a::B) {} // '"), ["a::B"]);
    }

    #[test]
    fn a_clock_in_the_core_is_told_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("engine")).unwrap();
        let file = folder.path().join("engine/lane.rs");
        std::fs::write(&file, "//! Lanes.\nuse std::time::{Duration, Instant};\n").unwrap();
        let core = CRATES
            .iter()
            .find(|row| row.name == "ackwell-core")
            .unwrap();
        let broken = check(core, folder.path()).unwrap();
        assert_eq!(broken.len(), 1, "{broken:?}");
        assert!(
            broken[0].starts_with("ackwell-core must not use std::time::Instant, and does in"),
            "{broken:?}"
        );
        assert!(broken[0].contains("lane.rs:2"), "{broken:?}");
    }

    #[test]
    fn a_name_that_only_begins_alike_is_another_name() {
        assert!(is_within("std::fs::File", "std::fs"));
        assert!(!is_within("std::fsync", "std::fs"));
    }
}
