//! What commits tell of what is settled beyond their positions.

use super::*;
use crate::commit::AckMode;
use crate::metadata::{Reference, refer_up_to, snapshot};

/// Room for some ten gaps.
const ROOM: usize = 60;
const RECORDS: i64 = 200;

/// A container whose records are acknowledged by the test, from this position on.
fn container(snapshots: bool, position: i64, metadata: &str, found: Option<Vec<u8>>) -> Container {
    let config = Config {
        commit: AckMode::ManualImmediate,
        commit_gap: Duration::ZERO,
        metadata_bytes: ROOM,
        snapshots,
        ..Config::default()
    };
    let mut engine = Engine::new(config);
    let assigned = Assigned {
        partition: P,
        position: Some(CommitOffset(position)),
        metadata: metadata.to_owned(),
        snapshot: found,
    };
    let now = Timestamp::from_millis(1_000);
    engine.on_event(now, Event::Assigned(vec![assigned]));
    Container { engine, now }
}

impl Container {
    /// Handles everything, and acknowledges nothing.
    fn opens(&mut self, offsets: std::ops::Range<i64>) -> RunId {
        let (run, _, records) = run(&self.polls(offsets)).expect("a run");
        self.on(Event::Handled { run, records });
        let end = End::Complete;
        self.on(Event::Finished { run, end });
        run
    }

    fn acks(&mut self, run: RunId, places: impl Iterator<Item = usize>) -> Vec<Effect<Offset>> {
        let places = places.map(|place| place..place + 1).collect();
        let waiters = Vec::new();
        self.on(Event::Acknowledged {
            run,
            places,
            waiters,
        })
    }

    fn answers(&mut self, commit: CommitId, result: Result<(), String>) -> Vec<Effect<Offset>> {
        self.on(Event::CommitDone { commit, result })
    }
}

fn commit(effects: &[Effect<Offset>]) -> (CommitId, Position) {
    let found = effects.iter().find_map(|effect| match effect {
        Effect::Commit { commit, positions } => Some((*commit, positions[0].clone())),
        _ => None,
    });
    found.expect("a commit")
}

/// The snapshot that a commit wants written.
fn written(position: &Position) -> (Reference, Vec<u8>) {
    let Snapshot::Write { slot, bytes } = &position.snapshot else {
        panic!("no snapshot: {position:?}");
    };
    let reference = Reference {
        slot: *slot,
        checksum: snapshot::checksum_of(bytes),
        place: vec![7],
    };
    (reference, bytes.clone())
}

/// Every other record, but for the first.
fn odd() -> impl Iterator<Item = usize> {
    (1..RECORDS as usize).step_by(2)
}

/// What a container handles that takes over.
fn repeated(position: i64, metadata: &str, found: Option<Vec<u8>>) -> Vec<i64> {
    let mut container = container(true, position, metadata, found);
    let effects = container.polls(position..RECORDS);
    let (_, _, records) = run(&effects).expect("a run");
    records.into_iter().map(|record| record.0).collect()
}

#[test]
fn what_has_room_needs_no_snapshot() {
    let mut container = container(true, 0, "", None);
    let run = container.opens(0..RECORDS);
    let (_, position) = commit(&container.acks(run, 1..4));
    assert_eq!(position.snapshot, Snapshot::Keep);
}

#[test]
fn without_snapshots_the_earliest_gaps_are_told() {
    let mut container = container(false, 0, "", None);
    let run = container.opens(0..RECORDS);
    let (_, position) = commit(&container.acks(run, odd()));
    assert_eq!(position.snapshot, Snapshot::Keep);
    let repeated = repeated(0, &position.metadata, None);
    assert!(repeated.len() > 150 && !repeated.contains(&1));
}

#[test]
fn with_a_snapshot_the_next_owner_repeats_exactly_what_is_unsettled() {
    let mut container = container(true, 0, "", None);
    let run = container.opens(0..RECORDS);
    let (id, position) = commit(&container.acks(run, odd()));
    let (reference, bytes) = written(&position);
    let (text, whole) = refer_up_to(CommitOffset(0), &reference, [].into_iter(), ROOM);
    assert!(whole);
    let unsettled: Vec<_> = (0..RECORDS).step_by(2).collect();
    assert_eq!(repeated(0, &text, Some(bytes)), unsettled);

    let stored = Event::Stored {
        commit: id,
        partition: P,
        place: vec![7],
    };
    container.on(stored);
    container.answers(id, Ok(()));
    let (_, position) = commit(&container.acks(run, [0, 100].into_iter()));
    assert_eq!(
        (position.offset.0, &position.snapshot),
        (2, &Snapshot::Keep)
    );
    let metadata = crate::metadata::decode(position.offset, &position.metadata);
    let crate::metadata::Metadata::Referring(found, since) = metadata else {
        panic!("{metadata:?}");
    };
    assert_eq!((found.place, since.len()), (vec![7], 1));
}

