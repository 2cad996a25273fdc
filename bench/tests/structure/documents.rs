//! Documents that name tests keep their word: the test is there, in the file that is linked.

use std::path::Path;

/// A link whose text is a name in backticks: `[`name`](path)`.
struct Named<'a> {
    name: &'a str,
    path: &'a str,
}

/// All such links of a document.
fn named(text: &str) -> impl Iterator<Item = Named<'_>> {
    text.split("[`").skip(1).filter_map(|rest| {
        let (name, rest) = rest.split_once("`](")?;
        let (path, _) = rest.split_once(')')?;
        Some(Named { name, path })
    })
}

/// A sentence for each test that is not where the document says.
pub(crate) fn check(document: &Path) -> std::io::Result<Vec<String>> {
    let text = std::fs::read_to_string(document)?;
    let folder = document.parent().unwrap_or(Path::new("."));
    let mut missing = Vec::new();
    let mut count = 0;
    for Named { name, path } in named(&text) {
        count += 1;
        let there = std::fs::read_to_string(folder.join(path))
            .is_ok_and(|source| source.contains(&format!("fn {name}(")));
        if !there {
            let document = document.display();
            missing.push(format!("{document}: `{name}` is not in {path}"));
        }
    }
    if count == 0 {
        missing.push(format!("{} names no test", document.display()));
    }
    Ok(missing)
}
