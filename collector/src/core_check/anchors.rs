//! The collector's own way into the dedicated network: once a second each anchor gets an echo
//! request, bound to the dedicated interface. Whether any answered is told to the fleet; a round
//! in which nothing could be learnt, because this process may not send echo requests, is not.

use futures_util::future::join_all;
use haidang_probe::{Binding, EchoOutcome, EchoPlan, Pinger};
use std::time::Duration;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::config::CoreCheck;
use crate::live::Live;

/// Time between rounds.
const ROUND: Duration = Duration::from_secs(1);
/// Packets to each anchor in a round: a single lost one says nothing.
const PACKETS: u32 = 2;

/// Watches until the stop signal.
pub async fn watch(config: CoreCheck, live: Live, stop: CancellationToken) {
    let (Some(device), false) = (config.device, config.anchors.is_empty()) else {
        return stop.cancelled().await;
    };
    let mut round = tokio::time::interval(ROUND);
    round.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut permitted = true;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = round.tick() => {}
        }
        // A new socket each round: no firewall's stale session can make an anchor mute.
        let echoes = config.anchors.iter().map(|anchor| {
            let binding = Binding { device: Some(device.clone()), source: None };
            async move {
                let plan = EchoPlan { count: PACKETS, ..EchoPlan::default() };
                answered(&Pinger::new(*anchor, binding).exchange(&plan).await)
            }
        });
        match any(&join_all(echoes).await) {
            Some(answered) => {
                permitted = true;
                live.anchors_checked(answered);
            }
            None if permitted => {
                permitted = false;
                tracing::warn!("this process may not send echo requests: anchors are not watched");
            }
            None => {}
        }
    }
}

/// What an exchange says of the way to an anchor. One that could not be sent for lack of a device,
/// an address or a route is no way either.
fn answered(outcome: &EchoOutcome) -> Option<bool> {
    match outcome {
        EchoOutcome::Answered { .. } => Some(true),
        EchoOutcome::Silent { .. } | EchoOutcome::Rejected { .. } | EchoOutcome::Unsendable(_) => {
            Some(false)
        }
        EchoOutcome::Forbidden => None,
    }
}

/// Whether any anchor answered; `None` when no one could be asked.
fn any(answers: &[Option<bool>]) -> Option<bool> {
    answers.iter().flatten().copied().reduce(|one, other| one | other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_anchor_that_answers_is_enough_and_what_was_not_asked_says_nothing() {
        for (answers, want) in [
            (&[Some(false), Some(true)][..], Some(true)),
            (&[Some(false), Some(false)], Some(false)),
            (&[None, Some(false)], Some(false)),
            (&[None, None], None),
        ] {
            assert_eq!(any(answers), want, "{answers:?}");
        }
    }

    #[test]
    fn what_cannot_be_sent_is_no_way_and_what_is_forbidden_is_unknown() {
        let unsendable = EchoOutcome::Unsendable(haidang_probe::EchoError::Open {
            source: std::io::ErrorKind::NetworkUnreachable.into(),
        });
        assert_eq!(answered(&unsendable), Some(false));
        assert_eq!(answered(&EchoOutcome::Silent(haidang_probe::Exchange::default())), Some(false));
        assert_eq!(answered(&EchoOutcome::Forbidden), None);
    }
}
