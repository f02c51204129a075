//! The thread that does nothing but empty the rings.

use std::sync::mpsc::SyncSender;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval};

use super::{BATCH, Decoded, Item, Mark};
use crate::bpf::{MOST_DENIALS, Repeats, Rings};
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

/// Empties the rings until it is stopped, and then once more.
pub async fn read(
    mut rings: Rings,
    events: &SyncSender<Item>,
    mut stopped: oneshot::Receiver<()>,
    mut marked: mpsc::UnboundedReceiver<Mark>,
    wake: &Notify,
) {
    let mut batch = Vec::with_capacity(BATCH);
    let mut repeats = interval(REPEATS);
    repeats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let reason = tokio::select! {
            _ = &mut stopped => Reason::Stop,
            Some(mark) = marked.recv() => Reason::Mark(mark),
            () = wake.notified() => Reason::Repeats,
            _ = repeats.tick() => Reason::Repeats,
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
            if !rings.drain(BATCH, |_, bytes| batch.push(Observed::decode(bytes))) {
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
