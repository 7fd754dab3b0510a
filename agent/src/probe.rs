//! One probe cycle, from the kernel's facts up to the services, as plain evidence.
//!
//! L0 dumps the kernel's state (`link`). L1 (gateways), L2 (anchors) and the unbound probes run
//! side by side, so that a gateway deaf to echo costs no time and fails nothing. L3 (resolvers),
//! L4 (services) and the path MTU follow when an anchor answered and the plan asks for them. A
//! cycle takes at most 2 s for L0, [`CyclePlan::reach_time`] with 200 ms of warm-up for L1 and
//! L2, 2 s for the neighbours' state, and the climb deadline or three echo deadlines (path MTU),
//! whichever is longer; on a working machine L0 and the neighbours take milliseconds.
//!
//! Every socket but the unbound probes' is bound to the dedicated interface *and* to an address
//! of the agency on it; without such an address nothing is sent.

use std::net::IpAddr;
use std::time::Duration;

use futures_util::future::join_all;
use haidang_probe::{Binding, EchoPlan};
use rustls::pki_types::CertificateDer;

use crate::config::{Config, Dedicated};
use crate::evidence::{
    Anchor, Canary, Cycle, Dns, Echo, Gateway, Interface, LocalFault, Neighbour, PathMtu, Resolver,
    Service, ServiceAnswer, Tcp, Unbound, Way,
};
use crate::link::{Kernel, Snapshot};
use crate::schedule::CyclePlan;

pub(crate) mod dns;
mod echo;
mod http;
mod lag;
mod path;
mod socket;
mod targets;
mod tcp;
mod tls;
mod unbound;

pub use socket::{ConnectError, connect};
pub use targets::ProberError;

use targets::{AnchorTarget, ServiceTarget, Targets, inside};

/// The agent's eyes: owns the probe sockets.
///
/// Runs on a current-thread runtime of its own, so that nothing else in the process delays a
/// packet. A new configuration or a new CA bundle means a new `Prober`.
#[derive(Debug)]
pub struct Prober {
    kernel: Kernel,
    dedicated: Dedicated,
    targets: Targets,
}

/// L1, L2 and the unbound probes.
struct Reach {
    gateways: Vec<Gateway>,
    anchors: Vec<Anchor>,
    unbound: Option<Unbound>,
    canary: Option<Canary>,
}

/// L3, L4 and the path MTU.
#[derive(Default)]
struct Climb {
    resolvers: Vec<Resolver>,
    services: Vec<Service>,
    path_mtu: Option<PathMtu>,
}

