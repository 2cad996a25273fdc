//! A group whose members change from the classic to the consumer protocol, or back, one by one.

use std::collections::BTreeSet;

use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;

use super::super::*;
use super::consumers::{Member, member, refusal};
use super::world::*;
use crate::group::record::{decode_assignment, encode_assignment};

/// A classic consumer as a test plays it: what it was told last.
struct Old {
    id: StrBytes,
    instance: Option<&'static str>,
    generation: i32,
    owns: Vec<i32>,
    /// It gives everything up before it joins.
    eager: bool,
}

impl Old {
    fn new(world: &mut World) -> Self {
        Self {
            id: world.id(),
            instance: None,
            generation: 0,
            owns: Vec::new(),
            eager: false,
        }
    }

    /// `ConsumerProtocolSubscription` 1 with what it owns.
    fn metadata(&self) -> Bytes {
        let mut bytes = subscription("orders").to_vec();
        bytes.truncate(bytes.len() - 4);
        let owned: &[i32] = if self.eager { &[] } else { &self.owns };
        bytes.extend(u32::from(!owned.is_empty()).to_be_bytes());
        if !owned.is_empty() {
            bytes.extend(b"\0\x06orders");
            bytes.extend((owned.len() as u32).to_be_bytes());
            owned.iter().for_each(|p| bytes.extend(p.to_be_bytes()));
        }
        bytes.into()
    }

    fn begin_join(&self, world: &mut World) -> Token {
        let mut joining = joining().id(&self.id);
        joining.request.group_instance_id = self.instance.map(text);
        joining.request.protocols = vec![
            JoinGroupRequestProtocol::default()
                .with_name(text("range"))
                .with_metadata(self.metadata()),
        ];
        world.join(joining)
    }

    fn joined(&mut self, world: &mut World, token: Token) -> Result<(), ResponseError> {
        let response = world.joined(token);
        outcome(response.error_code)?;
        self.id = response.member_id;
        self.generation = response.generation_id;
        Ok(())
    }

    fn sync(&mut self, world: &mut World) -> Result<(), ResponseError> {
        let token = world.sync(&self.id, self.generation, &[]);
        self.synced(world, token)
    }

    fn synced(&mut self, world: &mut World, token: Token) -> Result<(), ResponseError> {
        let response = world.synced(token);
        outcome(response.error_code)?;
        let given = decode_assignment(&response.assignment).unwrap();
        self.owns = given.into_iter().flat_map(|(_, given)| given).collect();
        Ok(())
    }

