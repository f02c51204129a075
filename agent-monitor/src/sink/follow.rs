//! Followers: who reads the stream while it is written. Each has a bounded queue; one that is too slow is told how much
//! it missed, and holds nobody up.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::mpsc;

use super::stream::Totals;
use crate::record::{Body, Loss, Record, clock};

/// A record as followers get it: the line, and what filters look at.
#[derive(Debug)]
pub struct Published {
    seq: Option<u64>,
    denied: bool,
    loss: bool,
    agent: Option<String>,
    line: String,
}

impl Published {
    /// What followers get of a record.
    pub fn new(record: &Record, line: String) -> Self {
        Self {
            seq: record.seq,
            denied: matches!(&record.body, Body::Operation(operation) if operation.verdict == "deny"),
            loss: matches!(record.body, Body::Loss(_)),
            agent: record.agent_id().map(str::to_owned),
            line,
        }
    }

    /// The line with its line feed.
    #[cfg(test)]
    pub fn line(&self) -> &str {
        &self.line
    }
}

/// Which records a follower wants. It gets losses too, but those that are another agent's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Denied operations only.
    pub denied: bool,
    /// Records about this agent only.
    pub agent: Option<String>,
}

impl Filter {
    /// Whether a follower with this filter gets the record.
    pub fn takes(&self, record: &Published) -> bool {
        let nobodys_loss = record.loss && record.agent.is_none();
        (!self.denied || record.denied || record.loss)
            && (self.agent.is_none() || self.agent == record.agent || nobodys_loss)
    }
}

/// Passes records on until the follower is gone or the stream ends.
pub async fn follow(
    mut records: broadcast::Receiver<Arc<Published>>,
    filter: Filter,
    node_name: Arc<str>,
    totals: Arc<Totals>,
    follower: mpsc::Sender<String>,
) {
    let mut last = None;
    let mut missed = 0;
    loop {
        let received = tokio::select! {
            received = records.recv() => received,
            () = follower.closed() => return,
        };
        match received {
            Ok(record) => {
                if missed > 0 {
                    totals.follower_lost.fetch_add(missed, Ordering::Relaxed);
                    let line = loss(&node_name, missed, last, record.seq).to_line();
                    missed = 0;
                    if follower.send(line).await.is_err() {
                        return;
                    }
                }
                last = record.seq;
                if filter.takes(&record) {
                    if follower.send(record.line.clone()).await.is_err() {
                        return;
                    }
                    totals.follower_written.fetch_add(1, Ordering::Relaxed);
                }
            }
            Err(RecvError::Lagged(count)) => missed += count,
            Err(RecvError::Closed) => return,
        }
    }
}

fn loss(node_name: &Arc<str>, count: u64, after_seq: Option<u64>, before_seq: Option<u64>) -> Record {
    let (stage, reason) = ("follower".to_owned(), "too_slow".to_owned());
    let loss = Loss { stage, reason, count, after_seq, before_seq, ..Loss::default() };
    Record { time: clock::now(), seq: None, node_name: node_name.clone(), body: Body::Loss(loss) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(seq: u64, denied: bool, agent: &str) -> Arc<Published> {
        let line = format!("{seq}\n");
        Arc::new(Published { seq: Some(seq), denied, loss: false, agent: Some(agent.to_owned()), line })
    }

    #[tokio::test]
    async fn a_slow_follower_is_told_what_it_missed() {
        let (sender, records) = broadcast::channel(4);
        for seq in 1..=10 {
            sender.send(published(seq, true, "a")).expect("there is a receiver");
        }
        drop(sender);
        let (follower, mut lines) = mpsc::channel(16);
        let totals = Arc::new(Totals::default());
        follow(records, Filter::default(), "n".into(), totals.clone(), follower).await;
        let first = Record::parse(&lines.recv().await.expect("a line")).expect("a record");
        let Body::Loss(loss) = first.body else { panic!("{first:?}") };
        assert_eq!((loss.count, loss.after_seq, loss.before_seq), (6, None, Some(7)));
        assert_eq!(lines.recv().await.as_deref(), Some("7\n"));
        assert_eq!(totals.follower_lost.load(Ordering::Relaxed), 6);
    }

    #[test]
    fn filters_take_what_they_name() {
        let record = published(1, false, "a");
        assert!(Filter::default().takes(&record));
        assert!(!Filter { denied: true, agent: None }.takes(&record));
        assert!(Filter { denied: false, agent: Some("a".into()) }.takes(&record));
        assert!(!Filter { denied: false, agent: Some("b".into()) }.takes(&record));
        let loss = Published { seq: None, denied: false, loss: true, agent: None, line: String::new() };
        assert!(Filter { denied: true, agent: Some("b".into()) }.takes(&loss));
    }
}
