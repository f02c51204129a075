//! From the bytes of a ring to an owned event: checked here once, so that everything after can trust it.

use agent_monitor_common::class::{Class, Reason, Verdict};
use agent_monitor_common::event::{DecodeError, Event, EventHeader, kind};
use agent_monitor_common::hook::HookId;

/// An event that has left the ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The header.
    pub header: EventHeader,
    /// The class.
    pub class: Class,
    /// The hook.
    pub hook: HookId,
    /// The verdict.
    pub verdict: Verdict,
    /// The reason.
    pub reason: Reason,
    /// The reason as records say it, with the fault or built-in after a colon.
    pub reason_text: String,
    /// The object's operand.
    pub object: Box<[u8]>,
    /// The new object's operand; empty where there is none.
    pub new_object: Box<[u8]>,
    /// How many times it happened.
    pub count: u64,
    /// When for the first time, nanoseconds of the boot clock, where the time in the header is that of the last.
    pub first_ns: Option<u64>,
}

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// An operation was judged.
    Operation,
    /// A cgroup was made below a bound one.
    CgroupMade {
        /// Its id.
        cgroup: u64,
        /// Id of the cgroup that it was made in.
        parent: u64,
    },
    /// A bound cgroup is gone.
    CgroupReleased {
        /// Its id.
        cgroup: u64,
    },
    /// A cgroup could not be bound.
    BindingLost {
        /// Its id.
        cgroup: u64,
    },
}

impl Observed {
    /// Decodes one entry of a ring.
    ///
    /// # Errors
    /// The bytes are none that a program of ours writes; no bytes make it panic.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let event = Event::decode(bytes)?;
        let detail = event.fault().map(|fault| fault.name()).or(event.builtin().map(|builtin| builtin.name()));
        let reason_text = match detail {
            Some(detail) => format!("{}:{detail}", event.reason.name()),
            None => event.reason.name().to_owned(),
        };
        Ok(Self {
            header: event.header,
            class: event.class,
            hook: event.hook,
            verdict: event.verdict,
            reason: event.reason,
            reason_text,
            object: event.object.into(),
            new_object: event.new_object.into(),
            count: 1,
            first_ns: None,
        })
    }

    /// Decodes an event that happened `count` times again, between these moments of the boot clock.
    ///
    /// # Errors
    /// As for [`Self::decode`].
    pub fn repeated(bytes: &[u8], count: u64, [first_ns, last_ns]: [u64; 2]) -> Result<Self, DecodeError> {
        let mut event = Self::decode(bytes)?;
        event.header.boot_ns = last_ns;
        event.count = count;
        event.first_ns = (count > 1).then_some(first_ns);
        Ok(event)
    }

    /// What the event is about.
    pub fn subject(&self) -> Subject {
        let cgroup = self.header.cgroup;
        match self.header.kind {
            kind::CGROUP_MADE => Subject::CgroupMade { cgroup, parent: self.header.value },
            kind::CGROUP_RELEASED => Subject::CgroupReleased { cgroup },
            kind::BINDING_LOST => Subject::BindingLost { cgroup },
            _ => Subject::Operation,
        }
    }
}

/// The word for an errno that a program of ours returns.
pub fn errno_word(errno: u16) -> Option<String> {
    match errno {
        0 => None,
        1 => Some("EPERM".to_owned()),
        13 => Some("EACCES".to_owned()),
        other => Some(format!("errno-{other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_monitor_common::event::{EVENT_VERSION, HEADER_BYTES};

    #[test]
    fn hostile_bytes_are_refused_and_never_panic() {
        let mut seed = 1_u64;
        for length in 0..HEADER_BYTES + 8 {
            for _ in 0..50 {
                let mut bytes = vec![0_u8; length];
                for byte in &mut bytes {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    *byte = (seed >> 33) as u8;
                }
                if let [low, high, ..] = bytes.as_mut_slice() {
                    [*low, *high] = EVENT_VERSION.to_ne_bytes();
                }
                let _ = Observed::decode(&bytes);
            }
        }
        assert_eq!(Observed::decode(&[]), Err(DecodeError::Short));
    }

    #[test]
    fn passed_operations_have_no_errno() {
        assert_eq!(errno_word(0), None);
        assert_eq!(errno_word(13).as_deref(), Some("EACCES"));
    }
}