    /// What a client does with a heartbeat: it joins again when it is told so.
    fn beat(&mut self, world: &mut World) {
        match world.heartbeat_as(&self.id, self.instance, self.generation) {
            Ok(()) => {}
            Err(ResponseError::RebalanceInProgress) => {
                let token = self.begin_join(world);
                self.joined(world, token).unwrap();
                match self.sync(world) {
                    Ok(()) | Err(ResponseError::RebalanceInProgress) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// A stable classic group of two, each with half of the topic.
fn classic_pair(world: &mut World) -> [Old; 2] {
    let mut pair = [Old::new(world), Old::new(world)];
    settle_classic(world, &mut pair);
    pair
}

fn settle_classic(world: &mut World, pair: &mut [Old; 2]) {
    let tokens = [0, 1].map(|n| pair[n].begin_join(world));
    world.pass(1_000);
    let mut leader = StrBytes::new();
    for (old, token) in pair.iter_mut().zip(tokens) {
        let response = world.joined(token);
        assert_eq!(response.error_code, 0);
        old.generation = response.generation_id;
        leader = response.leader;
    }
    let ids = [0, 1].map(|n| pair[n].id.clone());
    let given = |n: usize| {
        let half = vec![2 * n as i32, 2 * n as i32 + 1];
        SyncGroupRequestAssignment::default()
            .with_member_id(ids[n].clone())
            .with_assignment(encode_assignment(1, &vec![(text("orders"), half)]))
    };
    let syncs = [0, 1].map(|n| {
        let assignments = match pair[n].id == leader {
            true => vec![given(0), given(1)],
            false => Vec::new(),
        };
        let request = SyncGroupRequest::default()
            .with_group_id(group())
            .with_generation_id(pair[n].generation)
            .with_member_id(pair[n].id.clone())
            .with_assignments(assignments);
        world.ask(Request::Sync(request))
    });
    for (old, token) in pair.iter_mut().zip(syncs) {
        old.synced(world, token).unwrap();
    }
}

/// Lets everybody speak until everybody has what it shall have, and checks at each step that no
/// partition has two owners.
fn converge(world: &mut World, old: &mut [Old], new: &mut [Member]) {
    for _ in 0..12 {
        for one in old.iter_mut() {
            one.beat(world);
        }
        for one in new.iter_mut() {
            one.beat(world);
            one.confirm(world);
        }
        let all = old.iter().map(|one| &one.owns);
        let all: Vec<_> = all
            .chain(new.iter().map(|one| &one.owns))
            .flatten()
            .collect();
        assert_eq!(
            all.iter().collect::<BTreeSet<_>>().len(),
            all.len(),
            "{all:?}"
        );
    }
    let owned = old.iter().map(|one| one.owns.len());
    let owned: usize = owned.chain(new.iter().map(|one| one.owns.len())).sum();
    assert_eq!(owned, 4, "everything is read");
}

fn kind(world: &mut World) -> &'static str {
    match world.describe().error_code {
        0 => "classic",
        _ => "consumer",
    }
}

#[test]
fn a_service_changes_to_the_consumer_protocol_member_by_member() {
    for eager in [false, true] {
        let mut world = World::new();
        let [mut a, mut b] = classic_pair(&mut world);
        (a.eager, b.eager) = (eager, eager);
        assert_eq!(world.commit(&a.id, a.generation, 7), Ok(()));

        let mut c = member("c");
        c.join(&mut world);
        assert!(c.owns.is_empty(), "everything is still read by the others");
        assert_eq!(kind(&mut world), "consumer");
        assert_eq!(
            world.commit(&a.id, a.generation, 8),
            Ok(()),
            "what was read before may be committed"
        );
        assert_eq!(
            world.heartbeat(&a.id, a.generation),
            Err(ResponseError::RebalanceInProgress)
        );
        let mut new = [c];
        let mut old = [a, b];
        converge(&mut world, &mut old, &mut new);
        let [a, b] = old;

        assert_eq!(world.leave(&[(&a.id, None)]), [Ok(())]);
        let [c] = new;
        let mut d = member("d");
        d.join(&mut world);
        let (mut old, mut new) = ([b], [c, d]);
        converge(&mut world, &mut old, &mut new);
        let [b] = old;
        assert_eq!(world.leave(&[(&b.id, None)]), [Ok(())]);
        converge(&mut world, &mut [], &mut new);
        assert_eq!(kind(&mut world), "consumer");
        assert_eq!(world.position().committed_offset, 8);
    }
}

#[test]
fn a_service_changes_back_when_its_last_member_of_the_consumer_protocol_goes() {
    let mut world = World::new();
    let mut old = classic_pair(&mut world);
    let mut new = [member("c")];
    new[0].join(&mut world);
    converge(&mut world, &mut old, &mut new);
    let generation = old[0].generation;

    let [mut c] = new;
    c.epoch = -1;
    let _ = world.beat(c.request());
    assert_eq!(kind(&mut world), "classic");
    assert_eq!(world.state(), "PreparingRebalance");
    assert_eq!(
        world.heartbeat(&old[0].id, generation),
        Err(ResponseError::RebalanceInProgress),
        "its generation is known, so it need not give up what it has"
    );
    settle_classic(&mut world, &mut old);
    assert_eq!(world.state(), "Stable");
    assert!(old[0].generation > generation);
    assert_eq!(old[0].owns.len() + old[1].owns.len(), 4);
}

#[test]
fn a_classic_member_joins_a_group_of_the_consumer_protocol() {
    let mut world = World::new();
    let mut a = member("a");
    a.join(&mut world);
    let mut old = [Old::new(&mut world)];
    let token = old[0].begin_join(&mut world);
    old[0].joined(&mut world, token).unwrap();
    old[0].sync(&mut world).unwrap();
    assert!(old[0].owns.is_empty(), "everything is still a's");
    let mut new = [a];
    converge(&mut world, &mut old, &mut new);
    assert_eq!((old[0].owns.len(), new[0].owns.len()), (2, 2));

    let described = world.describe_consumers();
    let mut kinds: Vec<_> = described.members.iter().map(|m| m.member_type).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, [0, 1]);
}

#[test]
fn a_group_of_both_protocols_is_the_same_after_a_restart() {
    let mut world = World::new();
    let mut old = classic_pair(&mut world);
    let mut new = [member("c")];
    new[0].join(&mut world);
    converge(&mut world, &mut old, &mut new);
    let before = world.describe_consumers();
    world.restart();
    assert_eq!(world.describe_consumers(), before);
    let owned = [0, 1].map(|n| old[n].owns.clone());
    converge(&mut world, &mut old, &mut new);
    assert_eq!(owned, [0, 1].map(|n| old[n].owns.clone()), "nobody moved");
    let snapshot: Vec<_> = world.machine.live().collect();
    world.log = snapshot;
    world.restart();
    assert_eq!(world.describe_consumers(), before);
}

#[test]
fn a_group_that_was_turned_back_is_a_classic_one_after_a_restart() {
    let mut world = World::new();
    let mut old = classic_pair(&mut world);
    let mut new = [member("c")];
    new[0].join(&mut world);
    converge(&mut world, &mut old, &mut new);
    let [mut c] = new;
    c.epoch = -1;
    let _ = world.beat(c.request());
    world.restart();
    assert_eq!(kind(&mut world), "classic");
    assert_eq!(world.heartbeat(&old[0].id, old[0].generation), Ok(()));
    assert_eq!(world.heartbeat(&old[1].id, old[1].generation), Ok(()));
}

#[test]
fn a_classic_member_that_does_not_join_again_in_time_is_evicted() {
    let mut world = World::new();
    let [a, b] = classic_pair(&mut world);
    let mut c = member("c");
    c.join(&mut world);
    for _ in 0..(REBALANCE_MS / 5_000) {
        let told = world.heartbeat(&a.id, a.generation);
        assert_eq!(told, Err(ResponseError::RebalanceInProgress));
        c.beat(&mut world);
        world.pass(5_000);
    }
    let gone = Err(ResponseError::UnknownMemberId);
    assert_eq!(world.heartbeat(&a.id, a.generation), gone);
    assert_eq!(
        world.heartbeat(&b.id, b.generation),
        gone,
        "it was silent for its own session timeout"
    );
    converge(&mut world, &mut [], &mut [c]);
}

#[test]
fn a_join_that_waits_is_told_to_come_again_when_its_group_is_upgraded() {
    let mut world = World::new();
    let [mut a, b] = classic_pair(&mut world);
    let mut late = Old::new(&mut world);
    let waits = late.begin_join(&mut world);
    assert!(!world.answered(waits));
    let mut c = member("c");
    c.join(&mut world);
    let told = late.joined(&mut world, waits);
    assert_eq!(told, Err(ResponseError::RebalanceInProgress));
    let again = late.begin_join(&mut world);
    late.joined(&mut world, again).unwrap();
    late.sync(&mut world).unwrap();
    a.beat(&mut world);
    converge(&mut world, &mut [a, b, late], &mut [c]);
}

#[test]
fn a_static_member_changes_its_protocol_and_keeps_what_it_reads() {
    let mut world = World::new();
    let mut a = Old {
        id: StrBytes::new(),
        instance: Some("one"),
        generation: 0,
        owns: Vec::new(),
        eager: true,
    };
    let token = a.begin_join(&mut world);
    world.pass(1_000);
    a.joined(&mut world, token).unwrap();
    let given = SyncGroupRequestAssignment::default()
        .with_member_id(a.id.clone())
        .with_assignment(encode_assignment(
            1,
            &vec![(text("orders"), vec![0, 1, 2, 3])],
        ));
    let request = SyncGroupRequest::default()
        .with_group_id(group())
        .with_generation_id(a.generation)
        .with_member_id(a.id.clone())
        .with_assignments(vec![given]);
    let token = world.ask(Request::Sync(request));
    a.synced(&mut world, token).unwrap();

    let mut new = member("n");
    new.instance = Some("one");
    new.join(&mut world);
    assert_eq!(new.owns, [0, 1, 2, 3]);
    let old = world.heartbeat_as(&a.id, Some("one"), a.generation);
    assert_eq!(old, Err(ResponseError::FencedInstanceId));
}

#[test]
fn a_group_whose_assignor_keeps_data_of_its_own_is_not_upgraded_and_not_disturbed() {
    let mut world = World::new();
    // Its assignments are no `ConsumerProtocolAssignment`.
    let ids = world.stable(1);
    let written = world.log.len();
    let refused = refusal(&world.beat(member("a").joining()));
    assert_eq!(refused, ResponseError::GroupIdNotFound);
    assert_eq!(world.log.len(), written);
    assert_eq!(world.heartbeat(&ids[0], 1), Ok(()));
    assert_eq!(world.state(), "Stable");
}

#[test]
fn members_that_are_no_consumers_cannot_be_in_a_group_of_consumers() {
    let mut world = World::new();
    member("a").join(&mut world);
    let inconsistent = Err(ResponseError::InconsistentGroupProtocol);
    let mut foreign = joining();
    foreign.request.protocol_type = text("connect");
    let token = world.join(foreign);
    assert_eq!(outcome(world.joined(token).error_code), inconsistent);
    let mut malformed = joining();
    malformed.request.protocols[0].metadata = Bytes::from_static(b"\0\x01\x7f\xff\xff\xff");
    let token = world.join(malformed);
    assert_eq!(outcome(world.joined(token).error_code), inconsistent);
}

#[test]
fn what_a_generation_has_taken_from_a_member_is_nobodys_before_the_member_knows() {
    let mut world = World::new();
    let mut pair = classic_pair(&mut world);
    let tokens = [0, 1].map(|n| pair[n].begin_join(&mut world));
    let mut leader = StrBytes::new();
    for (old, token) in pair.iter_mut().zip(tokens) {
        let response = world.joined(token);
        old.generation = response.generation_id;
        leader = response.leader;
    }
    let [mut leads, mut follows] = pair;
    if leads.id != leader {
        std::mem::swap(&mut leads, &mut follows);
    }
    // The follower is to give up its second partition, which it reads until its sync is answered.
    let lost = follows.owns[1];
    let given = |old: &Old, indexes: &[i32]| {
        SyncGroupRequestAssignment::default()
            .with_member_id(old.id.clone())
            .with_assignment(encode_assignment(
                1,
                &vec![(text("orders"), indexes.to_vec())],
            ))
    };
    let request = SyncGroupRequest::default()
        .with_group_id(group())
        .with_generation_id(leads.generation)
        .with_member_id(leads.id.clone())
        .with_assignments(vec![
            given(&leads, &leads.owns),
            given(&follows, &follows.owns[..1]),
        ]);
    let token = world.ask(Request::Sync(request));
    leads.synced(&mut world, token).unwrap();

    let mut c = member("c");
    c.join(&mut world);
    for _ in 0..4 {
        leads.beat(&mut world);
        c.beat(&mut world);
        c.confirm(&mut world);
    }
    assert!(!c.owns.contains(&lost), "{:?}", c.owns);
    converge(&mut world, &mut [leads, follows], &mut [c]);
}

#[test]
fn a_classic_member_that_was_taken_for_gone_gives_up_what_it_reads_before_it_is_back() {
    let mut world = World::new();
    let mut c = member("c");
    c.join(&mut world);
    let mut gone = Old {
        id: text("gone"),
        instance: None,
        generation: 3,
        owns: vec![0],
        eager: false,
    };
    let token = gone.begin_join(&mut world);
    let refused = gone.joined(&mut world, token);
    assert_eq!(refused, Err(ResponseError::UnknownMemberId));
    gone.owns.clear();
    let token = gone.begin_join(&mut world);
    assert_eq!(gone.joined(&mut world, token), Ok(()));
}
