//! Probes without any binding: does traffic for the dedicated network leave by another way, and
//! does this machine reach the Internet? They go where the routing table leads, which is the
//! point; what answers is judged as strictly as with a binding.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use haidang_probe::{Binding, EchoPlan};

use super::echo::EchoTarget;
use super::socket::{ConnectError, chosen_source, connect};
use super::tcp::{self, Proof};
use crate::evidence::{Canary, Echo, LocalFault, Tcp, Unbound};

/// What an unbound probe asks: an anchor.
#[derive(Debug)]
pub(super) struct Detour {
    pub(super) echo: EchoTarget,
    pub(super) tcp: Option<(SocketAddr, Proof)>,
}

/// Asks the anchor by TCP where it has a port, and by echo. `is_dedicated` says whether a source
/// address is the agency's on the dedicated interface.
pub(super) async fn probe(
    detour: &mut Detour,
    plan: EchoPlan,
    tcp_deadline: Duration,
    is_dedicated: impl Fn(IpAddr) -> bool,
) -> Unbound {
    let binding = Ok(Binding::default());
    let target = detour.echo.address();
    let reached = |source: IpAddr| Unbound::Reached { source, dedicated: is_dedicated(source) };
    let by_tcp = async {
        match &detour.tcp {
            Some((target, proof)) => {
                tcp::probe(&Binding::default(), *target, proof, tcp_deadline).await
            }
            None => (Tcp::NotTried, None),
        }
    };
    let ((by_tcp, source), by_echo) = tokio::join!(by_tcp, detour.echo.probe(&binding, plan));
    let proves = detour.tcp.as_ref().is_some_and(|(_, proof)| !matches!(proof, Proof::Handshake));
    match judge(&by_tcp, &by_echo, proves) {
        Judged::Reached => match source.map(|source| source.ip()).or_else(|| chosen_source(target))
        {
            Some(source) => reached(source),
            None => Unbound::Failed(LocalFault(format!(
                "{target} answered, but the kernel names no source address for it"
            ))),
        },
        Judged::Unreached => Unbound::Unreached,
        Judged::Unclear(problem) => Unbound::Failed(LocalFault(format!("{target}: {problem}"))),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Judged {
    Reached,
    Unreached,
    Unclear(&'static str),
}

/// Whether the anchor was reached. A captive portal answers echo in everybody's name: where the
/// anchor can prove by TCP who it is (`proves`), echo alone tells nothing.
fn judge(by_tcp: &Tcp, by_echo: &Echo, proves: bool) -> Judged {
    match (by_tcp, by_echo) {
        (Tcp::Proved { .. } | Tcp::Connected { .. }, _) => Judged::Reached,
        (Tcp::Impostor { .. }, _) => Judged::Unreached,
        (_, Echo::Answered(_)) if proves => {
            Judged::Unclear("somebody answers echo, and does not prove by TCP who it is")
        }
        (_, Echo::Answered(_)) => Judged::Reached,
        (Tcp::NotTried, Echo::Forbidden) => {
            Judged::Unclear("this machine may not send echo, and the first anchor has no tcp_port")
        }
        _ => Judged::Unreached,
    }
}

/// Tries to connect to an address of the Internet that must not answer.
pub(super) async fn canary(target: SocketAddr, deadline: Duration) -> Canary {
    match connect(&Binding::default(), target, deadline).await {
        Ok(_stream) => Canary::Reached,
        Err(ConnectError::Refused | ConnectError::Rejected { .. } | ConnectError::Silent) => {
            Canary::Unreached
        }
        // No route to the Internet is the best of answers, not a failure to ask.
        Err(ConnectError::Unsendable(_)) if chosen_source(target.ip()).is_none() => {
            Canary::Unreached
        }
        Err(ConnectError::Unsendable(fault)) => Canary::Failed(fault),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::evidence::Exchange;

    #[test]
    fn only_proof_shows_a_leak_where_the_anchor_can_prove_itself() {
        let answered = Echo::Answered(Exchange::default());
        let silent = Echo::Silent(Exchange::default());
        let proved = Tcp::Proved { connect: Duration::from_millis(5) };
        let portal = Tcp::Impostor { presented: "HTTP/1.1 302".into() };
        assert_eq!(judge(&proved, &silent, true), Judged::Reached);
        assert_eq!(judge(&portal, &answered, true), Judged::Unreached);
        for tcp in [Tcp::Refused, Tcp::Silent] {
            assert!(matches!(judge(&tcp, &answered, true), Judged::Unclear(_)), "{tcp:?}");
            assert_eq!(judge(&tcp, &silent, true), Judged::Unreached, "{tcp:?}");
        }
        assert_eq!(judge(&Tcp::NotTried, &answered, false), Judged::Reached);
        assert!(matches!(judge(&Tcp::NotTried, &Echo::Forbidden, false), Judged::Unclear(_)));
    }
}
