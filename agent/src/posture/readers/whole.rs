//! A whole pass by way of its reader, both sides.
//!
//! The question is a line of JSON, what the collector asks for ([`Guidance`]), then the names of
//! checks, a line each, and the end of the writing; the answer a frame of JSON ([`Told`]). The reader is a process of its own for each pass: one that hangs in
//! the kernel keeps the connection open, by which the asker knows that it hangs still, and its
//! checks are not asked for again until it is gone.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use haidang_proto::model::posture::{
    CheckId, MachineKind, Outcome, PostureMeasures, UnknownReason,
};
use serde::{Deserialize, Serialize};

use crate::posture::finding::Unknown;
use crate::posture::pass::{Answer, Figures, Guidance, PASS_MAX, Subject, Workers};
use crate::posture::updates::Update;
use crate::posture::{Check, checks};

use super::{ServeError, Timed, accepted, connect, receive, send};

/// Where the reader is asked unless the configuration says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/haidang/posture.sock";
/// Bytes of a question: thresholds and ports at their most, and every check's name.
const QUESTION_BYTES_MAX: u64 = 20 << 10;
/// Bytes of an answer: 128 bytes seen by each check, and some thousand updates.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// The asker has its question ready.
const QUESTION_BUDGET: Duration = Duration::from_secs(2);
/// The asker waits for nothing else.
const ANSWER_BUDGET: Duration = Duration::from_secs(5);
/// A pass, the last check of which may begin at its end, and the start of the process.
const ASK_BUDGET: Duration = PASS_MAX.saturating_add(Duration::from_secs(30));
/// Readers that may hang at once; the socket unit's `MaxConnections` is twice as many.
const STUCK_MAX: usize = 4;
const WHAT: &str = "posture";

/// The asking side.
#[derive(Debug)]
pub struct Reader {
    socket: PathBuf,
    stuck: Vec<Stuck>,
}

/// A reader that was asked, and has not ended.
#[derive(Debug)]
struct Stuck {
    checks: BTreeSet<CheckId>,
    stream: UnixStream,
}

impl Stuck {
    fn has_ended(&self) -> bool {
        let ended = self.stream.set_nonblocking(true).and_then(|()| {
            // Whatever it says late is of no use; the buffer's size bounds how long we look.
            let mut late = [0; 4096];
            (&mut &self.stream).read(&mut late)
        });
        match ended {
            Ok(read) => read == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }
}

impl Reader {
    /// Nobody is asked yet.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.into(), stuck: Vec::new() }
    }

    /// Has the checks made. Each has an answer: of what the reader did not say, it is unknown.
    pub fn ask(
        &mut self,
        wanted: &[&'static Check],
        guidance: &Guidance,
    ) -> (Vec<Answer>, Figures) {
        self.stuck.retain(|stuck| !stuck.has_ended());
        let begun = Instant::now();
        let hangs = |check: &Check| self.stuck.iter().any(|stuck| stuck.checks.contains(&check.id));
        let (hanging, asked): (Vec<&Check>, Vec<&Check>) =
            wanted.iter().partition(|check| hangs(check));
        let late = |check: &&Check| {
            Answer::unknown(check.id, Unknown::TimedOut(check.tier.deadline()), Duration::ZERO)
        };
        let mut answers: Vec<Answer> = hanging.iter().map(late).collect();
        if self.stuck.len() >= STUCK_MAX {
            answers.extend(asked.iter().map(late));
            return (answers, Figures::unknown());
        }
        let ids: BTreeSet<CheckId> = asked.iter().map(|check| check.id).collect();
        match self.told(&ids, guidance) {
            Ok((told, figures)) => {
                answers.extend(told);
                (answers, figures)
            }
            Err(unknown) => {
                let took = begun.elapsed();
                answers.extend(ids.iter().map(|&id| Answer::unknown(id, unknown.clone(), took)));
                (answers, Figures::unknown())
            }
        }
    }

    fn told(
        &mut self,
        ids: &BTreeSet<CheckId>,
        guidance: &Guidance,
    ) -> Result<(Vec<Answer>, Figures), Unknown> {
        let stream = connect(&self.socket, WHAT)?;
        let unreadable =
            |problem: String| Unknown::Unreadable { what: "posture (reader)".into(), problem };
        let guidance =
            serde_json::to_string(guidance).map_err(|error| unreadable(error.to_string()))?;
        let names: String = ids.iter().map(|id| format!("{id}\n")).collect();
        let asked = Timed::new(&stream, QUESTION_BUDGET)
            .write_all(format!("{guidance}\n{names}").as_bytes())
            .and_then(|()| stream.shutdown(Shutdown::Write));
        asked.map_err(|error| unreadable(error.to_string()))?;
        let received = receive(&stream, ANSWER_BYTES_MAX, ASK_BUDGET, WHAT);
        if let Err(Unknown::TimedOut(_)) = received {
            self.stuck.push(Stuck { checks: ids.clone(), stream });
            return Err(Unknown::TimedOut(ASK_BUDGET));
        }
        let (answers, figures) = Told::read(&received?, ids)?;
        let timeout = Outcome::Unknown(UnknownReason::Timeout);
        let late = answers.iter().filter(|answer| answer.outcome == timeout);
        let checks: BTreeSet<CheckId> = late.map(|answer| answer.check).collect();
        if !checks.is_empty() {
            self.stuck.push(Stuck { checks, stream });
        }
        Ok((answers, figures))
    }
}

/// The serving side: the one connection that is standard input.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    guidance: Guidance,
    wanted: Vec<&'static Check>,
}

