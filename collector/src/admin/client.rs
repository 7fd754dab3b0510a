//! The command line's side of the admin socket. Blocking: it is all that its process does.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use super::{ANSWER_BYTES_MAX, AdminAnswer, AdminRequest, TRANSFER_WAIT, WORK_WAIT, socket_path};

/// No answer from the collector.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// It does not run, or this user may not ask it.
    #[error(
        "cannot reach the collector at {path}; see that it runs, and run this as its user or root"
    )]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It went away.
    #[error("the collector did not answer; see its log")]
    Exchange(#[source] io::Error),
    /// It is another version.
    #[error("the collector's answer is not understood; use the same version")]
    Answer(#[source] serde_json::Error),
}

/// Asks the collector of a state directory.
///
/// # Errors
/// When it cannot be asked or its answer not be read.
pub fn ask(state_dir: &Path, request: &AdminRequest) -> Result<AdminAnswer, AskError> {
    let path = socket_path(state_dir);
    let mut stream = UnixStream::connect(&path)
        .map_err(|source| AskError::Connect { path: path.clone(), source })?;
    let mut exchange = || {
        stream.set_write_timeout(Some(TRANSFER_WAIT))?;
        stream.set_read_timeout(Some(WORK_WAIT + TRANSFER_WAIT))?;
        stream.write_all(&serde_json::to_vec(request)?)?;
        stream.shutdown(std::net::Shutdown::Write)?;
        let mut answer = Vec::new();
        (&stream).take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
        Ok(answer)
    };
    let answer = exchange().map_err(AskError::Exchange)?;
    serde_json::from_slice(&answer).map_err(AskError::Answer)
}
