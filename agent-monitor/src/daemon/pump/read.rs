//! The thread that does nothing but empty the rings.

use std::io;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::{MissedTickBehavior, interval};

use super::{BATCH, Decoded, Item, Mark};
use crate::bpf::{MOST_DENIALS, MapError, Repeats, Rings};
use crate::event::Observed;

/// How often the repeats of denials that were told become records.
const REPEATS: Duration = Duration::from_secs(1);

/// Why the rings are looked at.
enum Reason {
    Events,
    Repeats,
    Mark(Mark),
    Stop,
}

/// What is read: the rings.
pub trait Source {
    /// Waits until something comes that was not there when [`Self::drain`] found nothing.
    async fn readable(&mut self) -> io::Result<()>;

    /// Gives some of what is there now to `each`, without waiting; `false` once there is nothing more.
    fn drain(&mut self, each: impl FnMut(&[u8])) -> bool;

    /// Gives all repeats that are counted now to `each`.
    fn drain_repeats(&self, each: impl FnMut(Repeats<'_>)) -> Result<(), MapError>;
}

impl Source for Rings {
    async fn readable(&mut self) -> io::Result<()> {
        self.readable().await
    }

    fn drain(&mut self, mut each: impl FnMut(&[u8])) -> bool {
        self.drain(BATCH, |_, bytes| each(bytes))
    }

    fn drain_repeats(&self, each: impl FnMut(Repeats<'_>)) -> Result<(), MapError> {
        self.drain_repeats(each)
    }
}

/// Empties the rings until it is stopped, and then once more.
pub async fn read(
    mut rings: impl Source,
    events: &SyncSender<Item>,
    mut stopped: oneshot::Receiver<()>,
    mut marked: mpsc::UnboundedReceiver<Mark>,
    wake: &Notify,
) {
    let mut batch = Vec::with_capacity(BATCH);
    let mut repeats = interval(REPEATS);
    repeats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut more = false;
    loop {
        let reason = tokio::select! {
            _ = &mut stopped => Reason::Stop,
            Some(mark) = marked.recv() => Reason::Mark(mark),
            () = wake.notified() => Reason::Repeats,
            _ = repeats.tick() => Reason::Repeats,
            // Nobody wakes who has not read all. The others are looked at first.
            () = yield_now(), if more => Reason::Events,
            ready = rings.readable() => match ready {
                Ok(()) => Reason::Events,
                Err(error) => {
                    tracing::error!(%error, "cannot wait for events; records end here");
                    Reason::Stop
                }
            },
        };
        // First the rings: an event is in there before its repeats are counted. Not for ever, though more may come all the
        // while: once as many were read as have room, all that was there at first was.
        for _ in 0..=MOST_DENIALS / BATCH {
            more = rings.drain(|bytes| batch.push(Observed::decode(bytes)));
            if !more {
                break;
            }
            pass(&mut batch, events);
        }
        if !matches!(reason, Reason::Events) {
            let result = rings.drain_repeats(|Repeats { event, count, first_ns, last_ns }| {
                take(&mut batch, Observed::repeated(event, count, [first_ns, last_ns]), events);
            });
            if let Err(error) = result {
                tracing::error!(%error, "repeats of denials are not told now, and stay counted");
            }
        }
        pass(&mut batch, events);
        match reason {
            Reason::Events | Reason::Repeats => {}
            Reason::Mark(mark) => drop(events.send(Item::Mark(mark))),
            Reason::Stop => return,
        }
    }
}

fn take(batch: &mut Vec<Decoded>, event: Decoded, events: &SyncSender<Item>) {
    batch.push(event);
    if batch.len() == BATCH {
        pass(batch, events);
    }
}

/// Passes a batch on in the order in which things happened: the two rings were read one after the other.
fn pass(batch: &mut Vec<Decoded>, events: &SyncSender<Item>) {
    batch.sort_by_key(|entry| entry.as_ref().map_or(0, |event| event.header.sequence));
    for entry in batch.drain(..) {
        // Blocks while the queue is full; fails only when the other thread is gone, at the end of the process.
        let _ = events.send(Item::Event(entry));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::rc::Rc;
    use std::sync::mpsc::sync_channel;
    use std::thread;

    /// Rings that are full however much is read of them, until so much was; as in a flood nobody says that there is more.
    struct Flood {
        left: usize,
        repeats_read: Rc<Cell<usize>>,
    }

    impl Source for Flood {
        async fn readable(&mut self) -> io::Result<()> {
            std::future::pending().await
        }

        fn drain(&mut self, mut each: impl FnMut(&[u8])) -> bool {
            let now = self.left.min(BATCH);
            self.left -= now;
            (0..now).for_each(|_| each(&[]));
            now > 0
        }

        fn drain_repeats(&self, _: impl FnMut(Repeats<'_>)) -> Result<(), MapError> {
            self.repeats_read.set(self.repeats_read.get() + 1);
            Ok(())
        }
    }

    #[test]
    fn a_flood_is_read_without_a_pause_and_marks_are_set_in_it() {
        const ROUNDS: usize = 20;
        const ALL: usize = ROUNDS * (MOST_DENIALS / BATCH + 1) * BATCH;
        let (events, queue) = sync_channel(BATCH);
        let (stop, stopped) = oneshot::channel();
        let (marks, marked) = mpsc::unbounded_channel();
        let taking = thread::spawn(move || {
            let (mut count, mut marked_at, mut stop) = (0, None, Some(stop));
            for item in queue {
                match item {
                    Item::Mark(_) => marked_at = Some(count),
                    Item::Event(_) if count == 0 => {
                        count += 1;
                        marks.send(oneshot::channel().0).expect("it is being read");
                    }
                    Item::Event(_) => count += 1,
                }
                if count == ALL && marked_at.is_some() {
                    drop(stop.take());
                }
            }
            (count, marked_at)
        });
        let repeats_read = Rc::new(Cell::new(0));
        let flood = Flood { left: ALL, repeats_read: repeats_read.clone() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can start");
        runtime.block_on(read(flood, &events, stopped, marked, &Notify::new()));
        drop(events);
        let (count, marked_at) = taking.join().expect("no panic");
        assert_eq!(count, ALL);
        assert!(marked_at.is_some_and(|at| at < ALL), "the mark came after all else");
        // They are read each second, at the mark and at the end: more often where each second is waited for.
        assert!(repeats_read.get() < ROUNDS, "there were {} pauses", repeats_read.get());
    }
}