impl Prober {
    /// Checks the targets; opens nothing. `roots` are the pinned CAs in DER; while there are none
    /// (before enrolment), what only they can prove is not tried.
    ///
    /// # Errors
    /// When a target lies outside the pinned prefixes, or is not one.
    pub fn new(config: &Config, roots: &[CertificateDer<'_>]) -> Result<Self, ProberError> {
        tls::prepare();
        Ok(Self {
            kernel: Kernel::new(),
            dedicated: config.dedicated.clone(),
            targets: Targets::new(config, roots)?,
        })
    }

    /// Runs one cycle. Must run on a tokio runtime with I/O and time.
    pub async fn cycle(&mut self, plan: CyclePlan) -> Cycle {
        let (mut cycle, lag_max) = lag::measured(self.look(&plan)).await;
        cycle.prober_lag_max = lag_max;
        cycle
    }

    /// Follows the way to each anchor, one after the other. For a person who asks: it takes some
    /// seconds where the path is dead. Must run on a tokio runtime with I/O and time.
    pub async fn ways(&mut self) -> Vec<Way> {
        let snapshot = self.kernel.snapshot(&self.dedicated, &[]).await;
        let mut ways = Vec::with_capacity(self.targets.anchors.len());
        for anchor in &self.targets.anchors {
            ways.push(path::way(anchor, binding(&snapshot, anchor.echo.address())).await);
        }
        ways
    }

    async fn look(&mut self, plan: &CyclePlan) -> Cycle {
        let addresses: Vec<IpAddr> =
            self.targets.anchors.iter().map(|anchor| anchor.echo.address()).collect();
        let snapshot = self.kernel.snapshot(&self.dedicated, &addresses).await;
        if plan.fresh_sockets {
            self.targets.renew();
        }
        let reach = self.reach(&snapshot, plan).await;
        let climb = if reach.anchors.iter().any(is_answered) {
            self.climb(&snapshot, plan, &reach.anchors).await
        } else {
            Climb::default()
        };
        let Reach { gateways, anchors, unbound, canary } = reach;
        let Climb { resolvers, services, path_mtu } = climb;
        Cycle {
            link: snapshot.link,
            gateways,
            anchors,
            resolvers,
            services,
            unbound,
            canary,
            path_mtu,
            prober_lag_max: Duration::ZERO,
        }
    }

    async fn reach(&mut self, snapshot: &Snapshot, plan: &CyclePlan) -> Reach {
        let Self { kernel, dedicated, targets } = self;
        let anchor_echo = EchoPlan {
            count: plan.echoes_per_anchor,
            spacing: plan.echo_spacing,
            deadline: plan.echo_deadline,
            ..EchoPlan::default()
        };
        let one_echo = EchoPlan { count: 1, ..anchor_echo };
        let gateways = async {
            let echoes = targets.gateways.iter_mut().map(|gateway| async {
                let binding = binding(snapshot, gateway.address());
                (gateway.address(), gateway.probe(&binding, one_echo).await)
            });
            let echoes = join_all(echoes).await;
            // Asked after the echo, which made the kernel resolve the neighbour.
            let addresses: Vec<IpAddr> = echoes.iter().map(|(address, _)| *address).collect();
            let states = neighbours(kernel, snapshot, &addresses).await;
            echoes
                .into_iter()
                .zip(states)
                .map(|((address, echo), neighbour)| Gateway { address, neighbour, echo })
                .collect()
        };
        let anchors = join_all(
            targets
                .anchors
                .iter_mut()
                .map(|anchor| reach_anchor(anchor, snapshot, plan, anchor_echo)),
        );
        let is_dedicated = |source: IpAddr| {
            // On loopback (the demonstration on one machine) there is one way only, and the
            // kernel's choice of a source address says nothing.
            inside(&dedicated.local_prefixes, source)
                || (snapshot.is_loopback && source.is_loopback())
        };
        let unbound = async {
            match &mut targets.detour {
                Some(detour) if plan.unbound => {
                    Some(unbound::probe(detour, one_echo, plan.tcp_deadline, is_dedicated).await)
                }
                _ => None,
            }
        };
        let canary = async {
            match targets.canary {
                Some(target) if plan.unbound => {
                    Some(unbound::canary(target, plan.tcp_deadline).await)
                }
                _ => None,
            }
        };
        let (gateways, anchors, unbound, canary) = tokio::join!(gateways, anchors, unbound, canary);
        Reach { gateways, anchors, unbound, canary }
    }

    async fn climb(&mut self, snapshot: &Snapshot, plan: &CyclePlan, anchors: &[Anchor]) -> Climb {
        let Targets { resolvers, question, services, anchors: anchor_targets, .. } =
            &mut self.targets;
        let resolvers = async {
            match question {
                Some(question) if plan.climb => {
                    join_all(resolvers.iter().map(|resolver| async {
                        let answer = match binding(snapshot, resolver.ip()) {
                            Ok(binding) => {
                                dns::probe(&binding, *resolver, question, plan.climb_deadline).await
                            }
                            Err(fault) => Dns::Unsendable(fault),
                        };
                        Resolver { address: resolver.ip(), answer }
                    }))
                    .await
                }
                _ => Vec::new(),
            }
        };
        let services = async {
            match plan.climb {
                true => join_all(services.iter().map(|service| ask(service, snapshot, plan))).await,
                false => Vec::new(),
            }
        };
        let path_mtu = async {
            match plan.path_mtu {
                true => Some(path_mtu(anchor_targets, anchors, snapshot, plan).await),
                false => None,
            }
        };
        let (resolvers, services, path_mtu) = tokio::join!(resolvers, services, path_mtu);
        Climb { resolvers, services, path_mtu }
    }
}

impl Targets {
    fn renew(&mut self) {
        self.gateways.iter_mut().for_each(echo::EchoTarget::renew);
        self.anchors.iter_mut().for_each(|anchor| anchor.echo.renew());
        if let Some(detour) = &mut self.detour {
            detour.echo.renew();
        }
    }
}

async fn reach_anchor(
    anchor: &mut AnchorTarget,
    snapshot: &Snapshot,
    plan: &CyclePlan,
    echo_plan: EchoPlan,
) -> Anchor {
    let AnchorTarget { name, echo, tcp } = anchor;
    let address = echo.address();
    let binding = binding(snapshot, address);
    let tcp = async {
        match (tcp, &binding) {
            (Some((target, proof)), Ok(binding)) if plan.tcp => {
                tcp::probe(binding, *target, proof, plan.tcp_deadline).await.0
            }
            (Some(_), Err(fault)) if plan.tcp => Tcp::Unsendable(fault.clone()),
            _ => Tcp::NotTried,
        }
    };
    let (echo, tcp) = tokio::join!(echo.probe(&binding, echo_plan), tcp);
    Anchor { name: name.clone(), address, echo, tcp }
}

async fn ask(service: &ServiceTarget, snapshot: &Snapshot, plan: &CyclePlan) -> Service {
    let prepared = service.question.as_ref().map_err(Clone::clone).and_then(|question| {
        binding(snapshot, question.target.ip()).map(|binding| (question, binding))
    });
    let answer = match prepared {
        Ok((question, binding)) => http::probe(&binding, question, plan.climb_deadline).await,
        Err(fault) => ServiceAnswer::Unsendable(fault),
    };
    Service { name: service.name.clone(), is_tls: service.is_tls, answer }
}

/// Measures toward the first anchor that answered small packets.
async fn path_mtu(
    targets: &mut [AnchorTarget],
    anchors: &[Anchor],
    snapshot: &Snapshot,
    plan: &CyclePlan,
) -> PathMtu {
    let answered = targets
        .iter_mut()
        .zip(anchors)
        .find(|(_, anchor)| matches!(anchor.echo, Echo::Answered(_)));
    let Some((target, anchor)) = answered else {
        return PathMtu::NotMeasured(LocalFault("no anchor answers echo".into()));
    };
    let Some(mtu) = snapshot.mtu else {
        return PathMtu::NotMeasured(LocalFault("the interface names no MTU".into()));
    };
    match binding(snapshot, anchor.address) {
        Ok(binding) => target.echo.path_mtu(&binding, mtu, plan.echo_deadline).await,
        Err(fault) => PathMtu::NotMeasured(fault),
    }
}

async fn neighbours(kernel: &Kernel, snapshot: &Snapshot, gateways: &[IpAddr]) -> Vec<Neighbour> {
    match (&snapshot.link.interface, snapshot.index) {
        (Interface::Unreadable(fault), _) => {
            gateways.iter().map(|_| Neighbour::Unreadable(fault.clone())).collect()
        }
        (_, Some(index)) => kernel.neighbours(index, gateways).await,
        (_, None) => gateways.iter().map(|_| Neighbour::Absent).collect(),
    }
}

/// The binding of every probe to `target`, or why there is none.
fn binding(snapshot: &Snapshot, target: IpAddr) -> Result<Binding, LocalFault> {
    let device = match &snapshot.link.interface {
        Interface::Up { name, .. }
        | Interface::AdminDown { name }
        | Interface::NoCarrier { name } => name,
        Interface::Missing => {
            return Err(LocalFault("no interface matches dedicated.interface".into()));
        }
        Interface::Unreadable(fault) => return Err(fault.clone()),
    };
    match snapshot.sources.toward(target) {
        Some(source) => Ok(Binding { device: Some(device.clone()), source: Some(source) }),
        None => {
            let family = if target.is_ipv4() { "IPv4" } else { "IPv6" };
            let missing =
                format!("{device} has no {family} address inside dedicated.local_prefixes");
            Err(LocalFault(missing))
        }
    }
}

/// Whether the anchor answered, which lets the cycle climb. What it is worth is not judged here.
fn is_answered(anchor: &Anchor) -> bool {
    matches!(anchor.echo, Echo::Answered(_))
        || matches!(anchor.tcp, Tcp::Proved { .. } | Tcp::Connected { .. })
}
