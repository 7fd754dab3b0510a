//! What a program did to the files of a directory, in order, as strace(1) saw it: the system calls
//! that change files or make them durable, with the bytes. A call counts when it has returned, so
//! that what is acknowledged before a sync returns does not lean on it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use super::writer::ACKNOWLEDGED;

/// Every call by which a file is changed, named, removed or made durable. One that the replay does
/// not know is an error, not an omission.
const CALLS: &str = "trace=open,openat,creat,write,writev,pwrite64,pwritev,pwritev2,ftruncate,\
                     truncate,fallocate,fsync,fdatasync,sync_file_range,unlink,unlinkat,rename,\
                     renameat,renameat2,link,linkat,symlink,symlinkat";
/// SQLite's shared memory. It is mapped, never synced, and made anew after a crash.
const SHARED_MEMORY: &str = "-shm";

/// One operation on a file of the directory, or an acknowledgement that went out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Operation {
    /// A name was opened, and made if it was not there.
    Opened(String),
    /// Bytes were written.
    Wrote {
        /// Name of the file.
        file: String,
        /// Where.
        offset: usize,
        /// What.
        bytes: Vec<u8>,
    },
    /// A file was cut or made longer.
    Truncated {
        /// Name of the file.
        file: String,
        /// Its new length.
        length: usize,
    },
    /// A file was made durable, without its name.
    Synced(String),
    /// The directory's names were made durable.
    DirectorySynced,
    /// A name was removed.
    Removed(String),
    /// Records up to this one were told to be durable.
    Acknowledged {
        /// Which journal.
        journal: usize,
        /// The number.
        seq: u64,
    },
}

/// Runs a command to its end and records what it does below a directory.
///
/// # Errors
/// When strace is missing, the command fails, or it does something that cannot be replayed.
pub(super) fn record(command: &Command, directory: &Path) -> Result<Vec<Operation>> {
    let trace = directory.with_extension("trace");
    let mut strace = Command::new("strace");
    strace.args(["-f", "--seccomp-bpf", "-qq", "-y", "-xx", "-s", "16777216", "-e", "signal=none"]);
    strace.args(["-e", CALLS, "-o"]).arg(&trace);
    strace.arg(command.get_program()).args(command.get_args()).stdout(Stdio::null());
    let status = strace.status().context("start strace: apt-get install strace")?;
    ensure!(status.success(), "{strace:?}: {status}");
    let file = File::open(&trace).with_context(|| format!("open {}", trace.display()))?;
    let directory = directory.to_str().context("a temporary directory's name is UTF-8")?;
    read(BufReader::new(file), directory)
}

fn read(trace: impl BufRead, directory: &str) -> Result<Vec<Operation>> {
    let mut operations = Vec::new();
    // Calls that have begun, by thread.
    let mut begun: HashMap<String, String> = HashMap::new();
    for line in trace.lines() {
        let line = line.context("read the trace")?;
        let (thread, text) = line.split_once(' ').context("a line names its thread")?;
        let text = text.trim_start();
        if text.starts_with("+++") {
            continue;
        }
        let whole = if let Some(head) = text.strip_suffix(" <unfinished ...>") {
            // Told as soon as it is said.
            match acknowledgement(head)? {
                Some(told) => operations.push(told),
                None => drop(begun.insert(thread.to_owned(), head.to_owned())),
            }
            continue;
        } else if let Some(resumed) = text.strip_prefix("<... ") {
            let Some(head) = begun.remove(thread) else { continue };
            let (_, rest) = resumed.split_once(" resumed>").context("a call is resumed")?;
            head + rest
        } else {
            text.to_owned()
        };
        let told = acknowledgement(&whole)?;
        let seen = match told {
            Some(told) => Some(told),
            None => operation(&whole, directory).with_context(|| shortened(&whole))?,
        };
        operations.extend(seen);
    }
    Ok(operations)
}

/// What was written to the standard output.
fn acknowledgement(call: &str) -> Result<Option<Operation>> {
    let Some(arguments) = call.strip_prefix("write(1<") else { return Ok(None) };
    let bytes = arguments.split(", ").nth(1).context("write has bytes")?;
    let text = String::from_utf8(bytes_of(bytes)?).context("it is text")?;
    let Some(told) = text.trim_end().strip_prefix(ACKNOWLEDGED) else { return Ok(None) };
    let (journal, seq) = told.trim().split_once(' ').context("a journal and a number")?;
    Ok(Some(Operation::Acknowledged { journal: journal.parse()?, seq: seq.parse()? }))
}

