//! Which process of an agent speaks, and whether two machines speak under one identity.
//!
//! A process draws a nonce when it starts and numbers its reports. A restart brings a new nonce,
//! and the former one is never heard again. A nonce that *returns* after another was accepted is
//! a process that still runs: the identity was copied. A report that was under way when its
//! process died may arrive after its successor's first, so a return within the grace proves
//! nothing. Moving from one listener to the other changes no nonce and is no clone.

use std::time::Duration;

/// Former processes that are remembered; a clone alternates, so the last few suffice.
const FORMER_MAX: usize = 3;

/// What a report means for its agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// The next report of the process that is known.
    Next,
    /// The first report of another process.
    Another,
    /// Not newer than what is held: it changes nothing.
    Stale,
    /// A former process that still runs.
    Returned,
}

#[derive(Debug, Clone, Copy)]
struct Process {
    nonce: [u8; 16],
    sequence: u64,
}

/// The current process and the last few before it.
#[derive(Debug)]
pub(super) struct Processes {
    current: Option<Process>,
    since: Duration,
    former: [Option<Process>; FORMER_MAX],
}

impl Processes {
    pub(super) const NONE: Self =
        Self { current: None, since: Duration::ZERO, former: [None; FORMER_MAX] };

    pub(super) fn is_current(&self, nonce: [u8; 16]) -> bool {
        self.current.is_some_and(|process| process.nonce == nonce)
    }

    pub(super) fn turn(
        &mut self,
        nonce: [u8; 16],
        sequence: u64,
        grace: Duration,
        mono: Duration,
    ) -> Turn {
        if let Some(current) = self.current.as_mut().filter(|process| process.nonce == nonce) {
            if sequence <= current.sequence {
                return Turn::Stale;
            }
            current.sequence = sequence;
            return Turn::Next;
        }
        let known = self.former.iter().flatten().find(|process| process.nonce == nonce);
        if let Some(known) = known {
            let under_way = mono.saturating_sub(self.since) <= grace;
            return if sequence <= known.sequence || under_way {
                Turn::Stale
            } else {
                Turn::Returned
            };
        }
        self.former.rotate_right(1);
        self.former[0] = self.current.replace(Process { nonce, sequence });
        self.since = mono;
        Turn::Another
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(10);

    #[track_caller]
    fn turns(steps: &[(u8, u64, u64, Turn)]) {
        let mut processes = Processes::NONE;
        for (at, (nonce, sequence, seconds, expected)) in steps.iter().enumerate() {
            let turn =
                processes.turn([*nonce; 16], *sequence, GRACE, Duration::from_secs(*seconds));
            assert_eq!(turn, *expected, "step {at}");
        }
    }

    #[test]
    fn the_latest_report_of_a_process_wins() {
        turns(&[
            (1, 1, 0, Turn::Another),
            (1, 3, 10, Turn::Next),
            (1, 2, 11, Turn::Stale),
            (1, 3, 12, Turn::Stale),
            (1, 4, 20, Turn::Next),
        ]);
    }

    #[test]
    fn a_restart_is_no_clone() {
        turns(&[
            (1, 900, 0, Turn::Another),
            (2, 1, 10, Turn::Another),
            // Under way when its process died.
            (1, 901, 11, Turn::Stale),
            (3, 1, 20, Turn::Another),
            (3, 2, 30, Turn::Next),
            // A duplicate of long ago.
            (1, 900, 300, Turn::Stale),
        ]);
    }

    #[test]
    fn a_process_that_returns_is_a_clone() {
        turns(&[
            (1, 1, 0, Turn::Another),
            (2, 1, 5, Turn::Another),
            (1, 2, 10, Turn::Stale),
            (2, 2, 15, Turn::Next),
            (1, 3, 20, Turn::Returned),
        ]);
    }
}
