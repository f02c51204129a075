//! Followers of the events over the control socket: so many at once, each with a bounded queue.

use tokio::sync::mpsc;

use crate::control::api::{self, Refusal};
use crate::control::{Answer, Peer, Places};
use crate::sink::Stream;
use crate::sink::follow::{Filter, follow};

/// Followers at once; a quarter is root's alone.
const FOLLOWERS: usize = 32;
/// Lines that may wait for one of them, beside the records that it may be behind.
const LINES: usize = 256;

/// Room for followers.
#[derive(Clone, Debug)]
pub struct Followers(Places);

impl Default for Followers {
    fn default() -> Self {
        Self(Places::new(FOLLOWERS))
    }
}

impl Followers {
    /// Gives one more what it asks for, from now on; or refuses it, where there are too many.
    pub fn start(
        &self,
        stream: &Stream,
        node_name: &str,
        filter: api::Follow,
        peer: Peer,
        answer: Answer<mpsc::Receiver<String>>,
    ) {
        let Some(place) = self.0.take(peer) else {
            drop(answer.send(Err(Refusal::TooMany(format!("{} follow the events already", self.0.number(peer))))));
            return;
        };
        let (lines, follower) = mpsc::channel(LINES);
        // Subscribed before the answer: who has the answer misses nothing that comes after.
        let records = stream.subscribe();
        let filter = Filter { denied: filter.denied, agent: filter.agent };
        let following = follow(records, filter, node_name.into(), stream.totals().clone(), lines);
        tokio::spawn(async move {
            following.await;
            drop(place);
        });
        drop(answer.send(Ok(follower)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::client::ClientError;
    use crate::control::served::Served;
    use crate::control::{Limits, Request};
    use crate::record::{Body, MonitorChange, Record, clock};
    use crate::sink::Options;

    struct Fixture {
        stream: Stream,
        served: Served,
    }

    async fn fixture(name: &str) -> Fixture {
        let (stream, _thread) = Stream::start(Options::default()).expect("a thread can be started");
        let (served, mut asked) = Served::start(name, Limits::default()).await;
        let followed = stream.clone();
        tokio::spawn(async move {
            let followers = Followers::default();
            while let Some(request) = asked.recv().await {
                if let Request::Follow(filter, peer, answer) = request {
                    followers.start(&followed, "n", filter, peer, answer);
                }
            }
        });
        Fixture { stream, served }
    }

    fn record() -> Record {
        let (action, version, enforcement) = ("ready".to_owned(), "0".to_owned(), "full".to_owned());
        let body = Body::Monitor(MonitorChange { action, version, enforcement, messages: Vec::new() });
        Record { time: clock::now(), seq: None, node_name: "n".into(), body }
    }

    #[tokio::test]
    async fn a_slow_follower_holds_nobody_up_and_gets_or_is_told_of_every_record() {
        const RECORDS: u64 = 40_000;
        let fixture = fixture("slow").await;
        let mut lines = fixture.served.client.lines("/v1/events").await.expect("is answered");
        for _ in 0..RECORDS / 100 {
            fixture.stream.write(std::iter::repeat_with(|| record().into()).take(100).collect()).await;
        }
        // All is written, though the follower has read nothing yet.
        fixture.stream.flush().await;
        let (mut last, mut got, mut missed) = (0, 0, 0);
        while last < RECORDS {
            let line = lines.next().await.expect("no error").expect("it goes on");
            let record = Record::parse(&line).expect("is a record");
            match (record.body, record.seq) {
                (Body::Loss(loss), None) => {
                    assert_eq!((loss.stage.as_str(), loss.after_seq.unwrap_or(0)), ("follower", last));
                    assert_eq!(loss.before_seq, Some(last + loss.count + 1));
                    missed += loss.count;
                    last += loss.count;
                }
                (_, seq) => {
                    assert_eq!(seq, Some(last + 1));
                    got += 1;
                    last += 1;
                }
            }
        }
        assert_eq!(got + missed, RECORDS);
        assert!(missed > 0, "nothing was missed, so nothing was shown");
    }

    #[tokio::test]
    async fn one_follower_too_many_is_refused_until_another_is_gone() {
        let fixture = fixture("many").await;
        let mut all = Vec::new();
        for _ in 0..FOLLOWERS {
            all.push(fixture.served.client.lines("/v1/events").await.expect("is answered"));
        }
        let refused = fixture.served.client.lines("/v1/events").await.err();
        assert!(matches!(refused, Some(ClientError::Refused { status: 429, .. })), "{refused:?}");
        all.pop();
        let answered = async {
            // Its place is free once the daemon has seen that it is gone.
            while fixture.served.client.lines("/v1/events").await.is_err() {}
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), answered).await.expect("there is room again");
    }

    #[tokio::test]
    async fn those_who_may_only_read_leave_room_for_root() {
        let (stream, _thread) = Stream::start(Options::default()).expect("a thread can be started");
        let followers = Followers::default();
        let start = async |peer| {
            let (answer, answered) = tokio::sync::oneshot::channel();
            followers.start(&stream, "n", api::Follow::default(), peer, answer);
            answered.await.expect("is answered")
        };
        let mut readers = Vec::new();
        let refused = loop {
            match start(Peer::Reader).await {
                Ok(lines) => readers.push(lines),
                Err(refusal) => break refusal,
            }
        };
        assert_eq!(readers.len(), FOLLOWERS * 3 / 4);
        assert!(matches!(refused, Refusal::TooMany(message) if message.starts_with("24 follow")));
        assert!(start(Peer::Root).await.is_ok());
    }
}
