//! What waits for one of the store's threads, in two lanes.
//!
//! The prompt lane has what somebody looks at: an enrolment, an operator's decision, the record or
//! two of a machine that lives. The backlog lane has what machines kept while they were cut off,
//! and may be long: after an outage of the core, all of them come at once. What is prompt goes
//! first, into the group that is open, and has room of its own; the backlog has a share of each
//! group that is as large, and at least one job, so that it moves on whatever else there is. Within
//! a lane it is first come, first served, and an agent has one delivery under way: backlogs take
//! turns.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::store::StoreError;

/// Jobs of the prompt lane that may wait: a word of each of the city's machines at once.
const PROMPT_JOBS_MAX: u32 = 4_096;
/// Records of the backlog lane that may wait, some 64 MB at the worst. At the rate that is asked
/// for they are written within three seconds, and an agent waits for five.
const BACKLOG_RECORDS_MAX: u32 = 131_072;
/// Most records of a delivery that is prompt: those of an outage with what was seen around it.
const PROMPT_RECORDS_MAX: usize = 16;
/// How long a caller waits for room.
const WAIT: Duration = Duration::from_secs(2);

pub(super) type Settle = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
/// Given no connection, a job is answered without having been run.
pub(super) type Run = Box<dyn FnOnce(Result<&Connection, StoreError>) -> (bool, Settle) + Send>;

/// Where a job waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Lane {
    /// Goes first.
    Prompt,
    /// Takes its turn.
    Backlog,
}

impl Lane {
    /// The lane of a delivery with so many records.
    pub(in crate::store) fn of_delivery(records: usize) -> Self {
        if records <= PROMPT_RECORDS_MAX { Self::Prompt } else { Self::Backlog }
    }
}

/// What an open group takes yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    /// Whatever waits.
    All,
    /// What is left of the backlog's share.
    Backlog,
    /// It is to be committed.
    Nothing,
}

/// Work for a thread of the store.
pub(super) struct Job {
    pub(super) run: Run,
    pub(super) records: usize,
    pub(super) queued: Instant,
    lane: Lane,
    /// Of the lane; given back when the job's turn has come.
    _room: OwnedSemaphorePermit,
}

/// The end for those who ask.
#[derive(Clone)]
pub(super) struct Queue {
    jobs: mpsc::Sender<Job>,
    prompt: Arc<Semaphore>,
    backlog: Arc<Semaphore>,
}

/// The thread's end.
pub(super) struct Waiting {
    jobs: mpsc::Receiver<Job>,
    prompt: VecDeque<Job>,
    backlog: VecDeque<Job>,
}

pub(super) fn queue() -> (Queue, Waiting) {
    let (prompt, backlog) = (PROMPT_JOBS_MAX as usize, BACKLOG_RECORDS_MAX as usize);
    // Room in the lanes is room in the channel.
    let (sender, jobs) = mpsc::channel(prompt + backlog);
    let queue = Queue {
        jobs: sender,
        prompt: Arc::new(Semaphore::new(prompt)),
        backlog: Arc::new(Semaphore::new(backlog)),
    };
    (queue, Waiting { jobs, prompt: VecDeque::new(), backlog: VecDeque::new() })
}

impl Queue {
    /// Leaves a job when there is room in its lane, and waits a while for that.
    ///
    /// # Errors
    /// When there is none in time, or the thread has ended.
    pub(super) async fn send(
        &self,
        lane: Lane,
        records: usize,
        run: Run,
    ) -> Result<(), StoreError> {
        let queued = Instant::now();
        let (room, size) = self.room(lane, records);
        let room = tokio::time::timeout(WAIT, room.acquire_many_owned(size)).await;
        let room = room.map_err(|_| StoreError::Overloaded)?.map_err(|_| StoreError::Stopped)?;
        self.leave(Job { run, records, queued, lane, _room: room })
    }

    /// The same without waiting.
    ///
    /// # Errors
    /// When there is no room now, or the thread has ended.
    pub(super) fn try_send(&self, lane: Lane, records: usize, run: Run) -> Result<(), StoreError> {
        let (room, size) = self.room(lane, records);
        let room = room.try_acquire_many_owned(size).map_err(|_| StoreError::Overloaded)?;
        self.leave(Job { run, records, queued: Instant::now(), lane, _room: room })
    }

    fn room(&self, lane: Lane, records: usize) -> (Arc<Semaphore>, u32) {
        match lane {
            Lane::Prompt => (Arc::clone(&self.prompt), 1),
            Lane::Backlog => {
                let size = u32::try_from(records).unwrap_or(u32::MAX);
                (Arc::clone(&self.backlog), size.clamp(1, BACKLOG_RECORDS_MAX))
            }
        }
    }

    fn leave(&self, job: Job) -> Result<(), StoreError> {
        self.jobs.try_send(job).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => StoreError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => StoreError::Stopped,
        })
    }
}

