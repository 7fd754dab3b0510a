//! How a shell talks to a running laboratory: one line of JSON each way over a Unix socket that
//! only root may open.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use crate::fault::Cut;

/// Where a laboratory listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/haidang-lab.sock";
/// An order and an answer are far shorter.
const LINE_BYTES_MAX: u64 = 4096;
/// A cut takes some commands of `ip`.
const TIMEOUT: Duration = Duration::from_secs(20);

/// What a shell may ask for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Order {
    /// Cut an agency.
    Cut {
        /// Its id.
        agency: String,
        /// How.
        cut: Cut,
    },
    /// Undo every cut of an agency.
    Heal {
        /// Its id.
        agency: String,
    },
}

/// What it is told.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Outcome {
    /// Done; in words.
    Done(String),
    /// Not done, and why.
    Failed(String),
}

/// The laboratory's end.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
}

/// One shell that waits for an answer.
#[derive(Debug)]
pub struct Asking {
    /// What it asks for.
    pub order: Order,
    stream: UnixStream,
}

impl Control {
    /// Listens.
    ///
    /// # Errors
    /// When another laboratory listens there already.
    pub async fn listen(path: &Path) -> Result<Self> {
        if UnixStream::connect(path).await.is_ok() {
            bail!("another laboratory listens on {}: stop it first", path.display());
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("remove the old {}", path.display()));
            }
            _ => {}
        }
        let listener =
            UnixListener::bind(path).with_context(|| format!("listen on {}", path.display()))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))
            .with_context(|| format!("close {} to others", path.display()))?;
        Ok(Self { listener, path: path.into() })
    }

    /// The next order that can be understood; others are dropped.
    ///
    /// # Errors
    /// When the socket fails.
    pub async fn next(&self) -> Result<Asking> {
        loop {
            let (mut stream, _) = self.listener.accept().await.context("accept a connection")?;
            let line = tokio::time::timeout(TIMEOUT, read_line(&mut stream)).await;
            let Ok(Ok(line)) = line else { continue };
            if let Ok(order) = serde_json::from_str(&line) {
                return Ok(Asking { order, stream });
            }
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // Left behind, it is removed by the next laboratory.
        let _ = fs::remove_file(&self.path);
    }
}

impl Asking {
    /// Tells the shell. One that has gone away is told nothing.
    pub async fn answer(mut self, outcome: &Outcome) {
        let _ = write_line(&mut self.stream, outcome).await;
    }
}

/// Gives an order to the laboratory that listens there, and returns what it says.
///
/// # Errors
/// When none runs, or it failed.
pub async fn give(path: &Path, order: &Order) -> Result<String> {
    let mut stream = UnixStream::connect(path).await.with_context(|| {
        format!("no laboratory listens on {}: start one with `haidang-lab up`", path.display())
    })?;
    write_line(&mut stream, order).await.context("send the order")?;
    let line = tokio::time::timeout(TIMEOUT, read_line(&mut stream)).await;
    let line = line.context("the laboratory did not answer in time")?.context("read the answer")?;
    match serde_json::from_str(&line).context("read the answer")? {
        Outcome::Done(done) => Ok(done),
        Outcome::Failed(why) => bail!(why),
    }
}

async fn read_line(stream: &mut UnixStream) -> std::io::Result<String> {
    let mut line = String::new();
    BufReader::new(stream.take(LINE_BYTES_MAX)).read_line(&mut line).await?;
    Ok(line)
}

async fn write_line(stream: &mut UnixStream, value: &impl Serialize) -> Result<()> {
    let mut line = serde_json::to_vec(value).context("write as JSON")?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_order_arrives_and_its_outcome_comes_back() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("lab.sock");
        let control = Control::listen(&path).await.expect("listens");
        Control::listen(&path).await.expect_err("one laboratory listens already");
        let laboratory = async {
            // The look of the second laboratory was a connection without an order.
            let asking = control.next().await.expect("an order");
            assert!(
                matches!(&asking.order, Order::Cut { agency, cut: Cut::Link } if agency == "01-018")
            );
            asking.answer(&Outcome::Done("cut".into())).await;
        };
        let order = Order::Cut { agency: "01-018".into(), cut: Cut::Link };
        let (said, ()) = tokio::join!(give(&path, &order), laboratory);
        assert_eq!(said.expect("done"), "cut");
        drop(control);
        give(&path, &order).await.expect_err("nobody listens");
    }
}
