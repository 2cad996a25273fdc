//! What decides: the engine, or an engine that somebody has tampered with.

use std::collections::VecDeque;

use ackwell_core::engine::{self, Config, Engine};
use ackwell_core::{Timestamp, engine::Event as CoreEvent};

pub(crate) type Event = CoreEvent<Record>;
pub(crate) type Effect = engine::Effect<Record>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub offset: i64,
    pub key: Option<u64>,
}

impl engine::Record for Record {
    fn offset(&self) -> i64 {
        self.offset
    }

    fn key_hash(&self) -> Option<u64> {
        self.key
    }

    fn size(&self) -> usize {
        10
    }
}

/// Changes events before the engine sees them, and effects before they are carried out; what
/// comes out first is carried out, what comes out second goes back into the engine.
#[derive(Clone, Copy)]
pub(crate) struct Tampering {
    pub event: fn(&mut Event),
    pub effect: fn(Effect) -> (Vec<Effect>, Vec<Event>),
    pub keeps_time: bool,
}

/// No tampering.
pub(crate) const HONEST: Tampering = Tampering {
    event: |_| {},
    effect: |effect| (vec![effect], vec![]),
    keeps_time: true,
};

pub(crate) struct Brain {
    engine: Engine<Record>,
    tampering: Tampering,
    ready: VecDeque<Effect>,
}

impl Brain {
    pub(crate) fn new(config: Config, tampering: Tampering) -> Self {
        Brain {
            engine: Engine::new(config),
            tampering,
            ready: VecDeque::new(),
        }
    }

    pub(crate) fn on_event(&mut self, now: Timestamp, mut event: Event) {
        (self.tampering.event)(&mut event);
        self.engine.on_event(now, event);
        while let Some(effect) = self.engine.poll_effect() {
            let (effects, events) = (self.tampering.effect)(effect);
            self.ready.extend(effects);
            for event in events {
                self.engine.on_event(now, event);
            }
        }
    }

    pub(crate) fn poll_effect(&mut self) -> Option<Effect> {
        self.ready.pop_front()
    }

    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        self.engine.deadline().filter(|_| self.tampering.keeps_time)
    }
}
