//! Groups whose members are told what to read (KIP-848).

use kafka_protocol::messages::TopicName;
use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;

use super::super::*;
use super::world::*;

const SESSION_MS: u64 = 45_000;

/// A member as a test plays it: what it was told last.
pub(super) struct Member {
    pub(super) id: StrBytes,
    pub(super) instance: Option<&'static str>,
    pub(super) epoch: i32,
    pub(super) owns: Vec<i32>,
}

pub(super) fn member(id: &str) -> Member {
    Member {
        id: text(id),
        instance: None,
        epoch: 0,
        owns: Vec::new(),
    }
}

impl Member {
    pub(super) fn request(&self) -> ConsumerGroupHeartbeatRequest {
        ConsumerGroupHeartbeatRequest::default()
            .with_member_id(self.id.clone())
            .with_instance_id(self.instance.map(text))
            .with_member_epoch(self.epoch)
            .with_rebalance_timeout_ms(-1)
            .with_subscribed_topic_names(None)
            .with_topic_partitions(None)
    }

    pub(super) fn joining(&self) -> ConsumerGroupHeartbeatRequest {
        self.request()
            .with_member_epoch(0)
            .with_rebalance_timeout_ms(REBALANCE_MS as i32)
            .with_subscribed_topic_names(Some(vec![TopicName(text("orders"))]))
            .with_topic_partitions(Some(Vec::new()))
    }

    /// What a client says that has done all it was told.
    fn owning(&self, partitions: &[i32]) -> ConsumerGroupHeartbeatRequest {
        let held = TopicPartitions::default()
            .with_topic_id(topic_id("orders"))
            .with_partitions(partitions.to_vec());
        self.request().with_topic_partitions(Some(vec![held]))
    }

    fn hear(&mut self, response: &ConsumerGroupHeartbeatResponse) {
        assert_eq!(response.error_code, 0, "{:?}", response.error_message);
        self.epoch = response.member_epoch;
        if let Some(assignment) = &response.assignment {
            let topics = assignment.topic_partitions.iter();
            self.owns = topics.flat_map(|topic| topic.partitions.clone()).collect();
        }
    }

    pub(super) fn join(&mut self, world: &mut World) {
        let response = world.beat(self.joining());
        self.hear(&response);
    }

    pub(super) fn beat(&mut self, world: &mut World) {
        let response = world.beat(self.request());
        self.hear(&response);
    }

    /// Acknowledges what it was given, as clients do at once.
    pub(super) fn confirm(&mut self, world: &mut World) {
        let owns = self.owns.clone();
        let response = world.beat(self.owning(&owns));
        self.hear(&response);
    }

    fn refused(&self, world: &mut World) -> ResponseError {
        refusal(&world.beat(self.request()))
    }
}

pub(super) fn refusal(response: &ConsumerGroupHeartbeatResponse) -> ResponseError {
    ResponseError::try_from_code(response.error_code).expect("refused")
}

/// Two members that share the topic's four partitions.
fn pair(world: &mut World) -> (Member, Member) {
    let (mut a, mut b) = (member("a"), member("b"));
    a.join(world);
    b.join(world);
    a.beat(world);
    a.confirm(world);
    b.beat(world);
    assert_eq!((a.owns.len(), b.owns.len()), (2, 2));
    (a, b)
}

fn state(world: &mut World) -> String {
    world.describe_consumers().group_state.to_string()
}

#[test]
fn a_first_member_is_given_everything_in_the_answer_to_its_join() {
    let mut world = World::new();
    let mut a = member("a");
    a.join(&mut world);
    assert_eq!((a.epoch, a.owns.as_slice()), (1, &[0, 1, 2, 3][..]));
    assert_eq!(state(&mut world), "Stable");
}

#[test]
fn a_partition_is_given_away_only_when_its_owner_has_given_it_up() {
    let mut world = World::new();
    let (mut a, mut b) = (member("a"), member("b"));
    a.join(&mut world);
    b.join(&mut world);
    assert_eq!((b.epoch, b.owns.len()), (2, 0), "everything is still a's");
    let before = a.epoch;
    a.beat(&mut world);
    assert_eq!((a.epoch, a.owns.len()), (before, 2), "told to give up two");
    b.beat(&mut world);
    assert!(b.owns.is_empty(), "a has not confirmed yet");
    assert_eq!(state(&mut world), "Reconciling");
    a.confirm(&mut world);
    assert_eq!(a.epoch, 2);
    b.beat(&mut world);
    assert_eq!(b.owns.len(), 2);
    assert_eq!(state(&mut world), "Stable");
}

