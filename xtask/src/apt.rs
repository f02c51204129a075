//! Debian suites that this machine does not itself use, reached by an apt configuration of our own in the cache. The
//! mirror and its keys are the machine's: no host name is written here, and nothing unsigned is taken.

mod sources;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process;
use sources::Source;

/// Keys of the Debian archive, where Debian's own package puts them.
const ARCHIVE_KEYRINGS: [&str; 2] =
    ["/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/debian-archive-keyring.pgp"];

/// The Debian mirror that this machine uses.
#[derive(Debug)]
pub struct Mirror {
    uri: String,
    /// The suite that the machine itself uses.
    own_suite: String,
    keyring: Option<PathBuf>,
    dir: PathBuf,
}

/// A suite whose package lists are in the cache.
#[derive(Debug)]
pub struct Suite {
    options: Vec<String>,
    name: String,
}

impl Mirror {
    /// Reads the machine's apt sources. `dir` is where our own package lists go.
    pub fn find(dir: &Path) -> Result<Self> {
        process::need("apt-get").context("fetch Debian packages: this works on Debian only")?;
        let codename = fs::read_to_string("/etc/os-release")
            .unwrap_or_default()
            .lines()
            .find_map(|line| line.strip_prefix("VERSION_CODENAME=").map(str::to_owned))
            .unwrap_or_default();
        let all = machine_sources();
        let archive =
            |source: &&Source| source.suite == codename || ["stable", "testing", "sid"].contains(&&*source.suite);
        let source = all.iter().find(archive).with_context(|| {
            format!(
                "find a Debian mirror: no apt source of this machine holds the suite `{codename}` with component main"
            )
        })?;
        let keyring = source
            .signed_by
            .iter()
            .map(PathBuf::from)
            .chain(ARCHIVE_KEYRINGS.map(PathBuf::from))
            .find(|path| path.is_file());
        Ok(Self { uri: source.uri.clone(), own_suite: source.suite.clone(), keyring, dir: dir.to_path_buf() })
    }

    /// Fetches the package lists of a suite. Signatures are checked; where the machine's keys are older than the suite,
    /// by those of the `debian-archive-keyring` that the machine's own suite (checked by the machine's keys) has now.
    pub fn suite(&self, name: &str) -> Result<Suite> {
        eprintln!("xtask: reading the package list of Debian {name}");
        let newer = self.dir.join("debian-archive-keyring.gpg");
        let keyring = if newer.is_file() { Some(newer.clone()) } else { self.keyring.clone() };
        let failure = match self.update(name, keyring.as_deref()) {
            Ok(suite) => return Ok(suite),
            Err(failure) => failure,
        };
        let text = format!("{failure:#}");
        if newer.is_file() || !(text.contains("NO_PUBKEY") || text.contains("EXPKEYSIG") || text.contains("not signed"))
        {
            return Err(failure);
        }
        eprintln!("xtask: this machine's keys do not know Debian {name}; taking the newer debian-archive-keyring");
        self.fetch_keyring(&newer).with_context(|| format!("get keys that know Debian {name}"))?;
        self.update(name, Some(&newer))
    }

    fn update(&self, name: &str, keyring: Option<&Path>) -> Result<Suite> {
        let dir = self.dir.join(name);
        for part in ["lists/partial", "cache/archives/partial"] {
            let part = dir.join(part);
            fs::create_dir_all(&part).with_context(|| format!("create {}", part.display()))?;
        }
        let signed_by = keyring.map_or_else(String::new, |path| format!(" signed-by={}", path.display()));
        let list = dir.join("sources.list");
        fs::write(&list, format!("deb [arch=amd64{signed_by}] {} {name} main\n", self.uri))
            .with_context(|| format!("write {}", list.display()))?;
        let suite = Suite { options: options(&dir, &list), name: name.to_owned() };
        // Without the option an outdated list would be an old answer with a warning.
        let mut update = suite.command("apt-get");
        update.args(["-q", "-o", "APT::Update::Error-Mode=any", "update"]);
        let attempt = format!("read the package list of Debian {name}");
        process::output(&mut update, &attempt).map_err(|error| self.without_host(&error))?;
        Ok(suite)
    }

