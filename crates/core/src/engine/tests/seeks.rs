//! What the broker holds after a seek, when the answer to a commit fails to come or comes too late.

use super::*;

fn commit(effects: &[Effect<Offset>]) -> Option<(CommitId, i64)> {
    effects.iter().find_map(|effect| match effect {
        Effect::Commit { commit, positions } => Some((*commit, positions.first()?.offset.0)),
        _ => None,
    })
}

impl Container {
    /// The broker has stored a commit, and says so.
    fn stored(&mut self, commit: CommitId) -> Vec<Effect<Offset>> {
        let result = Ok(());
        self.on(Event::CommitDone { commit, result })
    }

    fn seeks(&mut self, offset: i64) -> Vec<Effect<Offset>> {
        let to = CommitOffset(offset);
        self.on(Event::Seek { partition: P, to })
    }
}

/// A container that has handled and committed one record.
fn at_one() -> Container {
    let mut container = Container::new(Config {
        commit_gap: Duration::ZERO,
        ..Config::default()
    });
    let (run, ..) = run(&container.polls(0..1)).expect("a run");
    let end = End::Complete;
    let effects = container.on(Event::Finished { run, end });
    let (id, position) = commit(&effects).expect("a commit");
    assert_eq!(position, 1);
    container.stored(id);
    container
}

fn is_handed_over(effects: &[Effect<Offset>]) -> bool {
    has(effects, |effect| matches!(effect, Effect::RevokeDone(_)))
}

#[test]
fn a_position_that_is_reached_again_is_sent_again_when_a_commit_between_had_no_answer() {
    let mut container = at_one();
    let (late, position) = commit(&container.seeks(0)).expect("a commit");
    assert_eq!(position, 0);
    // The record is gone by now, as compaction does: nothing settles on the way to 1.
    let nothing = container.on(Event::Polled {
        partition: P,
        records: Vec::new(),
        next: CommitOffset(1),
    });
    assert_eq!(commit(&nothing), None, "one is in flight");
    container.passes(Config::default().commit_wait);
    let again = container.passes(Duration::from_secs(60));
    let (id, position) = commit(&again).expect("0 may be stored");
    assert_eq!(position, 1);
    assert_eq!(commit(&container.stored(late)), None);
    assert_eq!(commit(&container.stored(id)), None, "nothing is in doubt");
    assert_eq!(commit(&container.passes(Duration::from_secs(60))), None);
}

#[test]
fn a_seek_back_to_the_committed_position_is_sent_after_the_seek_that_it_undoes() {
    let mut container = at_one();
    let (there, position) = commit(&container.seeks(0)).expect("a commit");
    assert_eq!(position, 0);
    assert_eq!(commit(&container.seeks(1)), None, "one is in flight");
    let (back, position) = commit(&container.stored(there)).expect("0 is stored");
    assert_eq!(position, 1);
    assert_eq!(commit(&container.stored(back)), None);
}

#[test]
fn a_partition_is_not_handed_over_before_the_broker_has_stored_a_seek() {
    let mut container = Container::new(Config::default());
    let (there, _) = commit(&container.seeks(5)).expect("a commit");
    container.stored(there);
    container.now += Config::default().commit_gap;
    let (back, position) = commit(&container.seeks(0)).expect("a commit");
    assert_eq!(position, 0, "where it was assigned");
    assert!(!is_handed_over(&container.on(Event::Revoke(vec![P]))));
    assert!(is_handed_over(&container.stored(back)));
}
