//! The way to an anchor, hop by hop, for a person who asks (`check --path`).

use haidang_probe::{Binding, Hop as SeenHop, Pinger, Trace, trace};

use super::socket::fault;
use super::targets::AnchorTarget;
use crate::evidence::{Hop, LocalFault, Way, WayLife};

/// Follows the way to an anchor through `binding`, or says why it cannot.
pub(super) async fn way(anchor: &AnchorTarget, binding: Result<Binding, LocalFault>) -> Way {
    let address = anchor.echo.address();
    let life = match binding {
        Ok(binding) => match trace(&mut Pinger::new(address, binding)).await {
            Trace::Hops(hops) => WayLife::Followed(hops.into_iter().map(hop).collect()),
            Trace::Unsendable(error) => WayLife::Unsendable(fault(&error)),
            Trace::Forbidden => WayLife::Forbidden,
        },
        Err(fault) => WayLife::Unsendable(fault),
    };
    Way { anchor: anchor.name.clone(), address, life }
}

fn hop(seen: SeenHop) -> Hop {
    match seen {
        SeenHop::Router { by, rtt } => Hop::Router { by, rtt },
        SeenHop::Target { rtt } => Hop::Target { rtt },
        SeenHop::Refused { by, kind, code, rtt } => Hop::Refused { by, kind, code, rtt },
        SeenHop::Silent => Hop::Silent,
    }
}