    /// The mirror is this machine's affair, and no part of what we print and others keep.
    fn without_host(&self, error: &anyhow::Error) -> anyhow::Error {
        let host = self.uri.split("://").nth(1).and_then(|rest| rest.split('/').next()).unwrap_or(&self.uri);
        anyhow::anyhow!(format!("{error:#}").replace(&self.uri, "MIRROR").replace(host, "MIRROR"))
    }

    fn fetch_keyring(&self, to: &Path) -> Result<()> {
        let own = self.update(&self.own_suite, self.keyring.as_deref())?;
        let dir = tempfile::tempdir_in(&self.dir)?;
        own.unpack(&["debian-archive-keyring".to_owned()], dir.path())?;
        let found = ARCHIVE_KEYRINGS
            .iter()
            .map(|path| dir.path().join(path.trim_start_matches('/')))
            .find(|path| path.is_file())
            .context("debian-archive-keyring holds no keyring under a known name")?;
        fs::copy(&found, to).with_context(|| format!("copy {}", found.display()))?;
        Ok(())
    }
}

impl Suite {
    /// Names of packages that begin with `prefix`.
    pub fn packages(&self, prefix: &str) -> Result<Vec<String>> {
        let names = process::output(
            self.command("apt-cache").args(["pkgnames", prefix]),
            &format!("list {prefix}* of Debian {}", self.name),
        )?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// Versions of a package that the suite holds.
    pub fn versions(&self, package: &str) -> Result<Vec<String>> {
        let table = process::output(
            self.command("apt-cache").args(["madison", package]),
            &format!("list the versions of {package} in Debian {}", self.name),
        )?;
        let version = |row: &str| Some(row.split('|').nth(1)?.trim().to_owned());
        Ok(table.lines().filter_map(version).collect())
    }

    /// Downloads packages (`NAME` or `NAME=VERSION`) and unpacks them into `dir`; nothing is installed.
    pub fn unpack(&self, packages: &[String], dir: &Path) -> Result<()> {
        let debs = tempfile::tempdir_in(dir)?;
        process::output(
            self.command("apt-get").args(["-q", "download"]).args(packages).current_dir(debs.path()),
            &format!("download {} of Debian {}", packages.join(", "), self.name),
        )?;
        unpack(debs.path(), dir)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for option in &self.options {
            command.args(["-o", option]);
        }
        command
    }
}

/// Installs packages on this machine, which takes root.
pub fn install(packages: &[&str]) -> Result<()> {
    let apt_get = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").stdin(std::process::Stdio::null()).arg("-q");
        command
    };
    process::run(apt_get().arg("update"), "read the package lists")?;
    process::run(
        apt_get().args(["install", "--yes", "--no-install-recommends"]).args(packages),
        &format!("install {}", packages.join(", ")),
    )
}

fn options(dir: &Path, list: &Path) -> Vec<String> {
    let mut options: Vec<String> = [
        ("Dir::Etc::sourcelist", list.to_path_buf()),
        ("Dir::Etc::sourceparts", "/dev/null".into()),
        ("Dir::State::Lists", dir.join("lists")),
        ("Dir::Cache", dir.join("cache")),
    ]
    .iter()
    .map(|(name, path)| format!("{name}={}", path.display()))
    .collect();
    // Only the list of packages; and no change of user, since the cache is the user's own. Hooks of the machine's own
    // updates have no business here.
    options.extend(
        [
            "Acquire::Languages=none",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
            "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false",
            "Acquire::Retries=3",
            "APT::Sandbox::User=",
        ]
        .map(str::to_owned),
    );
    options
}

fn unpack(debs: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(debs).with_context(|| format!("read {}", debs.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            let mut extract = Command::new("dpkg-deb");
            extract.arg("-x").arg(&path).arg(to);
            process::output(&mut extract, &format!("unpack {}", path.display()))?;
        }
    }
    Ok(())
}

fn machine_sources() -> Vec<Source> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(entries.flatten().map(|entry| entry.path()));
    }
    files.sort();
    files
        .iter()
        .filter_map(|path| {
            let text = fs::read_to_string(path).ok()?;
            match path.extension()?.to_str()? {
                "list" => Some(sources::parse_list(&text)),
                "sources" => Some(sources::parse_deb822(&text)),
                _ => None,
            }
        })
        .flatten()
        .collect()
}
