//! When an agent reports next. Each has its own phase within the interval, by its id, so that
//! reports stay spread out whatever made the agents connect at the same moment.

use std::time::Duration;

use haidang_proto::model::agency::AgentId;

/// Time until the agent's next report: half an interval to one and a half, so that the phase is
/// reached with the second report and small deviations never lead to an extra one.
pub(super) fn next_report_in(agent: AgentId, interval: Duration, mono: Duration) -> Duration {
    let interval_ms = interval.as_millis().max(1);
    // Ids are random (UUID version 4), so their remainder is as good as a hash.
    let phase = agent.0.as_u128() % interval_ms;
    let position = mono.as_millis() % interval_ms;
    let mut wait = (phase + interval_ms - position) % interval_ms;
    if wait < interval_ms / 2 {
        wait += interval_ms;
    }
    Duration::from_millis(u64::try_from(wait).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    proptest! {
        #[test]
        fn an_agent_settles_on_its_own_phase(id: u128, start_ms in 0_u64..1 << 40) {
            let agent = AgentId(Uuid::from_u128(id));
            let interval = Duration::from_secs(10);
            let mut at = Duration::from_millis(start_ms);
            let first = next_report_in(agent, interval, at);
            prop_assert!(first >= interval / 2 && first < interval * 3 / 2);
            at += first;
            for late_ms in [0, 7, 100, 3] {
                let sent = at + Duration::from_millis(late_ms);
                let wait = next_report_in(agent, interval, sent);
                at = sent + wait;
                prop_assert_eq!(at.as_millis() % 10_000, id % 10_000);
                prop_assert!(wait <= interval && wait >= interval - Duration::from_millis(100));
            }
        }
    }
}
