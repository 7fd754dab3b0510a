//! A connection that notes how its reader fares: whether an answer waits for it, and when it last
//! took something. What counts is what the kernel takes; once its buffer is full, that is what the
//! reader takes.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// How the reader of a connection fares.
#[derive(Debug)]
pub(super) struct Reader {
    began: Instant,
    /// When it last took something, in microseconds after `began`.
    took_us: AtomicU64,
    is_awaited: AtomicBool,
}

impl Reader {
    /// One that has taken nothing yet.
    pub(super) fn new(now: Instant) -> Self {
        Self { began: now, took_us: AtomicU64::new(0), is_awaited: AtomicBool::new(false) }
    }

    /// Whether an answer waits for it.
    pub(super) fn is_awaited(&self) -> bool {
        self.is_awaited.load(Ordering::Relaxed)
    }

    /// Since it last took something, or since the connection began.
    pub(super) fn rest(&self, now: Instant) -> Duration {
        let took = Duration::from_micros(self.took_us.load(Ordering::Relaxed));
        now.saturating_duration_since(self.began).saturating_sub(took)
    }

    fn note(&self, written: &Poll<io::Result<usize>>) {
        match written {
            Poll::Pending => self.is_awaited.store(true, Ordering::Relaxed),
            Poll::Ready(Ok(_)) => {
                let took = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
                self.took_us.store(took, Ordering::Relaxed);
                self.is_awaited.store(false, Ordering::Relaxed);
            }
            // It ends by that.
            Poll::Ready(Err(_)) => {}
        }
    }
}

/// A connection whose reader is watched. Dropped while an answer waits, it is reset: what nobody
/// reads does not stay with the kernel.
#[derive(Debug)]
pub(super) struct Watched {
    stream: TcpStream,
    reader: Arc<Reader>,
}

impl Watched {
    /// Watches the reader of a connection.
    pub(super) fn new(stream: TcpStream, reader: Arc<Reader>) -> Self {
        Self { stream, reader }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if self.reader.is_awaited()
            && let Err(error) = self.stream.set_zero_linger()
        {
            tracing::debug!(%error, "what was not read stays with the kernel for a while");
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.reader.note(&written);
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.reader.note(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn who_never_reads_is_awaited_and_reset_and_who_reads_is_neither() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it has one");
        let mut peer = TcpStream::connect(address).await.expect("it listens");
        let (stream, _) = listener.accept().await.expect("it came");
        let reader = Arc::new(Reader::new(Instant::now()));
        let mut watched = Watched::new(stream, Arc::clone(&reader));
        let mut took = 0;
        let block = [7; 64 << 10];
        // Until the kernel takes no more.
        while let Ok(written) =
            tokio::time::timeout(Duration::from_millis(200), watched.write(&block)).await
        {
            took += written.expect("it is open");
        }
        assert!(reader.is_awaited() && reader.rest(Instant::now()) >= Duration::from_millis(150));
        let mut read = vec![0; took];
        peer.read_exact(&mut read).await.expect("all that was taken");
        let asked = Instant::now();
        watched.write_all(b"on").await.expect("there is room again");
        assert!(!reader.is_awaited() && reader.rest(asked).is_zero());
        while tokio::time::timeout(Duration::from_millis(200), watched.write(&block)).await.is_ok()
        {
        }
        drop(watched);
        let mut left = Vec::new();
        let reset = peer.read_to_end(&mut left).await.expect_err("not a clean end");
        assert_eq!(reset.kind(), io::ErrorKind::ConnectionReset);
    }
}