impl Connection {
    /// Takes it, with its question.
    ///
    /// # Errors
    /// When there is none, its peer may not ask, or asks for what is none.
    pub fn accept() -> Result<Self, ServeError> {
        let stream = accepted()?;
        let (guidance, wanted) = question(&stream).map_err(ServeError::Question)?;
        Ok(Self { stream, guidance, wanted })
    }

    /// What the asker knows from its collector.
    pub const fn guidance(&self) -> &Guidance {
        &self.guidance
    }

    /// Makes the checks, and answers.
    ///
    /// # Errors
    /// When the peer does not take the answer.
    pub fn serve(self, subject: Subject) -> Result<(), ServeError> {
        let mut workers = Workers::default();
        let mut pass = workers.pass(subject);
        let answers = self.wanted.into_iter().map(|check| pass.make(check)).collect();
        let told = Told::new(answers, pass.figures());
        let json = serde_json::to_vec(&told).map_err(|error| ServeError::Answer(error.into()))?;
        send(&self.stream, &json, ANSWER_BUDGET).map_err(ServeError::Answer)
    }
}

fn question(stream: &UnixStream) -> Result<(Guidance, Vec<&'static Check>), Unknown> {
    let malformed =
        |problem: &str| Unknown::Malformed { what: "question".into(), problem: problem.into() };
    let mut text = String::new();
    let mut bounded = Timed::new(stream, QUESTION_BUDGET).take(QUESTION_BYTES_MAX + 1);
    bounded.read_to_string(&mut text).map_err(|error| malformed(&error.to_string()))?;
    if text.len() as u64 > QUESTION_BYTES_MAX {
        return Err(malformed("is longer than any question"));
    }
    let (guidance, names) =
        text.split_once('\n').ok_or_else(|| malformed("has no line of guidance"))?;
    let guidance = serde_json::from_str(guidance).map_err(|error| malformed(&error.to_string()))?;
    let mut wanted = BTreeSet::new();
    for line in names.lines() {
        let id = CheckId::from_label(line).ok_or_else(|| malformed("names no check"))?;
        wanted.insert(id);
    }
    // In the order of the pass, whatever the order of the question.
    Ok((guidance, checks().filter(|check| wanted.contains(&check.id)).collect()))
}

/// What the reader says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Told {
    answers: Vec<ToldAnswer>,
    machine: MachineKind,
    malware_signature_age_s: Option<u64>,
    certificate_remaining_s: Option<u64>,
    updates: Option<Vec<Update>>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ToldAnswer {
    check: CheckId,
    outcome: Outcome,
    observed: String,
    took_us: u64,
}

impl Told {
    fn new(answers: Vec<Answer>, figures: Figures) -> Self {
        let Figures { machine, measures, updates } = figures;
        let seconds = |duration: Option<Duration>| duration.map(|duration| duration.as_secs());
        let answer = |Answer { check, outcome, observed, took }| ToldAnswer {
            check,
            outcome,
            observed,
            took_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        };
        Self {
            answers: answers.into_iter().map(answer).collect(),
            machine,
            malware_signature_age_s: seconds(measures.malware_signature_age),
            certificate_remaining_s: seconds(measures.certificate_remaining),
            updates,
        }
    }

    /// An answer to each check that was asked for, and to no other.
    fn read(json: &[u8], asked: &BTreeSet<CheckId>) -> Result<(Vec<Answer>, Figures), Unknown> {
        let malformed =
            |problem: String| Unknown::Malformed { what: "posture (reader)".into(), problem };
        let told: Self =
            serde_json::from_slice(json).map_err(|error| malformed(error.to_string()))?;
        let answered: BTreeSet<CheckId> = told.answers.iter().map(|answer| answer.check).collect();
        if answered != *asked || told.answers.len() != asked.len() {
            return Err(malformed("answers other checks than it was asked for".into()));
        }
        let answer = |ToldAnswer { check, outcome, observed, took_us }| Answer {
            check,
            outcome,
            observed,
            took: Duration::from_micros(took_us),
        };
        let measures = PostureMeasures {
            malware_signature_age: told.malware_signature_age_s.map(Duration::from_secs),
            certificate_remaining: told.certificate_remaining_s.map(Duration::from_secs),
            ..PostureMeasures::default()
        };
        let figures = Figures { machine: told.machine, measures, updates: told.updates };
        Ok((told.answers.into_iter().map(answer).collect(), figures))
    }
}
