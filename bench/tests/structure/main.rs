//! The crate table (ARCHITECTURE.md), kept by a test instead of by reviews.
//!
//! An arrow that points the wrong way costs nothing on the day it is drawn: a clock in the core, a
//! database in the framework. It costs when the simulation stops being repeatable, or when a user
//! who refuses that dependency gets it anyway. So the table is data ([`table`]), what the crates
//! really reach comes from cargo ([`graph`]), what the core's sources name is read ([`source`]),
//! and every difference is a sentence with the path that causes it.

mod documents;
mod graph;
mod source;
mod table;

use graph::Graph;
use table::CRATES;

#[test]
fn every_crate_keeps_its_column_of_the_crate_table() {
    let graph = Graph::of_this_workspace().expect("cargo describes the workspace");
    let mut broken = table::check(CRATES, &graph);
    for row in CRATES {
        let src = graph
            .folder(row.name)
            .expect("a row's crate is in the workspace")
            .join("src");
        broken.extend(source::check(row, &src).expect("sources are readable"));
    }
    assert!(
        broken.is_empty(),
        "the crate table is broken:\n- {}",
        broken.join("\n- ")
    );
}

#[test]
fn every_test_that_a_document_names_is_there() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let missing =
        documents::check(&root.join("docs/mistakes.md")).expect("the document is readable");
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}
