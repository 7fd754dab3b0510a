//! How late our own timers fire: a starved prober sees bad networks everywhere.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Time between two looks. Short against any lag that matters, long against the cost of a wake.
const TICK: Duration = Duration::from_millis(20);

/// Runs `work` and tells by how much, at worst, a timer beside it fired late. tokio's timers are
/// rounded up to a millisecond, which is part of the figure.
pub(super) async fn measured<T>(work: impl Future<Output = T>) -> (T, Duration) {
    tokio::pin!(work);
    let mut lag_max = Duration::ZERO;
    loop {
        let due = Instant::now() + TICK;
        let ended = tokio::select! {
            biased;
            outcome = &mut work => Some(outcome),
            () = sleep_until(due) => None,
        };
        lag_max = lag_max.max(Instant::now().saturating_duration_since(due));
        if let Some(outcome) = ended {
            return (outcome, lag_max);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_blocked_runtime_lags() {
        let blocked = Duration::from_millis(80);
        let ((), lag) = measured(async {
            std::thread::sleep(blocked);
        })
        .await;
        assert!(lag >= blocked - TICK, "{lag:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiting_runtime_does_not_lag() {
        let ((), lag) = measured(tokio::time::sleep(Duration::from_secs(5))).await;
        assert!(lag <= Duration::from_millis(1), "{lag:?}");
    }
}