impl Waiting {
    /// The next job; blocks until there is one. `None` when nobody can ask any more and all is done.
    pub(super) fn first(&mut self) -> Option<Job> {
        self.sort();
        let job = self.prompt.pop_front().or_else(|| self.backlog.pop_front());
        job.or_else(|| self.jobs.blocking_recv())
    }

    /// A job that waits and joins a group.
    pub(super) fn join(&mut self, takes: Takes) -> Option<Job> {
        self.sort();
        match takes {
            Takes::All => self.prompt.pop_front().or_else(|| self.backlog.pop_front()),
            Takes::Backlog => self.backlog.pop_front(),
            Takes::Nothing => None,
        }
    }

    /// When the prompt job was left that waits the longest. How long a backlog waits says how much
    /// there is of it, and nothing of the disk.
    pub(super) fn oldest_prompt(&self) -> Option<Instant> {
        self.prompt.front().map(|job| job.queued)
    }

    fn sort(&mut self) {
        while let Ok(job) = self.jobs.try_recv() {
            match job.lane {
                Lane::Prompt => self.prompt.push_back(job),
                Lane::Backlog => self.backlog.push_back(job),
            }
        }
    }
}

impl Job {
    /// Whether it is of the backlog.
    pub(super) fn is_backlog(&self) -> bool {
        self.lane == Lane::Backlog
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Leaves a job with so many records; the number is how it is known again.
    fn leave(queue: &Queue, lane: Lane, records: usize) -> Result<(), StoreError> {
        queue.try_send(lane, records, Box::new(|_| (true, Box::new(|_| ()))))
    }

    fn records(job: Option<Job>) -> Option<usize> {
        job.map(|job| job.records)
    }

    #[test]
    fn what_is_prompt_overtakes_the_backlog_and_joins_the_open_group() {
        let (queue, mut waiting) = queue();
        for size in [100, 101, 102] {
            leave(&queue, Lane::Backlog, size).expect("there is room");
        }
        assert_eq!(records(waiting.first()), Some(100));
        leave(&queue, Lane::Prompt, 1).expect("there is room");
        leave(&queue, Lane::Prompt, 2).expect("there is room");
        let order = std::iter::from_fn(|| records(waiting.join(Takes::All)));
        assert_eq!(order.collect::<Vec<_>>(), [1, 2, 101, 102]);
    }

    #[test]
    fn the_backlogs_share_of_a_group_is_not_for_what_is_prompt() {
        let (queue, mut waiting) = queue();
        for (lane, size) in [(Lane::Prompt, 1), (Lane::Backlog, 100), (Lane::Backlog, 101)] {
            leave(&queue, lane, size).expect("there is room");
        }
        assert_eq!(records(waiting.join(Takes::Backlog)), Some(100));
        assert_eq!(records(waiting.join(Takes::Nothing)), None);
        assert_eq!(records(waiting.first()), Some(1), "nothing is lost");
        assert_eq!(records(waiting.first()), Some(101));
    }

    #[tokio::test(start_paused = true)]
    async fn a_backlog_without_room_takes_none_from_what_is_prompt() {
        let (queue, mut waiting) = queue();
        let most = BACKLOG_RECORDS_MAX as usize;
        leave(&queue, Lane::Backlog, most - 1).expect("there is room");
        assert!(matches!(leave(&queue, Lane::Backlog, 2), Err(StoreError::Overloaded)));
        let waits = queue.send(Lane::Backlog, 2, Box::new(|_| (true, Box::new(|_| ()))));
        assert!(matches!(waits.await, Err(StoreError::Overloaded)), "but for a while only");
        for _ in 0..PROMPT_JOBS_MAX {
            leave(&queue, Lane::Prompt, 1).expect("it has room of its own");
        }
        assert!(matches!(leave(&queue, Lane::Prompt, 1), Err(StoreError::Overloaded)));
        assert_eq!(records(waiting.join(Takes::Backlog)), Some(most - 1));
        leave(&queue, Lane::Backlog, most).expect("room is given back when a job's turn comes");
    }

    #[test]
    fn a_backlog_that_waits_is_no_sign_of_a_disk_that_hangs() {
        let (queue, mut waiting) = queue();
        leave(&queue, Lane::Backlog, 100).expect("there is room");
        for records in [1, 2] {
            leave(&queue, Lane::Prompt, records).expect("there is room");
        }
        let taken = waiting.first().expect("one is prompt");
        assert!(waiting.oldest_prompt().expect("one is left") >= taken.queued);
        assert_eq!(records(waiting.first()), Some(2));
        assert_eq!(waiting.oldest_prompt(), None);
        drop(queue);
        assert_eq!(records(waiting.first()), Some(100));
        assert_eq!(records(waiting.first()), None, "nobody can ask any more");
    }
}
