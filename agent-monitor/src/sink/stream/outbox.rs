//! A way into the stream for who must not wait, however long a disk hangs: what finds no room stays with whoever has it. A task
//! carries what was taken on, and waits for room in the queue in its turn, so that a flood of others does not starve it.

use tokio::sync::{mpsc, oneshot};

use super::{Between, Entry, Message};

/// Messages that may wait for the task.
const ROOM: usize = 16;
/// Room that records leave free, where they come in one message after the other: it is for what is done between them.
const KEPT: usize = 4;

/// The way in. What was taken still goes its way when it is dropped.
#[derive(Clone, Debug)]
pub struct Outbox(mpsc::Sender<Message>);

impl Outbox {
    /// Starts the task, in the runtime that this is called in.
    pub(super) fn start(messages: mpsc::Sender<Message>) -> Self {
        let (outbox, mut taken) = mpsc::channel(ROOM);
        tokio::spawn(async move {
            while let Some(message) = taken.recv().await {
                if messages.send(message).await.is_err() {
                    return;
                }
            }
        });
        Self(outbox)
    }

    /// Takes records, in order, if there is room; `false` where there is none, and then nobody was asked for them.
    pub fn write(&self, entries: impl FnOnce() -> Vec<Entry>) -> bool {
        self.0.capacity() > KEPT && self.offer(|| Message::Entries(entries()))
    }

    /// The same, into the last room as well: for who does something behind them.
    pub fn write_before(&self, entries: impl FnOnce() -> Vec<Entry>) -> bool {
        self.offer(|| Message::Entries(entries()))
    }

    /// Has something done in the thread that writes, once everything taken before is written; `false` where there is no room.
    pub fn between(&self, done: Between) -> bool {
        self.offer(|| Message::Between(done))
    }

    /// Answers when everything taken before is written; nothing where there is no room.
    pub fn mark(&self) -> Option<oneshot::Receiver<()>> {
        let (reply, done) = oneshot::channel();
        self.offer(|| Message::Flush(reply)).then_some(done)
    }

    /// Has the audit log looked after: what could not be written is tried again, and it is synced and rotated when it is
    /// time. To be called every second or so; where there is no room another time will do.
    pub fn tick(&self) {
        self.offer(|| Message::Tick);
    }

    /// Hands over records and waits until they and everything taken before are written.
    pub async fn flush(&self, entries: Vec<Entry>) {
        let (reply, done) = oneshot::channel();
        // Sending fails only when the thread is gone, at the end of the process.
        if self.0.send(Message::Entries(entries)).await.is_ok() && self.0.send(Message::Flush(reply)).await.is_ok() {
            let _ = done.await;
        }
    }

    fn offer(&self, message: impl FnOnce() -> Message) -> bool {
        match self.0.try_reserve() {
            Ok(room) => room.send(message()),
            Err(mpsc::error::TrySendError::Full(())) => return false,
            // The thread is gone, at the end of the process: nobody waits for room that never comes.
            Err(mpsc::error::TrySendError::Closed(())) => drop(message()),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Body, Loss, Record, clock};
    use std::time::Duration;

    fn entry(count: u64) -> Entry {
        let body = Body::Loss(Loss { count, ..Loss::default() });
        Record { time: clock::now(), seq: None, node_name: "n".into(), body }.into()
    }

    fn count(message: Message) -> Option<u64> {
        let Message::Entries(entries) = message else { return None };
        entries.into_iter().find_map(|entry| match entry.record.body {
            Body::Loss(loss) => Some(loss.count),
            _ => None,
        })
    }

    #[tokio::test]
    async fn what_finds_no_room_stays_and_what_was_taken_comes_in_order() {
        // Nobody takes anything out of the queue, as if the disk hung.
        let (messages, mut queue) = mpsc::channel(1);
        let outbox = Outbox::start(messages);
        let mut taken = 0;
        let limit = Duration::from_secs(20);
        let full = async {
            loop {
                while outbox.write(|| vec![entry(taken)]) {
                    taken += 1;
                }
                // The task has one in its hands and one in the queue.
                if taken >= (ROOM - KEPT) as u64 + 2 {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(limit, full).await.expect("it does not wait");
        assert!(!outbox.write(|| unreachable!("there is no room")));
        let mark = outbox.mark().expect("room is kept for what is no record");
        for number in 0..taken {
            assert_eq!(queue.recv().await.and_then(count), Some(number));
        }
        let Some(Message::Flush(reply)) = queue.recv().await else { panic!("the mark comes last") };
        reply.send(()).expect("is waited for");
        mark.await.expect("is answered");
    }

    #[tokio::test]
    async fn who_is_dropped_with_records_in_it_hands_them_on() {
        let (messages, mut queue) = mpsc::channel(1);
        let outbox = Outbox::start(messages);
        assert!(outbox.write_before(|| vec![entry(7)]));
        drop(outbox);
        assert_eq!(queue.recv().await.and_then(count), Some(7));
        assert!(queue.recv().await.is_none());
    }
}
