use super::*;

fn acks(mode: AckMode) -> Acks {
    Acks::new(mode, Waker::default(), Arc::default()).expect("a manual mode")
}

fn on_desk(acks: &mut Acks) -> Vec<Event<crate::record::Record>> {
    let mut events = Vec::new();
    while let Ok(run) = acks.runs_on_desk.try_recv() {
        events.extend(acks.events(&run));
    }
    events
}

fn acked(events: &[Event<crate::record::Record>]) -> Vec<Range<usize>> {
    let places = events.iter().flat_map(|event| match event {
        Event::Acknowledged { places, .. } => places.clone(),
        _ => Vec::new(),
    });
    places.collect()
}

#[test]
fn a_burst_of_acknowledgements_is_one_message() {
    let mut acks = acks(AckMode::Manual);
    let run = acks.open(RunId(1), 4);
    (0..4).for_each(|place| assert!(run.take(place)));
    run.handled(0..4);
    for place in [3, 0, 1] {
        assert!(run.acknowledge(place));
    }
    let events = on_desk(&mut acks);
    assert_eq!((events.len(), acked(&events)), (1, vec![0..2, 3..4]));
    assert!(on_desk(&mut acks).is_empty());
}

#[test]
fn it_counts_once_and_not_after_the_run_was_closed() {
    let mut acks = acks(AckMode::ManualImmediate);
    let run = acks.open(RunId(1), 2);
    assert!(run.acknowledge(0) && !run.acknowledge(0));
    run.close(0);
    assert!(!run.acknowledge(1) && run.is_stale(1));
    assert_eq!(acked(&on_desk(&mut acks)), [0..1]);
}

#[test]
fn an_acknowledgement_inside_its_handler_waits_for_the_report_unless_it_is_immediate() {
    let mut batched = acks(AckMode::Manual);
    let run = batched.open(RunId(1), 1);
    run.take(0);
    run.acknowledge(0);
    assert!(on_desk(&mut batched).is_empty());
    run.report();
    assert_eq!(acked(&on_desk(&mut batched)), [0..1]);
    let mut immediate = acks(AckMode::ManualImmediate);
    let run = immediate.open(RunId(2), 1);
    run.acknowledge(0);
    assert_eq!(acked(&on_desk(&mut immediate)), [0..1]);
}

#[test]
fn what_a_run_acknowledges_while_it_works_is_reported_when_it_waits_and_then_at_once() {
    let mut acks = acks(AckMode::ManualImmediate);
    let run = acks.open(RunId(1), 3);
    (0..3).for_each(|place| assert!(run.take(place)));
    run.goes_on();
    run.acknowledge(0);
    run.acknowledge(1);
    assert!(on_desk(&mut acks).is_empty());
    run.rests();
    run.report();
    assert_eq!(acked(&on_desk(&mut acks)), [0..2]);
    run.acknowledge(2);
    assert_eq!(acked(&on_desk(&mut acks)), [2..3]);
}

#[test]
fn a_dropped_acknowledgement_is_told_when_its_handler_has_returned_ok() {
    let mut acks = acks(AckMode::Manual);
    let run = acks.open(RunId(1), 2);
    run.take(0);
    run.dropped(0);
    run.report();
    assert!(on_desk(&mut acks).is_empty());
    run.handled(0..1);
    run.report();
    let events = on_desk(&mut acks);
    let [Event::Nacked { place: 0, nack, .. }] = events[..] else {
        panic!("{events:?}");
    };
    assert_eq!(nack, Nack::Dropped);
}

#[test]
fn a_refusal_keeps_its_delay() {
    let mut acks = acks(AckMode::Manual);
    let run = acks.open(RunId(1), 1);
    run.take(0);
    run.handled(0..1);
    let delay = Duration::from_secs(3);
    assert!(run.nack(0, delay));
    let events = on_desk(&mut acks);
    assert!(
        matches!(events[..], [Event::Nacked { nack: Nack::After(found), .. }] if found == delay)
    );
}

#[test]
fn a_record_whose_handler_was_not_reached_is_settled_by_the_verdict() {
    let mut acks = acks(AckMode::Manual);
    let run = acks.open(RunId(1), 1);
    run.handled(0..1);
    run.report();
    assert_eq!(acked(&on_desk(&mut acks)), [0..1]);
}

#[tokio::test]
async fn a_caller_is_answered_by_its_number_and_told_when_it_is_too_late() {
    let mut acks = acks(AckMode::ManualImmediate);
    let run = acks.open(RunId(1), 2);
    let answered = run.commit(0);
    let events = on_desk(&mut acks);
    let [Event::Acknowledged { waiters, .. }] = &events[..] else {
        panic!("{events:?}");
    };
    acks.answer(waiters[0].1, true);
    assert_eq!(answered.await, Ok(true));
    run.close(0);
    assert!(run.commit(1).await.is_err());
}
