//! The collector's two clocks, read at the edge and passed inwards as values.

use std::time::{Instant, SystemTime};

use crate::fleet::Now;

/// A monotonic clock that started with the process, and the wall clock.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    base: Instant,
}

impl Clock {
    /// Starts now.
    pub fn start() -> Self {
        Self { base: Instant::now() }
    }

    /// The moment on both.
    pub fn now(&self) -> Now {
        Now { mono: self.base.elapsed(), wall: SystemTime::now() }
    }
}
