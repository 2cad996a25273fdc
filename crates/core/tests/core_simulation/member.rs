//! The model of a shell: one container with its handlers.

use std::collections::{BTreeMap, VecDeque};

use ackwell_core::engine::RunId;

use crate::brain::{Brain, Record};

/// One life of one container. A restart gives a new one.
pub(crate) struct Member {
    pub brain: Brain,
    pub alive: bool,
    pub stopping: bool,
    pub owned: BTreeMap<u32, Fetching>,
    pub runs: BTreeMap<RunId, Run>,
    /// Partitions that the broker has given away without this container knowing.
    pub lost: Vec<u32>,
    /// What the container says is wrong with it.
    pub problem: Option<String>,
    /// The tick that is scheduled, to ignore those that are outdated.
    pub tick: u64,
}

/// How far an owned partition is fetched.
#[derive(Debug)]
pub(crate) struct Fetching {
    pub position: i64,
    pub paused: bool,
}

/// A worker with its run.
#[derive(Debug)]
pub(crate) struct Run {
    pub partition: u32,
    pub records: VecDeque<Record>,
    pub attempt: u32,
    pub halted: bool,
    pub in_work: bool,
    /// Settled and not reported.
    pub unreported: usize,
}

impl Member {
    pub(crate) fn new(brain: Brain) -> Self {
        Member {
            brain,
            alive: true,
            stopping: false,
            owned: BTreeMap::new(),
            runs: BTreeMap::new(),
            lost: Vec::new(),
            problem: None,
            tick: 0,
        }
    }
}
