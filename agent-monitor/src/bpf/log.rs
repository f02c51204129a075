//! The log of the kernel programs, in builds with the feature `kernel-log` only: reads it and writes it to our own log.

use super::error::LoadError;
use super::map::MapError;
use aya::Ebpf;
use aya_log::EbpfLogger;
use log::{Level, Log, Metadata, Record};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The map of aya-log.
const MAP: &str = "AYA_LOGS";

/// Reads the log for as long as the runtime runs that this is called in.
pub fn read(object: &mut Ebpf) -> Result<(), LoadError> {
    let logger = EbpfLogger::init_with_logger(object, ToOurs).map_err(|error| MapError::new(MAP, "open", error))?;
    // SAFETY: the logger owns its map's descriptor, gives the same one each time, and keeps it open while it lives.
    let logger = unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) };
    let mut logger = logger.map_err(|error| MapError::new(MAP, "watch", error))?;
    tokio::spawn(async move {
        loop {
            let mut ready = match logger.readable_mut().await {
                Ok(ready) => ready,
                Err(error) => {
                    tracing::error!(%error, "cannot read the log of the kernel programs any more");
                    return;
                }
            };
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    });
    Ok(())
}

/// Writes a line of the kernel programs to the log of this process.
struct ToOurs;

impl Log for ToOurs {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let (program, line) = (record.target(), record.args());
        match record.level() {
            Level::Error => tracing::error!(program, "kernel: {line}"),
            Level::Warn => tracing::warn!(program, "kernel: {line}"),
            Level::Info => tracing::info!(program, "kernel: {line}"),
            Level::Debug | Level::Trace => tracing::debug!(program, "kernel: {line}"),
        }
    }

    fn flush(&self) {}
}