#[test]
fn a_steady_heartbeat_is_answered_without_an_assignment_and_writes_nothing() {
    let mut world = World::new();
    let (a, _) = pair(&mut world);
    let written = world.log.len();
    let response = world.beat(a.request());
    assert_eq!((response.error_code, response.assignment), (0, None));
    assert_eq!(world.log.len(), written);
}

#[test]
fn the_partitions_of_a_member_that_leaves_go_to_the_others() {
    let mut world = World::new();
    let (mut a, mut b) = pair(&mut world);
    b.epoch = -1;
    assert_eq!(world.beat(b.request()).member_epoch, -1);
    a.beat(&mut world);
    assert_eq!(a.owns.len(), 4);
}

#[test]
fn a_silent_member_is_evicted_and_its_partitions_go_to_the_others() {
    let mut world = World::new();
    let (mut a, b) = pair(&mut world);
    for _ in 0..4 {
        world.pass(SESSION_MS / 4);
        a.beat(&mut world);
    }
    assert_eq!(b.refused(&mut world), ResponseError::UnknownMemberId);
    a.beat(&mut world);
    assert_eq!(a.owns.len(), 4);
}

#[test]
fn a_member_that_does_not_give_up_partitions_in_time_is_evicted() {
    let mut world = World::new();
    let (mut a, mut b) = (member("a"), member("b"));
    a.join(&mut world);
    b.join(&mut world);
    a.beat(&mut world);
    for _ in 0..4 {
        world.pass(REBALANCE_MS / 4);
        b.beat(&mut world);
        let _ = world.beat(a.request());
    }
    assert_eq!(a.refused(&mut world), ResponseError::UnknownMemberId);
    b.beat(&mut world);
    assert_eq!(b.owns.len(), 4);
}

#[test]
fn a_member_with_another_epoch_than_its_own_is_fenced() {
    let mut world = World::new();
    let (mut a, _) = pair(&mut world);
    a.epoch += 1;
    assert_eq!(a.refused(&mut world), ResponseError::FencedMemberEpoch);
    a.epoch -= 2;
    assert_eq!(a.refused(&mut world), ResponseError::FencedMemberEpoch);
}

#[test]
fn a_member_whose_answer_was_lost_is_given_it_again() {
    let mut world = World::new();
    let (mut a, mut b) = (member("a"), member("b"));
    a.join(&mut world);
    b.join(&mut world);
    a.beat(&mut world);
    let owns = a.owns.clone();
    let lost = world.beat(a.owning(&owns));
    assert_eq!(lost.member_epoch, a.epoch + 1);
    a.confirm(&mut world);
    assert_eq!(a.epoch, lost.member_epoch);
}

#[test]
fn a_join_that_is_repeated_does_not_make_a_second_member() {
    let mut world = World::new();
    let mut a = member("a");
    a.join(&mut world);
    let (epoch, owns) = (a.epoch, a.owns.clone());
    a.join(&mut world);
    assert_eq!((a.epoch, a.owns), (epoch, owns));
    assert_eq!(world.describe_consumers().members.len(), 1);
}

#[test]
fn a_static_member_that_returns_takes_over_what_it_had_without_a_new_epoch() {
    let mut world = World::new();
    let (mut a, mut b) = (member("a"), member("b"));
    b.instance = Some("i");
    b.join(&mut world);
    a.join(&mut world);
    b.beat(&mut world);
    b.confirm(&mut world);
    a.beat(&mut world);
    let (epoch, owns) = (b.epoch, b.owns.clone());

    let mut again = member("b2");
    again.instance = Some("i");
    let early = refusal(&world.beat(again.joining()));
    assert_eq!(early, ResponseError::UnreleasedInstanceId);
    b.epoch = -2;
    assert_eq!(world.beat(b.request()).member_epoch, -2);
    again.join(&mut world);
    assert_eq!((again.epoch, again.owns), (epoch, owns));
    b.epoch = epoch;
    assert_eq!(b.refused(&mut world), ResponseError::FencedInstanceId);
}

#[test]
fn a_static_member_that_stays_away_loses_its_place() {
    let mut world = World::new();
    let (mut a, mut b) = (member("a"), member("b"));
    b.instance = Some("i");
    a.join(&mut world);
    b.join(&mut world);
    a.beat(&mut world);
    a.confirm(&mut world);
    b.epoch = -2;
    let _ = world.beat(b.request());
    for _ in 0..4 {
        world.pass(SESSION_MS / 4);
        a.beat(&mut world);
    }
    a.beat(&mut world);
    assert_eq!(
        (world.describe_consumers().members.len(), a.owns.len()),
        (1, 4)
    );
}

