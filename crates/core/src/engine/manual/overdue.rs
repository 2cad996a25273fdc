//! Records that wait for their acknowledgement for too long: health says so.

use super::super::Record;
use super::super::effect::Effect;
use super::super::machine::Engine;
use crate::Timestamp;

impl<R: Record> Engine<R> {
    /// Finds a record that has been open for longer than it should.
    pub(in crate::engine) fn look_for_unacknowledged(&mut self, now: Timestamp) {
        let manual = &mut self.manual;
        let gone = manual
            .blamed
            .is_some_and(|run| !manual.runs.contains_key(&run));
        if !gone && manual.look_at.is_none_or(|at| now < at) {
            return;
        }
        (manual.blamed, manual.problem, manual.look_at) = (None, None, None);
        let waits = manual.runs.iter().filter_map(|(run, open)| {
            let (since, offset) = open.waits()?;
            Some((since, offset, *run, open.partition))
        });
        let Some((since, offset, run, partition)) = waits.min_by_key(|found| found.0) else {
            return;
        };
        let limit = self.config.unacknowledged_limit;
        if now < since + limit {
            manual.look_at = Some(since + limit);
            return;
        }
        manual.blamed = Some(run);
        let seconds = limit.as_secs_f32();
        manual.problem = Some(format!(
            "a record waits for its acknowledgement for more than {seconds} s; have its handler acknowledge or refuse it, or raise `unacknowledged_limit`"
        ));
        self.effects.push_back(Effect::Unacknowledged {
            partition,
            offset,
            since,
        });
    }
}
