//! Finds the line on which a setting stands in a TOML file, for error messages.
//!
//! The parser keeps no positions once layers are merged. A wrong guess would only misplace a line
//! number, so this reads headers and keys and leaves multi-line values aside.

/// The line (from 1) on which `key` (dotted) is set, or its table opened.
pub(super) fn line_of(text: &str, key: &str) -> Option<usize> {
    let mut table = String::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        let name = if let Some(header) = line.strip_prefix('[') {
            let header = header.trim_start_matches('[');
            table = plain(header.split(']').next().unwrap_or(header));
            table.clone()
        } else if let Some((name, _)) = line.split_once('=') {
            if table.is_empty() {
                plain(name)
            } else {
                format!("{table}.{}", plain(name))
            }
        } else {
            continue;
        };
        if name == key {
            return Some(index + 1);
        }
    }
    None
}

/// A key without quotes and blanks: `kafka . "a.b"` is `kafka.a.b`.
fn plain(name: &str) -> String {
    name.chars()
        .filter(|c| !matches!(c, '"' | '\'' | ' ' | '\t'))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_found_under_its_table_or_by_its_dotted_name() {
        let text = "data = \"x\"\n\n[kafka]\nboot = 1 # = 2\n[kafka.extra]\n\"a.b\" = 1\nc.d = 2\n";
        assert_eq!(line_of(text, "data"), Some(1));
        assert_eq!(line_of(text, "kafka"), Some(3));
        assert_eq!(line_of(text, "kafka.boot"), Some(4));
        assert_eq!(line_of(text, "kafka.extra.a.b"), Some(6));
        assert_eq!(line_of(text, "kafka.extra.c.d"), Some(7));
        assert_eq!(line_of(text, "kafka.missing"), None);
    }
}
