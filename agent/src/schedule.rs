//! When the next probe cycle starts, and what it tries.
//!
//! Pure: the caller passes the boot-time clock and a random number, sleeps until
//! [`Schedule::next`], calls [`Schedule::begin`], runs the plan and calls
//! [`Schedule::finish`]. No cycle is ever caught up: after a stall or a suspend there is one
//! cycle, not a burst (what a fleet does together looks like an attack).
//!
//! | what | steady | confirm | down |
//! |---|---|---|---|
//! | start to start | probe period ±10 % | confirm period | probe period ±10 % |
//! | echoes an anchor | 2 | 4 | 4 |
//! | TCP | every 5th cycle | always | always |
//! | DNS and services, if the path is good | every 5th cycle | always | always |
//! | unbound, Internet canary | every 5 min | always | every 5 min |
//! | path MTU | every 5 min, a setting; a tenth of it while in doubt | never | never |
//! | fresh sockets | every 10 min | always | always |
//!
//! The packets of a cycle are bounded by its plan, and the cycles by the confirm period: a
//! kernel event starts a cycle at once, but never sooner after the previous one than confirm
//! mode would.

use std::time::Duration;

use haidang_proto::model::settings::Settings;

/// How closely the path is watched. The detector decides it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Nothing contradicts the verdict.
    Steady,
    /// The last cycles contradict the verdict: look again at once.
    Confirm,
    /// The path is down, and nothing contradicts it.
    Down,
}

/// What echo is worth on this path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EchoTrust {
    /// Echo is answered when the path is good.
    Trusted,
    /// Echo is forbidden here or filtered on the way: only TCP tells, so every cycle tries it.
    Useless,
}

/// What the last path MTU probe left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PathMtuDoubt {
    /// Nothing to confirm.
    Settled,
    /// One probe contradicts what is held true: measure again soon.
    Doubtful,
}

/// What the detector wants of the schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Outlook {
    /// How closely to watch.
    pub mode: Mode,
    /// Whether echo alone tells anything.
    pub echo: EchoTrust,
    /// Whether the path MTU wants another look.
    pub path_mtu: PathMtuDoubt,
}

/// What one cycle tries. Everything but L3 and L4 runs side by side, so that a cycle on a dead
/// path ends within [`CyclePlan::reach_time`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CyclePlan {
    /// Echo requests to each anchor. A gateway gets one.
    pub echoes_per_anchor: u32,
    /// Time between the echo requests to one anchor.
    pub echo_spacing: Duration,
    /// How long each echo request may take; later answers count as late.
    pub echo_deadline: Duration,
    /// Whether TCP is tried on anchors that have a port.
    pub tcp: bool,
    /// How long the TCP probe of an anchor may take, proof of identity included.
    pub tcp_deadline: Duration,
    /// Whether to go on to DNS (L3) and services (L4) when an anchor answered.
    pub climb: bool,
    /// How long each DNS question and each service exchange may take. A question is sent again
    /// within it, as resolvers' clients do, so that a lost packet is no broken resolver.
    pub climb_deadline: Duration,
    /// Whether to send the probes without binding: the leak probe and, where one is
    /// configured, the Internet canary.
    pub unbound: bool,
    /// Whether to measure the path MTU when an anchor answered.
    pub path_mtu: bool,
    /// Whether to open new sockets, with new echo ids and source ports, first.
    pub fresh_sockets: bool,
}

impl CyclePlan {
    /// Everything at once, for a person who asks (`haidang-agent check`).
    pub const fn thorough() -> Self {
        Self {
            echoes_per_anchor: ECHOES_CONFIRM,
            echo_spacing: ECHO_SPACING,
            echo_deadline: DEADLINE_MAX,
            tcp: true,
            tcp_deadline: Duration::from_secs(2),
            climb: true,
            climb_deadline: CLIMB_DEADLINE,
            unbound: true,
            path_mtu: true,
            fresh_sockets: true,
        }
    }

