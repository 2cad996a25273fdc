//! Lists that wait to be filled.

use super::*;

const MS: Duration = Duration::from_millis(1);

fn container(config: Config) -> Container {
    Container::new(Config {
        fill_wait: 100 * MS,
        run_records: 10,
        ..config
    })
}

fn records(effects: &[Effect<Offset>]) -> Option<usize> {
    run(effects).map(|(_, _, records)| records.len())
}

#[test]
fn records_wait_for_company_from_when_the_first_of_them_came() {
    let mut container = container(Config::default());
    assert_eq!(records(&container.polls(0..2)), None);
    container.now += 60 * MS;
    assert_eq!(records(&container.polls(2..5)), None);
    assert_eq!(
        container.engine.deadline(),
        Some(Timestamp::from_millis(1_100))
    );
    assert_eq!(records(&container.passes(39 * MS)), None);
    assert_eq!(records(&container.passes(MS)), Some(5));
}

#[test]
fn a_full_list_does_not_wait_and_what_is_over_begins_the_next() {
    let mut container = container(Config::default());
    container.polls(0..7);
    let (first, _, list) = run(&container.polls(7..15)).expect("a full list");
    assert_eq!(list.len(), 10);
    let end = End::Complete;
    let effects = container.on(Event::Finished { run: first, end });
    assert_eq!(records(&effects), None, "five wait");
    assert_eq!(records(&container.passes(100 * MS)), Some(5));
}

#[test]
fn records_of_a_full_queue_do_not_wait() {
    let mut container = container(Config {
        queued_records: 4,
        ..Config::default()
    });
    assert_eq!(records(&container.polls(0..3)), None);
    assert_eq!(records(&container.polls(3..4)), Some(4));
}

#[test]
fn a_record_that_is_retried_waits_for_its_policy_alone() {
    let mut container = container(Config {
        retry: Policy::fixed(5 * MS),
        ..Config::default()
    });
    container.polls(0..3);
    let (first, _, list) = run(&container.passes(100 * MS)).expect("a list");
    container.fails(first, Class::Transient, list);
    assert_eq!(records(&container.passes(5 * MS)), Some(3));
}

#[test]
fn a_pause_holds_a_list_back_that_is_due() {
    let mut container = container(Config::default());
    container.polls(0..3);
    container.on(Event::Pause);
    assert_eq!(records(&container.passes(200 * MS)), None);
    assert_eq!(records(&container.on(Event::Resume)), Some(3));
}
