//! The impaired stretch between WAN and core: packets are read from a TUN device in one
//! namespace, delayed, lost or found too big for one site's path, and written to a TUN device in
//! the other. netem is not in every kernel; this needs only `/dev/net/tun`.
//!
//! [`Shaper`] decides, without clock or sockets; [`Relay`] is its thread. A path is found by the
//! third octet of the site's address, so that sites in one laboratory are impaired apart.

mod shaper;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

pub use self::shaper::{Direction, Impairment, Impairments};
use self::shaper::{Fate, Shaper};
use crate::netns::Netns;
use crate::tun;

/// Name of the device in the WAN.
pub const WAN_DEVICE: &str = "tunw";
/// Name of the device in the core.
pub const CORE_DEVICE: &str = "tunc";
/// Longest wait between two looks at the stop flag.
const POLL_MAX: Duration = Duration::from_millis(50);
/// Largest packet of a TUN device.
const PACKET_BYTES_MAX: usize = 65_535;
/// Packets taken from one side before the other gets its turn.
const BURST_MAX: usize = 256;

/// What became of the packets of each path and direction.
type Tallies = BTreeMap<(u8, Direction), Tally>;

/// What became of the packets of one direction of one site's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Packets that came in.
    pub offered: u32,
    /// Packets of these that were lost.
    pub lost: u32,
}

/// A running relay; it ends when dropped.
#[derive(Debug)]
pub struct Relay {
    // One short exclusive section on each change and each packet; the relay's thread is no task
    // of a runtime, so a channel would only add a second place where the present value stands.
    impairments: Arc<Mutex<BTreeMap<u8, Impairments>>>,
    tallies: Arc<Mutex<Tallies>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Makes both devices and starts to relay. `seed` fixes what is lost and how it jitters.
    ///
    /// # Errors
    /// When a device cannot be made.
    pub fn start(wan: &Netns, core: &Netns, seed: u64) -> Result<Self> {
        let wan_fd = wan.inside(|| tun::open(WAN_DEVICE))??;
        let core_fd = core.inside(|| tun::open(CORE_DEVICE))??;
        let impairments = Arc::new(Mutex::new(BTreeMap::new()));
        let tallies = Arc::new(Mutex::new(Tallies::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::Builder::new()
            .name("relay".into())
            .spawn({
                let (impairments, tallies) = (Arc::clone(&impairments), Arc::clone(&tallies));
                let stop = Arc::clone(&stop);
                move || relay(&wan_fd, &core_fd, &impairments, &tallies, &stop, Shaper::new(seed))
            })
            .context("start the relay's thread")?;
        Ok(Self { impairments, tallies, stop, thread: Some(thread) })
    }

    /// Impairs the path of one site, named by the third octet of its address.
    pub fn impair(&self, site: u8, impairments: Impairments) {
        self.impairments.lock().unwrap_or_else(PoisonError::into_inner).insert(site, impairments);
    }

    /// What has become of the packets of one direction of one site's path until now.
    pub fn tally(&self, site: u8, direction: Direction) -> Tally {
        let tallies = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        tallies.get(&(site, direction)).copied().unwrap_or_default()
    }

    /// Makes the path of one site perfect again.
    pub fn heal(&self, site: u8) {
        self.impairments.lock().unwrap_or_else(PoisonError::into_inner).remove(&site);
    }
}

impl Tally {
    /// Lost packets over offered ones; zero without any.
    pub fn lost_ratio(&self) -> f64 {
        f64::from(self.lost) / f64::from(self.offered.max(1))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn relay(
    wan: &OwnedFd,
    core: &OwnedFd,
    impairments: &Mutex<BTreeMap<u8, Impairments>>,
    tallies: &Mutex<Tallies>,
    stop: &AtomicBool,
    mut shaper: Shaper,
) {
    let started = Instant::now();
    let mut packet = vec![0; PACKET_BYTES_MAX];
    while !stop.load(Ordering::Relaxed) {
        let wait = shaper
            .next_due()
            .map_or(POLL_MAX, |due| due.saturating_sub(started.elapsed()).min(POLL_MAX));
        let mut fds = [PollFd::new(wan, PollFlags::IN), PollFd::new(core, PollFlags::IN)];
        let timeout = Timespec { tv_sec: 0, tv_nsec: wait.subsec_nanos().into() };
        // An interrupted wait is a short one.
        let _ = poll(&mut fds, Some(&timeout));
        for (fd, direction) in [(wan, Direction::ToCore), (core, Direction::ToSite)] {
            for _ in 0..BURST_MAX {
                let Ok(length @ 1..) = rustix::io::read(fd, &mut packet) else { break };
                let known = impairments.lock().unwrap_or_else(PoisonError::into_inner);
                let fate = shaper.offer(&packet[..length], direction, &known, started.elapsed());
                if let Some((site, fate)) = fate {
                    let mut tallies = tallies.lock().unwrap_or_else(PoisonError::into_inner);
                    let tally = tallies.entry((site, direction)).or_default();
                    tally.offered = tally.offered.saturating_add(1);
                    tally.lost = tally.lost.saturating_add(u32::from(fate == Fate::Lost));
                }
            }
        }
        while let Some((direction, packet)) = shaper.take_due(started.elapsed()) {
            let out = match direction {
                Direction::ToCore => core,
                Direction::ToSite => wan,
            };
            // A device that is down refuses the packet: it is lost, as on a real wire.
            let _ = rustix::io::write(out, &packet);
        }
    }
}
