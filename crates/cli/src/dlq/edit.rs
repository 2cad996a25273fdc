//! A value in the operator's editor.

use std::io::Write;
use std::process::Command;

use super::Result;

/// Opens `value` in $VISUAL or $EDITOR and gives what was saved.
pub(super) fn value(value: Option<&[u8]>) -> Result<Vec<u8>> {
    let value = value.unwrap_or_default();
    if std::str::from_utf8(value).is_err() {
        return Err("its value is no text; use `show --value` and `--set-value FILE`".into());
    }
    let editor = ["VISUAL", "EDITOR"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|editor| !editor.is_empty()));
    let editor = editor.ok_or("set $EDITOR, or use `show --value` and `--set-value FILE`")?;
    // Readable by its owner only, and gone afterwards.
    let mut file = tempfile::Builder::new().suffix(".json").tempfile()?;
    file.write_all(value)?;
    file.flush()?;
    let mut words = editor.split_whitespace();
    let program = words.next().unwrap_or_default();
    let status = Command::new(program).args(words).arg(file.path()).status();
    let status = status.map_err(|error| format!("starting the editor {editor}: {error}"))?;
    if !status.success() {
        return Err(format!("the editor ended with {status}; nothing was replayed").into());
    }
    let edited = std::fs::read(file.path())?;
    if edited == value {
        return Err("the value was not changed; nothing was replayed".into());
    }
    Ok(edited)
}
