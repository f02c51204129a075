//! Places that are few, such as connections. A quarter of them is root's alone: whoever may only read can't take so many that
//! root is turned away.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::peer::Peer;

/// What of all places is root's alone.
const ROOTS: usize = 4;

/// The places.
#[derive(Clone, Debug)]
pub struct Places {
    all: Arc<Semaphore>,
    /// Those that others than root may have.
    others: Arc<Semaphore>,
    number: usize,
    others_number: usize,
}

/// A place that somebody has, until this is dropped.
#[derive(Debug)]
pub struct Place {
    _one: OwnedSemaphorePermit,
    _of_others: Option<OwnedSemaphorePermit>,
}

impl Places {
    /// So many places.
    pub fn new(number: usize) -> Self {
        Self::with(number, number - number / ROOTS)
    }

    /// So many, of which nobody has any alone.
    pub fn for_all(number: usize) -> Self {
        Self::with(number, number)
    }

    fn with(number: usize, others_number: usize) -> Self {
        let places = |number| Arc::new(Semaphore::new(number));
        Self { all: places(number), others: places(others_number), number, others_number }
    }

    /// How many there are for such a peer.
    pub fn number(&self, peer: Peer) -> usize {
        if peer == Peer::Root { self.number } else { self.others_number }
    }

    /// A place for a peer, if there is one.
    pub fn take(&self, peer: Peer) -> Option<Place> {
        let take = |places: &Arc<Semaphore>| places.clone().try_acquire_owned().ok();
        let of_others = if peer == Peer::Root { None } else { Some(take(&self.others)?) };
        Some(Place { _one: take(&self.all)?, _of_others: of_others })
    }

    /// Waits until nobody has one.
    pub async fn emptied(&self) {
        let all = u32::try_from(self.number).unwrap_or(u32::MAX);
        // Nobody closes it.
        let _ = self.all.acquire_many(all).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(places: &Places, peer: Peer, most: usize) -> Vec<Place> {
        std::iter::from_fn(|| places.take(peer)).take(most).collect()
    }

    #[test]
    fn others_leave_a_quarter_of_the_places_to_root_and_root_may_have_all() {
        let places = Places::new(64);
        let mut readers = take(&places, Peer::Reader, 40);
        readers.extend(take(&places, Peer::Other, 64));
        assert_eq!((readers.len(), places.number(Peer::Reader)), (48, 48));
        assert!(places.take(Peer::Reader).is_none());
        let roots = take(&places, Peer::Root, 64);
        assert_eq!((roots.len(), places.number(Peer::Root)), (16, 64));
        drop(readers);
        assert_eq!(take(&places, Peer::Root, 64).len(), 48);
        drop(roots);
        assert_eq!(take(&places, Peer::Reader, 64).len(), 48);
    }

    #[tokio::test]
    async fn where_nobody_has_any_alone_all_are_for_all_and_are_given_back() {
        let places = Places::for_all(2);
        let taken = take(&places, Peer::Other, 3);
        assert_eq!(taken.len(), 2);
        drop(taken);
        places.emptied().await;
        assert_eq!(take(&Places::new(1), Peer::Reader, 2).len(), 1);
    }
}
