//! A connection whose peer takes nothing of what is sent to it is given up after a time: it holds memory, and a place among
//! the clients.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::http::RequestTotals;

/// How long a peer may take nothing. What answers a request can change it for what it sends.
#[derive(Clone, Debug)]
pub struct Patience(Arc<AtomicU64>);

impl Patience {
    /// So long.
    pub fn new(limit: Duration) -> Self {
        let patience = Self(Arc::default());
        patience.set(limit);
        patience
    }

    /// So long from the next wait on.
    pub fn set(&self, limit: Duration) {
        self.0.store(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn get(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

/// A stream that fails to be written once its peer has taken nothing for too long.
pub struct Stalling<S> {
    stream: S,
    patience: Patience,
    waiting: Option<Pin<Box<Sleep>>>,
    totals: Arc<RequestTotals>,
}

impl<S> Stalling<S> {
    /// This stream, with this patience.
    pub fn new(stream: S, patience: Patience, totals: Arc<RequestTotals>) -> Self {
        Self { stream, patience, waiting: None, totals }
    }

    /// What came of an attempt to write, or the end of the patience.
    fn judge<T>(&mut self, written: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.waiting = None;
            return written;
        }
        let patience = &self.patience;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(patience.get())));
        if waiting.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        self.waiting = None;
        self.totals.stalled.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read its answer")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stalling<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stalling<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.judge(written, context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(context, parts);
        this.judge(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.stream).poll_flush(context);
        this.judge(flushed, context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let shut = Pin::new(&mut this.stream).poll_shutdown(context);
        this.judge(shut, context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_is_given_up_and_one_that_takes_a_little_is_not() {
        let totals = Arc::new(RequestTotals::default());
        let (near, mut far) = tokio::io::duplex(8);
        let patience = Patience::new(Duration::from_secs(10));
        let mut stream = Stalling::new(near, patience.clone(), totals.clone());
        stream.write_all(b"12345678").await.expect("there is room");
        let reading = async {
            let mut byte = [0];
            for _ in 0..4 {
                tokio::time::sleep(Duration::from_secs(9)).await;
                far.read_exact(&mut byte).await.expect("is there");
            }
        };
        let (written, ()) = tokio::join!(stream.write_all(b"1234"), reading);
        written.expect("it took something in time each time");
        assert_eq!(totals.stalled.load(Ordering::Relaxed), 0);
        patience.set(Duration::from_secs(60));
        let began = tokio::time::Instant::now();
        let given_up = stream.write_all(b"9").await.expect_err("nobody reads");
        assert_eq!((given_up.kind(), began.elapsed().as_secs()), (io::ErrorKind::TimedOut, 60));
        assert_eq!(totals.stalled.load(Ordering::Relaxed), 1);
    }
}
