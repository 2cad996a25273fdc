//! Settings of the group coordinator, with Kafka's names and, where one node wants another value, the reason.

/// Settings of the group coordinator.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// `group.initial.rebalance.delay.ms`: how long an empty group waits for more members before its first generation.
    pub(crate) initial_rebalance_delay_ms: u64,
}
impl Default for Config {
    fn default() -> Self {
        Self {
            initial_rebalance_delay_ms: 100,
        }
    }
}
