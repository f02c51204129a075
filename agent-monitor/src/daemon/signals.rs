//! What the daemon is told by signals, from its first steps on: none of them ends it where it stands.

use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// The signals that the daemon waits for.
pub struct Signals {
    /// SIGTERM and SIGINT.
    pub stop: Stop,
    /// SIGHUP; one that came before somebody waited for it is kept.
    pub hangup: Signal,
}

/// Whether the daemon is told to stop.
#[derive(Clone)]
pub struct Stop(watch::Receiver<bool>);

impl Signals {
    /// Takes the signals from now on.
    ///
    /// # Errors
    /// The kernel refused it.
    pub fn take() -> Result<Self> {
        let of = |kind| signal(kind).context("cannot receive signals");
        let (mut terminate, mut interrupt) = (of(SignalKind::terminate())?, of(SignalKind::interrupt())?);
        let (asked, stop) = watch::channel(false);
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            asked.send_replace(true);
            // The signals stay taken: another one must not end the daemon while it stops.
            std::future::pending::<()>().await;
        });
        Ok(Self { stop: Stop(stop), hangup: of(SignalKind::hangup())? })
    }
}

impl Stop {
    /// Of one that is never told.
    pub fn never() -> Self {
        Self(watch::channel(false).1)
    }

    /// Whether it has been told.
    pub fn is_asked(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is told.
    pub async fn asked(&self) {
        if self.0.clone().wait_for(|asked| *asked).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::{Signal, raise};

    #[tokio::test]
    async fn signals_that_come_before_they_are_waited_for_are_kept() {
        let mut signals = Signals::take().expect("signals can be taken");
        assert!(!signals.stop.is_asked() && !Stop::never().is_asked());
        raise(Signal::SIGHUP).expect("it can be sent");
        signals.hangup.recv().await.expect("it was kept");
        raise(Signal::SIGTERM).expect("it can be sent");
        signals.stop.asked().await;
        raise(Signal::SIGTERM).expect("it can be sent");
        assert!(signals.stop.is_asked());
    }
}