#[test]
fn a_snapshot_that_is_not_stored_is_not_referred_to() {
    let mut container = container(true, 0, "", None);
    let run = container.opens(0..RECORDS);
    let (id, position) = commit(&container.acks(run, odd()));
    let (first, _) = written(&position);
    container.answers(id, Ok(()));
    let (_, position) = commit(&container.acks(run, [0].into_iter()));
    let (second, _) = written(&position);
    assert_eq!(first.slot, second.slot, "the slot is still free");
}

#[test]
fn the_snapshot_that_is_referred_to_stays_while_the_next_is_written() {
    let mut container = container(true, 0, "", None);
    let run = container.opens(0..RECORDS);
    let (id, position) = commit(&container.acks(run, (1..100).step_by(2)));
    let (first, _) = written(&position);
    let place = vec![7];
    container.on(Event::Stored {
        commit: id,
        partition: P,
        place,
    });
    container.answers(id, Ok(()));
    let (_, position) = commit(&container.acks(run, (101..200).step_by(2)));
    let (second, _) = written(&position);
    assert_ne!(first.slot, second.slot);
}

#[test]
fn a_snapshot_is_not_overwritten_while_a_commit_without_an_answer_may_refer_to_it() {
    let mut container = container(true, 0, "", None);
    let run = container.opens(0..RECORDS);
    let (id, position) = commit(&container.acks(run, (1..60).step_by(2)));
    let (first, _) = written(&position);
    let stored = |commit| Event::Stored {
        commit,
        partition: P,
        place: vec![7],
    };
    container.on(stored(id));
    container.answers(id, Ok(()));
    let (id, position) = commit(&container.acks(run, (61..120).step_by(2)));
    assert_ne!(written(&position).0.slot, first.slot);
    container.on(stored(id));
    // The broker has stored it, or not.
    container.answers(id, Err("no answer".into()));
    container.acks(run, (121..180).step_by(2));
    let (id, position) = commit(&container.passes(Duration::from_secs(2)));
    assert_eq!(position.snapshot, Snapshot::Keep, "both may be referred to");
    container.answers(id, Ok(()));
    let (_, position) = commit(&container.acks(run, [199].into_iter()));
    assert_ne!(
        written(&position).0.slot,
        first.slot,
        "the first one counts"
    );
}

#[test]
fn a_snapshot_is_removed_when_the_metadata_has_room_again() {
    let mut container = container(true, 0, "", None);
    let run = container.opens(0..RECORDS);
    let (id, _) = commit(&container.acks(run, odd()));
    let place = vec![7];
    container.on(Event::Stored {
        commit: id,
        partition: P,
        place,
    });
    container.answers(id, Ok(()));
    let (id, position) = commit(&container.acks(run, (0..RECORDS as usize).step_by(2)));
    assert_eq!(
        (position.offset.0, position.snapshot),
        (RECORDS, Snapshot::Remove)
    );
    container.answers(id, Err("away".into()));
    let (_, position) = commit(&container.passes(Duration::from_secs(2)));
    assert_eq!(position.snapshot, Snapshot::Remove, "until it is done");
}

#[test]
fn a_snapshot_that_is_gone_costs_repetition_and_nothing_else() {
    let mut first = container(true, 0, "", None);
    let run = first.opens(0..RECORDS);
    let (_, position) = commit(&first.acks(run, odd()));
    let (reference, mut bytes) = written(&position);
    let since = crate::offset::Span::of([3].into_iter());
    let (text, _) = refer_up_to(CommitOffset(0), &reference, since.into_iter(), ROOM);
    let all_but_one: Vec<_> = (0..RECORDS).filter(|offset| *offset != 3).collect();
    assert_eq!(repeated(0, &text, None), all_but_one);
    bytes[9] ^= 1;
    assert_eq!(repeated(0, &text, Some(bytes)), all_but_one);
}

#[test]
fn foreign_metadata_is_carried_on_with_every_position() {
    let mut container = container(true, 0, "connect-worker-1", None);
    let run = container.opens(0..RECORDS);
    let (id, position) = commit(&container.acks(run, odd()));
    assert_eq!(position.metadata, "connect-worker-1");
    container.answers(id, Ok(()));
    let (_, position) = commit(&container.acks(run, [0].into_iter()));
    assert_eq!(
        (position.offset.0, position.metadata.as_str()),
        (2, "connect-worker-1")
    );
}

#[test]
fn metadata_that_the_broker_refuses_is_sent_again_with_half_of_it() {
    let mut container = container(false, 0, "", None);
    let run = container.opens(0..RECORDS);
    let (id, position) = commit(&container.acks(run, odd()));
    assert!(position.metadata.len() > ROOM / 2);
    container.on(Event::MetadataRefused);
    container.answers(id, Err("too large".into()));
    let (_, position) = commit(&container.passes(Duration::from_secs(2)));
    assert_eq!(position.metadata, "", "too little to be worth it");
}