#[test]
fn a_topic_that_grows_or_appears_is_assigned_with_the_next_heartbeat() {
    let mut world = World::new();
    let mut a = member("a");
    a.join(&mut world);
    world.have_topics(&[("orders", 6), ("other", 3)]);
    a.beat(&mut world);
    assert_eq!(a.owns.len(), 6);
    world.have_topics(&[]);
    a.beat(&mut world);
    assert!(a.owns.is_empty());
}

#[test]
fn a_regular_expression_is_the_topics_that_it_matches_now_and_later() {
    let mut world = World::new();
    world.have_topics(&[("orders-a", 1), ("orders-b", 1), ("my-orders-a", 1)]);
    let a = member("a");
    let joining = a.joining().with_subscribed_topic_names(None);
    let by = |regex| Some(text(regex));
    let wrong = world.beat(joining.clone().with_subscribed_topic_regex(by("orders-(")));
    assert_eq!(refusal(&wrong), ResponseError::InvalidRegularExpression);
    let told = world.beat(joining.with_subscribed_topic_regex(by("orders-.*")));
    let topics = |told: &ConsumerGroupHeartbeatResponse| {
        let assignment = told.assignment.clone().expect("an assignment");
        assignment.topic_partitions.len()
    };
    assert_eq!(topics(&told), 2, "the whole name must match");
    world.have_topics(&[("orders-a", 1), ("orders-b", 1), ("orders-c", 1)]);
    let mut request = a.request();
    request.member_epoch = told.member_epoch;
    assert_eq!(topics(&world.beat(request.clone())), 3);
    world.restart();
    world.have_topics(&[("orders-a", 1)]);
    let told = world.beat(request.with_member_epoch(told.member_epoch + 1));
    assert_eq!(refusal_or(&told), None);
}

fn refusal_or(response: &ConsumerGroupHeartbeatResponse) -> Option<ResponseError> {
    ResponseError::try_from_code(response.error_code)
}

#[test]
fn joins_that_say_too_little_or_nonsense_are_refused() {
    let mut world = World::new();
    let a = member("a");
    let invalid = ResponseError::InvalidRequest;
    let wrong = [
        (a.joining().with_rebalance_timeout_ms(-1), invalid),
        (a.joining().with_subscribed_topic_names(None), invalid),
        (a.joining().with_topic_partitions(None), invalid),
        (a.joining().with_member_id(text("")), invalid),
        (a.joining().with_instance_id(Some(text(""))), invalid),
        (a.joining().with_member_epoch(-2), invalid),
        (a.joining().with_member_epoch(-3), invalid),
        (
            a.joining().with_server_assignor(Some(text("sticky"))),
            ResponseError::UnsupportedAssignor,
        ),
        (
            a.joining().with_member_epoch(3),
            ResponseError::GroupIdNotFound,
        ),
    ];
    for (request, error) in wrong {
        assert_eq!(refusal(&world.beat(request)), error);
    }
    assert!(world.machine.groups.is_empty() && world.log.is_empty());
}

#[test]
fn a_member_of_the_consumer_protocol_is_none_of_the_classic_one() {
    let mut world = World::new();
    let mut a = member("a");
    a.join(&mut world);
    let unknown = Err(ResponseError::UnknownMemberId);
    assert_eq!(world.heartbeat(&a.id, a.epoch), unknown);
    let token = world.sync(&a.id, a.epoch, &[]);
    let synced = world.synced(token);
    assert_eq!(outcome(synced.error_code), unknown);
    assert_eq!(world.leave(&[(&a.id, None)]), [unknown]);
}

#[test]
fn an_empty_group_changes_its_protocol_and_keeps_its_offsets() {
    let mut world = World::new();
    let ids = world.stable(1);
    world.commit(&ids[0], 1, 42).unwrap();
    world.leave(&[(&ids[0], None)]);
    let mut a = member("a");
    a.join(&mut world);
    world.restart();
    assert_eq!(world.position().committed_offset, 42);
    assert_eq!(
        world.describe().error_code,
        ResponseError::GroupIdNotFound.code()
    );

    a.epoch = -1;
    let _ = world.beat(a.request());
    world.stable(1);
    world.restart();
    assert_eq!(world.state(), "Stable");
    assert_eq!(world.position().committed_offset, 42);
    let described = world.describe_consumers();
    assert_eq!(described.error_code, ResponseError::GroupIdNotFound.code());
}

