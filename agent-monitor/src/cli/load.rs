//! The command line of `load`, which the daemon starts.

use std::path::PathBuf;

use clap::Args;

use crate::bpf::{LoadOptions, Roots};

/// Options of `load`.
#[derive(Debug, Args)]
pub struct Load {
    /// Process id of the daemon, with which this ends
    #[arg(long)]
    pub parent: u32,
    /// Without LSM programs
    #[arg(long)]
    partial: bool,
    /// Most cgroups that can be bound at once
    #[arg(long)]
    bindings: u32,
    /// Where sysfs is
    #[arg(long)]
    sys: PathBuf,
    /// Where cgroup v2 is
    #[arg(long)]
    cgroup: PathBuf,
    /// The BPF file system to pin on
    #[arg(long)]
    bpffs: PathBuf,
}

impl Load {
    /// How to load.
    pub fn options(self) -> LoadOptions {
        let roots = Roots { sys: self.sys, cgroup: self.cgroup };
        LoadOptions { partial: self.partial, bindings: self.bindings, roots, pins: Some(self.bpffs) }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;
    use std::path::PathBuf;

    use clap::Parser;

    use crate::bpf::{LoadOptions, Roots, loading_words};
    use crate::cli::{Cli, Command};

    #[test]
    fn the_words_of_the_daemon_are_understood() {
        let odd: PathBuf = OsString::from_vec(b"/-\xff".to_vec()).into();
        for partial in [false, true] {
            let roots = Roots { sys: odd.clone(), cgroup: "/c".into() };
            let options = LoadOptions { partial, bindings: 7, roots, pins: Some("/b".into()) };
            let words =
                ["agent-monitor".into()].into_iter().chain(loading_words(&options)).chain(["--parent=1".into()]);
            let cli = Cli::try_parse_from(words);
            let Ok(Cli { command: Command::Load(load), .. }) = cli else { panic!("{cli:?}") };
            assert_eq!((load.parent, load.options()), (1, options));
        }
    }
}
