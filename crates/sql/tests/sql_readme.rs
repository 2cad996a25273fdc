//! The README's handler is the example's, so that it compiles.

#[test]
fn the_handler_in_the_readme_is_the_one_in_the_example() {
    let readme = include_str!("../../../README.md");
    let example = include_str!("../examples/reserve_stock.rs");
    let lines: Vec<&str> = readme
        .lines()
        .skip_while(|line| *line != "```rust")
        .skip(1)
        .take_while(|line| *line != "```")
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    assert!(lines.len() >= 20, "the README shows a handler");
    for line in lines {
        let found = example.lines().any(|there| there.trim() == line);
        assert!(found, "not in examples/reserve_stock.rs: {line}");
    }
}
