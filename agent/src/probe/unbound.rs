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
    match (by_tcp, source, by_echo) {
        (Tcp::Proved { .. } | Tcp::Connected { .. }, Some(source), _) => reached(source.ip()),
        // A captive portal answers in everybody's name: its echo is worth no more than its TCP.
        (Tcp::Impostor { .. }, _, _) => Unbound::Unreached,
        (Tcp::Refused, _, Echo::Answered(_)) => Unbound::Failed(LocalFault(format!(
            "something answers echo for {target} and refuses TCP: that may be anybody"
        ))),
        (_, _, Echo::Answered(_)) => match chosen_source(target) {
            Some(source) => reached(source),
            None => Unbound::Failed(LocalFault(format!(
                "{target} answered, but the kernel names no source address for it"
            ))),
        },
        (Tcp::NotTried, _, Echo::Forbidden) => Unbound::Failed(LocalFault(
            "this machine may not send echo, and the first anchor has no tcp_port".into(),
        )),
        _ => Unbound::Unreached,
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