/// A whole call; `None` when it failed or is about something else.
fn operation(call: &str, directory: &str) -> Result<Option<Operation>> {
    let (name, rest) = call.split_once('(').context("a call has arguments")?;
    let (arguments, result) = rest.rsplit_once(" = ").context("a call has a result")?;
    let arguments = arguments.trim_end().strip_suffix(')').context("a call's arguments end")?;
    if result.starts_with("-1") || result.starts_with('?') {
        return Ok(None);
    }
    // Bytes and names are hexadecimal: no comma is inside one.
    let arguments: Vec<&str> = arguments.split(", ").collect();
    let argument = |at: usize| arguments.get(at).copied().context("an argument is missing");
    let path = match name {
        "open" | "creat" | "unlink" | "truncate" | "rename" | "link" | "symlink" => argument(0)?,
        "openat" | "unlinkat" => argument(1)?,
        "renameat" | "renameat2" | "linkat" | "symlinkat" => argument(1)?,
        _ => argument(0)?.split_once('<').context("a descriptor has a path")?.1,
    };
    let path = String::from_utf8(bytes_of(path)?).context("a path is text")?;
    let Some(below) = path.strip_prefix(directory) else { return Ok(None) };
    let Some(file) = below.strip_prefix('/').map(str::to_owned) else {
        return Ok((name == "fsync").then_some(Operation::DirectorySynced));
    };
    if file.ends_with(SHARED_MEMORY) {
        return Ok(None);
    }
    let number = |at: usize| Ok::<usize, anyhow::Error>(argument(at)?.parse()?);
    Ok(match name {
        "openat" if argument(2)?.contains("O_TRUNC") => bail!("a file is opened and emptied"),
        "openat" if argument(2)?.contains("O_CREAT") => Some(Operation::Opened(file)),
        "openat" => None,
        "pwrite64" => {
            let mut bytes = bytes_of(argument(1)?)?;
            let written = result.split(' ').next().unwrap_or(result).parse()?;
            ensure!(bytes.len() >= written, "the trace has not all the bytes");
            bytes.truncate(written);
            Some(Operation::Wrote { file, offset: number(3)?, bytes })
        }
        "ftruncate" => Some(Operation::Truncated { file, length: number(1)? }),
        "fsync" | "fdatasync" => Some(Operation::Synced(file)),
        "unlink" | "unlinkat" => Some(Operation::Removed(file)),
        other => bail!("{other} cannot be replayed"),
    })
}

/// Of a text such as `"\x61\x62"` or `\x61\x62>`.
fn bytes_of(text: &str) -> Result<Vec<u8>> {
    let inside = text.trim_matches(['"', '>', '<']);
    let digits = inside.split("\\x").skip(1);
    digits
        .map(|digits| {
            let digits = digits.get(..2).context("two digits")?;
            u8::from_str_radix(digits, 16).with_context(|| format!("{digits} is no byte"))
        })
        .collect()
}

fn shortened(call: &str) -> String {
    call.chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> String {
        text.bytes().map(|byte| format!("\\x{byte:02x}")).collect()
    }

    #[test]
    fn calls_are_read_in_the_order_of_their_ends_and_acknowledgements_at_their_beginning() {
        let file = hex("/d/a");
        let (pipe, ack) = (hex("pipe:[1]"), hex("ack 2 17\n"));
        let trace = format!(
            "7 openat(AT_FDCWD<{cwd}>, \"{file}\", O_RDWR|O_CREAT, 0644) = 3<{file}>\n\
             7 pwrite64(3<{file}>, \"{bytes}\", 3, 8) = 2\n\
             7 fdatasync(3<{file}> <unfinished ...>\n\
             8 write(1<{pipe}>, \"{ack}\", 9 <unfinished ...>\n\
             7 <... fdatasync resumed>) = 0\n\
             8 <... write resumed>) = 9\n\
             7 fsync(4<{directory}>)    = 0\n\
             7 pwrite64(5<{shm}>, \"{bytes}\", 3, 0) = 3\n\
             7 unlink(\"{other}\") = 0\n\
             7 unlink(\"{file}\") = -1 ENOENT (No such file or directory)\n\
             7 +++ exited with 0 +++\n",
            cwd = hex("/"),
            bytes = hex("xyz"),
            directory = hex("/d"),
            shm = hex("/d/a-shm"),
            other = hex("/e/a"),
        );
        let a = || "a".to_owned();
        let expected = vec![
            Operation::Opened(a()),
            Operation::Wrote { file: a(), offset: 8, bytes: b"xy".to_vec() },
            Operation::Acknowledged { journal: 2, seq: 17 },
            Operation::Synced(a()),
            Operation::DirectorySynced,
        ];
        assert_eq!(read(trace.as_bytes(), "/d").expect("it is understood"), expected);
        let unknown = format!("7 rename(\"{file}\", \"{file}\") = 0\n");
        assert!(read(unknown.as_bytes(), "/d").is_err(), "nothing is left out in silence");
    }
}