#[test]
fn only_a_member_with_its_epoch_may_commit_and_read_positions() {
    let mut world = World::new();
    let (a, _) = pair(&mut world);
    let stranger = text("stranger");
    assert_eq!(world.commit_as(9, &a.id, a.epoch, 5, ""), Ok(()));
    assert_eq!(
        world.commit_as(9, &a.id, a.epoch - 1, 6, ""),
        Err(ResponseError::StaleMemberEpoch)
    );
    assert_eq!(
        world.commit_as(9, &stranger, a.epoch, 6, ""),
        Err(ResponseError::UnknownMemberId)
    );
    assert_eq!(
        world.commit_as(9, &text(""), -1, 6, ""),
        Err(ResponseError::UnknownMemberId),
        "an operator must not move a group that is at work"
    );
    assert_eq!(
        world.commit_as(8, &a.id, a.epoch, 6, ""),
        Err(ResponseError::UnsupportedVersion)
    );
    assert_eq!(world.position().committed_offset, 5, "anybody may look");
    let fetch = |epoch| {
        OffsetFetchRequestGroup::default()
            .with_member_id(Some(text("a")))
            .with_member_epoch(epoch)
            .with_topics(None)
    };
    assert_eq!(world.fetch_group(fetch(a.epoch)).error_code, 0);
    assert_eq!(
        world.fetch_group(fetch(a.epoch + 1)).error_code,
        ResponseError::StaleMemberEpoch.code()
    );
}

#[test]
fn a_restart_in_the_middle_of_a_rebalance_goes_on_where_it_was() {
    let mut world = World::new();
    let (mut a, mut b) = (member("a"), member("b"));
    a.join(&mut world);
    b.join(&mut world);
    a.beat(&mut world);
    world.restart();
    b.beat(&mut world);
    assert!(b.owns.is_empty(), "a may still read them");
    a.confirm(&mut world);
    b.beat(&mut world);
    assert_eq!((a.owns.len(), b.owns.len()), (2, 2));
    world.pass(SESSION_MS - 1);
    assert_eq!(world.describe_consumers().members.len(), 2);
    world.pass(1);
    assert_eq!(world.describe_consumers().members.len(), 0);
}

#[test]
fn a_described_group_shows_epochs_members_and_what_they_shall_have() {
    let mut world = World::new();
    let (mut a, mut b) = (member("a"), member("b"));
    a.join(&mut world);
    b.join(&mut world);
    let described = world.describe_consumers();
    assert_eq!(
        (
            described.group_epoch,
            described.assignment_epoch,
            &*described.assignor_name
        ),
        (2, 2, "uniform")
    );
    let first = &described.members[0];
    assert_eq!((&*first.member_id, first.member_epoch), ("a", 1));
    assert_eq!(first.assignment.topic_partitions[0].partitions.len(), 4);
    assert_eq!(
        &*first.assignment.topic_partitions[0].topic_name.0,
        "orders"
    );
    assert_eq!(
        first.target_assignment.topic_partitions[0].partitions.len(),
        2
    );
    let token = world.ask(Request::List);
    let listed = world.listed(token);
    assert_eq!(
        (&*listed[0].group_type, &*listed[0].group_state),
        ("consumer", "Reconciling")
    );
}

#[test]
fn an_empty_consumer_group_can_be_deleted_and_leaves_nothing() {
    let mut world = World::new();
    let mut a = member("a");
    a.join(&mut world);
    assert_eq!(world.commit_as(9, &a.id, a.epoch, 5, ""), Ok(()));
    assert_eq!(world.delete(), Err(ResponseError::NonEmptyGroup));
    assert_eq!(
        world.delete_offset(),
        Err(ResponseError::GroupSubscribedToTopic)
    );
    a.epoch = -1;
    let _ = world.beat(a.request());
    assert_eq!(world.delete(), Ok(()));
    world.restart();
    assert!(world.machine.groups.is_empty());
}

#[test]
fn members_choose_the_assignor_by_majority() {
    let mut world = World::new();
    for name in ["a", "b", "c"] {
        let range = (name != "c").then(|| text("range"));
        let joining = member(name).joining().with_server_assignor(range);
        assert_eq!(world.beat(joining).error_code, 0);
    }
    assert_eq!(&*world.describe_consumers().assignor_name, "range");
}

#[test]
fn a_group_with_times_of_its_own_tells_them_and_waits_for_as_long() {
    let mut world = World::new();
    world.ask(Request::SetTimeouts {
        group: group().0,
        timeouts: Some(Timeouts {
            session_ms: 60_000,
            heartbeat_interval_ms: 6_000,
        }),
    });
    let mut a = member("a");
    let told = world.beat(a.joining());
    assert_eq!(told.heartbeat_interval_ms, 6_000);
    a.hear(&told);
    world.pass(59_999);
    a.beat(&mut world);
    world.pass(60_001);
    assert_eq!(a.refused(&mut world), ResponseError::UnknownMemberId);
}