    /// The longest that L1 and L2 may take.
    pub fn reach_time(&self) -> Duration {
        let echo =
            self.echo_spacing * self.echoes_per_anchor.saturating_sub(1) + self.echo_deadline;
        if self.tcp { echo.max(self.tcp_deadline) } else { echo }
    }
}

/// Two echoes tell a lost packet from a dead anchor well enough to start confirming.
const ECHOES_STEADY: u32 = 2;
/// Four at two anchors fail together once in 256 cycles at 50 % random loss; four such cycles in
/// a row do not happen by chance.
const ECHOES_CONFIRM: u32 = 4;
/// Apart enough that one burst of loss does not take them all.
const ECHO_SPACING: Duration = Duration::from_millis(100);
/// Deadline of an echo, and of TCP in a cycle: beyond any terrestrial path. Shorter confirm
/// periods shorten it, so that a cycle fits its period.
const DEADLINE_MAX: Duration = Duration::from_secs(1);
/// Below this, a busy machine would be taken for a dead path.
const DEADLINE_MIN: Duration = Duration::from_millis(200);
/// DNS and services may be slow and yet work.
const CLIMB_DEADLINE: Duration = Duration::from_secs(2);
/// TCP, DNS and services are asked less often than echo: they cost the core state and work.
const STEADY_CYCLES_PER_CLIMB: u32 = 5;
/// A way around the dedicated network does not come and go by the second.
const UNBOUND_PERIOD: Duration = Duration::from_secs(300);
/// A hole is a suspicion until a second probe sees it, after this share of the usual period.
const PATH_MTU_DOUBT_SHARE: u32 = 10;
/// A long-lived echo id can stick to a dead firewall session.
const FRESH_SOCKETS_PERIOD: Duration = Duration::from_secs(600);
/// Share of the period that jitter adds or takes.
const JITTER: f64 = 0.1;

/// The schedule of one agent.
#[derive(Debug, Clone)]
pub struct Schedule {
    settings: Settings,
    path_mtu_period: Duration,
    outlook: Outlook,
    /// When the next cycle starts, unless a kernel event comes first.
    next: Duration,
    /// When the latest cycle started.
    started: Option<Duration>,
    run: Run,
    cycles_until_climb: u32,
    unbound_due: Duration,
    path_mtu_due: Duration,
    fresh_sockets_due: Duration,
}

/// Life of a cycle, as the schedule knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Run {
    Idle,
    /// Waiting, and the kernel changed something: the next cycle looks closely.
    Woken,
    Running,
    /// The kernel changed something while a cycle ran, which may have missed it.
    RunningWoken,
}

impl Schedule {
    /// The first cycle comes within one period, at a phase that `identity` (the agent's id, or
    /// the machine's before enrolment) fixes: machines that boot together do not probe together.
    pub fn new(
        settings: Settings,
        path_mtu_period: Duration,
        identity: &[u8],
        now: Duration,
    ) -> Self {
        let settings = settings.clamped();
        let phase = phase(identity);
        let next = now + settings.probe_period.mul_f64(phase);
        Self {
            settings,
            path_mtu_period,
            outlook: Outlook {
                mode: Mode::Steady,
                echo: EchoTrust::Trusted,
                path_mtu: PathMtuDoubt::Settled,
            },
            next,
            started: None,
            run: Run::Idle,
            cycles_until_climb: 0,
            unbound_due: now,
            path_mtu_due: now + path_mtu_period.mul_f64(phase),
            fresh_sockets_due: now + FRESH_SOCKETS_PERIOD,
        }
    }

    /// When the next cycle starts, on the clock of `now`.
    pub fn next(&self) -> Duration {
        self.next
    }

    /// Takes new settings over, within the local limits.
    pub fn apply(&mut self, settings: Settings, now: Duration) {
        self.settings = settings.clamped();
        self.next = self.next.min(now + self.settings.probe_period);
    }

