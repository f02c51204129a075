//! The classes of operations, their accesses, and the words for what a decision can say.

/// Makes an enum with a `u8` representation, its names, and checked decoding from a byte of the kernel.
macro_rules! byte_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $value:literal, $text:literal;)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum $name { $($(#[$doc])* $variant = $value,)+ }

        impl $name {
            /// Every value, in the order of the numbers.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The word for it in policies, records, metrics and on the command line.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// The value of a byte from the kernel; `None` for a byte that has no meaning.
            #[must_use]
            pub const fn from_byte(byte: u8) -> Option<Self> {
                match byte { $($value => Some(Self::$variant),)+ _ => None }
            }

            /// The value that a word names.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($text => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}
pub(crate) use byte_enum;

byte_enum! {
    /// What kind of operation is judged; a policy has one automaton for each.
    Class {
        /// Files by their resolved path.
        File = 0, "file";
        /// Executables by their resolved path.
        Exec = 1, "exec";
        /// Sockets: creation, addresses, unix paths.
        Network = 2, "network";
        /// System calls by number.
        Syscall = 3, "syscall";
        /// Named powers of the kernel.
        Privilege = 4, "privilege";
        /// Capabilities by number.
        Capability = 5, "capability";
    }
}

/// How many classes there are: the length of arrays indexed by `Class as usize`.
pub const CLASSES: usize = Class::ALL.len();

byte_enum! {
    /// What happens to an operation.
    Verdict {
        /// It is let pass.
        Allow = 0, "allow";
        /// It would be denied, and is let pass because the agent is in audit mode.
        Audit = 1, "audit";
        /// It fails with an errno.
        Deny = 2, "deny";
    }
}

byte_enum! {
    /// Why a verdict was given.
    Reason {
        /// A rule allows it.
        AllowRule = 0, "allow_rule";
        /// A rule denies it.
        DenyRule = 1, "deny_rule";
        /// No rule allows it.
        NoRule = 2, "no_rule";
        /// It could not be decided: see [`Fault`].
        Fault = 3, "fault";
        /// Something that no policy can grant: see [`Builtin`].
        Builtin = 4, "builtin";
    }
}

byte_enum! {
    /// Why an operation could not be decided.
    Fault {
        /// The path is longer than [`crate::limit::PATH_BYTES`] or deeper than [`crate::limit::PATH_STEPS`].
        PathTooLong = 1, "path-too-long";
        /// The path does not end at the root of the task: another mount namespace, or a detached mount.
        PathUnreachable = 2, "path-unreachable";
        /// Kernel memory of the path could not be read, or changed under each of the tries.
        PathUnreadable = 3, "path-unreadable";
        /// All scratch buffers of the CPU were taken.
        NoScratch = 4, "no-scratch";
        /// The binding names a policy slot that holds no image.
        NoImage = 5, "no-image";
        /// A task below the agents root has no binding, because one could not be made for its cgroup.
        NoBinding = 6, "no-binding";
        /// A socket address could not be read or is shorter than its family says.
        AddressUnreadable = 7, "address-unreadable";
        /// A new cgroup could not get the binding of its parent.
        BindingNotCopied = 8, "binding-not-copied";
        /// A directory of the path takes several spellings for one name, which patterns don't know of.
        PathCase = 9, "path-case";
    }
}

byte_enum! {
    /// What no policy can grant.
    Builtin {
        /// A rename or link to a name with more rights.
        MoreRights = 1, "more-rights";
        /// Leaving the agent's cgroup.
        LeaveCgroup = 2, "leave-cgroup";
        /// Writing to the cgroup file system.
        CgroupWrite = 3, "cgroup-write";
        /// Touching the monitor: its process, socket, pins, policies or log.
        Monitor = 4, "monitor";
        /// Tracing or reading a process that is not the same agent's, or changing its keyring.
        OtherAgent = 5, "other-agent";
        /// Acting with credentials that are not the task's own.
        OtherCredentials = 6, "other-credentials";
        /// Executing a program without a filter for system calls, where the policy has rules for them. In audit mode it is
        /// recorded only, unlike the others: it keeps nobody else safe.
        NoSyscallFilter = 7, "no-syscall-filter";
        /// Sending by way of other addresses: a source route, a routing header.
        SourceRoute = 13, "source-route";
        /// Typing into a terminal as if its user did, or changing what it makes of what is typed.
        TerminalInput = 14, "terminal-input";
        /// Taking a terminal, or joining a process group, of a session that is not the agent's.
        OtherSession = 15, "other-session";
        /// Opening the end of a pipe that the process does not have.
        OtherEnd = 16, "other-end";
    }
}

byte_enum! {
    /// What a bound agent's verdicts do.
    Mode {
        /// Denials deny.
        Enforce = 0, "enforce";
        /// Denials are recorded and let pass, except built-in ones.
        Audit = 1, "audit";
    }
}

byte_enum! {
    /// How the system calls of a policy are enforced.
    SyscallEnforcement {
        /// By a filter that is installed where an agent's process is started: the call fails.
        Launch = 0, "launch";
        /// Also by looking at each call of every process of the agent: the process is killed.
        Kill = 1, "kill";
    }
}

byte_enum! {
    /// What an operation gets that cannot be decided.
    OnFault {
        /// It is denied.
        Deny = 0, "deny";
        /// It is let pass, and recorded.
        Allow = 1, "allow";
    }
}

/// Accesses of the class `file`, as bits.
pub mod file {
    /// Open for reading.
    pub const READ: u16 = 1;
    /// Open for writing, truncate.
    pub const WRITE: u16 = 1 << 1;
    /// Make a name: creating open, mkdir, mknod, symlink, the new name of a link.
    pub const CREATE: u16 = 1 << 2;
    /// Remove a name: unlink, rmdir, a name replaced by a rename.
    pub const DELETE: u16 = 1 << 3;
    /// Either name of a rename.
    pub const RENAME: u16 = 1 << 4;
    /// Either name of a hard link.
    pub const LINK: u16 = 1 << 5;
    /// Mode, owner, times, extended attributes.
    pub const SET_ATTRIBUTES: u16 = 1 << 6;
    /// Map executable.
    pub const MAP_EXEC: u16 = 1 << 7;
}

/// The only access of the classes exec, syscall, privilege and capability.
pub const USE: u16 = 1;

/// Accesses of the class `network`, as bits.
pub mod network {
    /// Make a socket.
    pub const CREATE: u16 = 1;
    /// Connect to a peer.
    pub const CONNECT: u16 = 1 << 1;
    /// Send to a peer that is named in the call.
    pub const SEND: u16 = 1 << 2;
    /// Bind to, or listen on, a local address.
    pub const LISTEN: u16 = 1 << 3;
}

/// The access words of a class with their bits, in the order in which records list them.
/// Classes with one access have no words: the slice is empty.
#[must_use]
pub const fn access_words(class: Class) -> &'static [(&'static str, u16)] {
    match class {
        Class::File => &[
            ("read", file::READ),
            ("write", file::WRITE),
            ("create", file::CREATE),
            ("delete", file::DELETE),
            ("rename", file::RENAME),
            ("link", file::LINK),
            ("set-attributes", file::SET_ATTRIBUTES),
            ("map-exec", file::MAP_EXEC),
        ],
        Class::Network => &[
            ("create", network::CREATE),
            ("connect", network::CONNECT),
            ("send", network::SEND),
            ("listen", network::LISTEN),
        ],
        _ => &[],
    }
}

/// All accesses of a class.
#[must_use]
pub const fn all_accesses(class: Class) -> u16 {
    match class {
        Class::File => 0xff,
        Class::Network => 0xf,
        _ => USE,
    }
}