    /// The kernel announced a change: the next cycle starts at once, but not before the confirm
    /// period since the latest start has passed. An interface that flaps ten times a second
    /// therefore costs what confirm mode costs.
    pub fn kernel_event(&mut self, now: Duration) {
        match self.run {
            Run::Running | Run::RunningWoken => self.run = Run::RunningWoken,
            Run::Idle | Run::Woken => {
                self.run = Run::Woken;
                self.next = self.next.min(self.earliest(now));
            }
        }
    }

    /// Starts a cycle and says what it tries.
    pub fn begin(&mut self, now: Duration) -> CyclePlan {
        let mode = match (self.outlook.mode, self.run) {
            (Mode::Steady, Run::Woken | Run::RunningWoken) => Mode::Confirm,
            (mode, _) => mode,
        };
        self.run = Run::Running;
        self.started = Some(now);
        let climb = mode != Mode::Steady || self.cycles_until_climb == 0;
        self.cycles_until_climb = match climb {
            true => STEADY_CYCLES_PER_CLIMB - 1,
            false => self.cycles_until_climb - 1,
        };
        let confirming = mode == Mode::Confirm;
        let unbound = confirming || due(&mut self.unbound_due, UNBOUND_PERIOD, now);
        let path_mtu =
            mode == Mode::Steady && due(&mut self.path_mtu_due, self.path_mtu_period, now);
        let fresh_sockets =
            mode != Mode::Steady || due(&mut self.fresh_sockets_due, FRESH_SOCKETS_PERIOD, now);
        let deadline = self.settings.confirm_period.clamp(DEADLINE_MIN, DEADLINE_MAX);
        let echoes_per_anchor = if mode == Mode::Steady { ECHOES_STEADY } else { ECHOES_CONFIRM };
        let echo_spacing = ECHO_SPACING.min(deadline / ECHOES_CONFIRM);
        CyclePlan {
            echoes_per_anchor,
            echo_spacing,
            echo_deadline: deadline,
            tcp: climb || self.outlook.echo == EchoTrust::Useless,
            // As long as the echoes take together: TCP never lengthens a bad cycle.
            tcp_deadline: deadline + echo_spacing * (echoes_per_anchor - 1),
            climb,
            climb_deadline: CLIMB_DEADLINE,
            unbound,
            path_mtu,
            fresh_sockets,
        }
    }

    /// Ends a cycle and plans the next. `random` is any uniform number: it draws the jitter.
    pub fn finish(&mut self, outlook: Outlook, now: Duration, random: u32) {
        self.outlook = outlook;
        if outlook.path_mtu == PathMtuDoubt::Doubtful {
            let soon = now + self.path_mtu_period / PATH_MTU_DOUBT_SHARE;
            self.path_mtu_due = self.path_mtu_due.min(soon);
        }
        let started = self.started.unwrap_or(now);
        let period = match outlook.mode {
            Mode::Confirm => self.settings.confirm_period,
            Mode::Steady | Mode::Down => jittered(self.settings.probe_period, random),
        };
        self.next = (started + period).max(now);
        self.run = match self.run {
            Run::RunningWoken | Run::Woken => {
                self.next = self.next.min(self.earliest(now));
                Run::Woken
            }
            Run::Running | Run::Idle => Run::Idle,
        };
    }

    /// The earliest moment at which an event may start a cycle.
    fn earliest(&self, now: Duration) -> Duration {
        self.started.map_or(now, |started| now.max(started + self.settings.confirm_period))
    }
}

/// Whether something is due; if so, its next time is a period from now.
fn due(at: &mut Duration, period: Duration, now: Duration) -> bool {
    let is_due = now >= *at;
    if is_due {
        *at = now + period;
    }
    is_due
}

/// A period lengthened or shortened by up to [`JITTER`].
fn jittered(period: Duration, random: u32) -> Duration {
    let share = f64::from(random) / f64::from(u32::MAX);
    period.mul_f64(1.0 - JITTER + 2.0 * JITTER * share)
}

/// Share of a period in [0, 1), by FNV-1a with a final mix: neighbouring ids get distant phases.
fn phase(identity: &[u8]) -> f64 {
    let fnv = identity.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mixed = (fnv ^ (fnv >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    f64::from((mixed >> 32) as u32) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests;
