//! Kernels to boot: which release a name such as `6.1` or `newest` means, and the copy of it in the cache.

mod package;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, bail};

use crate::apt::{Mirror, Suite};
use crate::workspace::{self, Workspace};

/// Suites in which a series is looked for, where `HOMES` names none for it.
const SUITES: [&str; 5] = ["trixie-backports", "forky", "sid", "trixie", "bookworm"];
/// Suites whose own kernel is of a series; asking them first saves reading the lists of the others.
const HOMES: [(&str, &str); 2] = [("6.1", "bookworm"), ("6.12", "trixie")];
/// Suites among which the newest kernel is.
const NEWEST: [&str; 3] = ["trixie-backports", "forky", "sid"];
/// Suites whose kernels make up all that Debian has, the oldest first.
const ALL_SUITES: [&str; 7] =
    ["bullseye", "bookworm", "bookworm-backports", "trixie", "trixie-backports", "forky", "sid"];

/// What a user may ask for with `--kernel`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spec {
    /// The highest release that Debian has.
    Newest,
    /// The highest release of a series, such as `6.12`.
    Series(String),
    /// A kernel image of the user's own.
    Path(PathBuf),
    /// A release that is in the cache, as [`all`] leaves it.
    Cached(String),
}

/// A kernel that can be booted.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// The release, as `uname -r` says it, or the file's name for a kernel of the user's own.
    pub release: String,
    /// The image to boot.
    pub image: PathBuf,
    /// Modules to load, in this order.
    pub modules: Vec<PathBuf>,
}

impl FromStr for Spec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_series =
            |text: &str| text.split('.').count() == 2 && text.split('.').all(|part| part.parse::<u32>().is_ok());
        match text {
            "newest" => Ok(Self::Newest),
            _ if is_series(text) => Ok(Self::Series(text.to_owned())),
            _ if Path::new(text).is_file() => Ok(Self::Path(text.into())),
            _ => Err(format!("`{text}` is no series such as 6.12, not `newest`, and no file")),
        }
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Newest => f.write_str("newest"),
            Self::Series(name) | Self::Cached(name) => f.write_str(name),
            Self::Path(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Returns the kernel that a name stands for, from the cache or, the first time, from a Debian mirror.
pub fn get(workspace: &Workspace, spec: &Spec) -> Result<Kernel> {
    if let Spec::Path(path) = spec {
        return package::of_user(path);
    }
    let _lock = workspace.lock_cache()?;
    match cached(workspace, spec) {
        Some(kernel) => Ok(kernel),
        None => fetch(workspace, spec),
    }
}

/// Asks the mirror again which release a name stands for; its answer is what `get` returns from then on.
pub fn update(workspace: &Workspace, spec: &Spec) -> Result<Kernel> {
    let _lock = workspace.lock_cache()?;
    fetch(workspace, spec)
}

/// The name's entry in the cache is a symbolic link to the directory of the release.
fn cached(workspace: &Workspace, spec: &Spec) -> Option<Kernel> {
    let dir = fs::canonicalize(kernels(workspace).join(spec.to_string())).ok()?;
    package::open(&dir).ok()
}

fn kernels(workspace: &Workspace) -> PathBuf {
    workspace.cache.join("kernels-2")
}

fn fetch(workspace: &Workspace, spec: &Spec) -> Result<Kernel> {
    let mirror = Mirror::find(&workspace.cache.join("apt")).with_context(|| format!("get kernel {spec}"))?;
    let (suite, release) = resolve(&mirror, spec).with_context(|| format!("get kernel {spec}"))?;
    let kernel = fetch_release(workspace, &suite, &release)?;
    let kernels = kernels(workspace);
    let link = kernels.join(spec.to_string());
    let new_link = kernels.join(format!("{spec}.new"));
    let _ = fs::remove_file(&new_link);
    std::os::unix::fs::symlink(&release, &new_link).with_context(|| format!("link {}", new_link.display()))?;
    workspace::put(&new_link, &link)?;
    Ok(kernel)
}

fn fetch_release(workspace: &Workspace, suite: &Suite, release: &str) -> Result<Kernel> {
    let kernels = kernels(workspace);
    let dir = kernels.join(release);
    if let Ok(kernel) = package::open(&dir) {
        return Ok(kernel);
    }
    eprintln!("xtask: downloading linux {release}");
    fs::create_dir_all(&kernels).with_context(|| format!("create {}", kernels.display()))?;
    let part = tempfile::tempdir_in(&kernels)?;
    package::download(suite, release, part.path()).with_context(|| format!("get linux {release}"))?;
    workspace::put(&part.keep(), &dir)?;
    package::open(&dir)
}

/// All that Debian has.
#[derive(Debug)]
pub struct Stock {
    /// The highest release of each series, the oldest series first, each with the name of its suite.
    pub kernels: Vec<(Kernel, &'static str)>,
    /// Suites whose package lists could not be read.
    pub unread: Vec<&'static str>,
}

/// Finds and fetches the highest release of each series that Debian's suites hold.
pub fn all(workspace: &Workspace) -> Result<Stock> {
    let _lock = workspace.lock_cache()?;
    let mirror = Mirror::find(&workspace.cache.join("apt")).context("get all kernels of Debian")?;
    let mut found: BTreeMap<(u32, u32), (String, usize)> = BTreeMap::new();
    let (mut suites, mut unread) = (Vec::new(), Vec::new());
    for name in ALL_SUITES {
        let suite = match mirror.suite(name) {
            Ok(suite) => suite,
            Err(failure) => {
                eprintln!("xtask: leaving out Debian {name}: {failure:#}");
                unread.push(name);
                continue;
            }
        };
        for release in suite.packages("linux-image-")?.into_iter().filter_map(|package| cloud_release(&package)) {
            let Some(series) = series(&release).filter(|_| !is_candidate(&release)) else { continue };
            let best = found.entry(series).or_insert_with(|| (release.clone(), suites.len()));
            if rank(&best.0) < rank(&release) {
                *best = (release, suites.len());
            }
        }
        suites.push((suite, name));
    }
    let mut kernels = Vec::new();
    for (release, at) in found.into_values() {
        let (suite, name) = &suites[at];
        kernels.push((fetch_release(workspace, suite, &release)?, *name));
    }
    Ok(Stock { kernels, unread })
}

/// The series of a release: its first two numbers.
pub fn series(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn resolve(mirror: &Mirror, spec: &Spec) -> Result<(Suite, String)> {
    let mut found: Option<(Suite, String)> = None;
    let names: Vec<&str> = match spec {
        Spec::Newest => NEWEST.to_vec(),
        Spec::Series(series) => {
            let home = HOMES.iter().filter(|(of, _)| of == series).map(|(_, suite)| *suite);
            home.chain(SUITES).collect()
        }
        Spec::Cached(release) => bail!("linux {release} is not in the cache any more"),
        Spec::Path(path) => bail!("{} is no kernel of Debian", path.display()),
    };
    let mut failures = Vec::new();
    for name in &names {
        let suite = match mirror.suite(name) {
            Ok(suite) => suite,
            Err(failure) => {
                eprintln!("xtask: leaving out Debian {name}: {failure:#}");
                failures.push(*name);
                continue;
            }
        };
        let releases = suite.packages("linux-image-")?.into_iter().filter_map(|package| cloud_release(&package));
        let best = releases.filter(|release| belongs(release, spec)).max_by_key(|release| rank(release));
        let Some(best) = best else { continue };
        if found.as_ref().is_none_or(|(_, other)| rank(other) < rank(&best)) {
            found = Some((suite, best));
        }
        if matches!(spec, Spec::Series(_)) {
            break;
        }
    }
    found.with_context(|| match failures.as_slice() {
        [] => format!(
            "no linux-image-{spec}*-cloud-amd64 is left in {}, and none is cached; give another series, or a kernel's file with --kernel PATH",
            names.join(", ")
        ),
        failures => format!("the package lists of {} cannot be read, see above; no other suite has it", failures.join(", ")),
    })
}

/// The release of a package of a stock cloud kernel: not its debug symbols, not its unsigned twin, not the meta package.
fn cloud_release(package: &str) -> Option<String> {
    let release = package.strip_prefix("linux-image-")?;
    let is_stock = release.ends_with("-cloud-amd64") && release.starts_with(|c: char| c.is_ascii_digit());
    is_stock.then(|| release.to_owned())
}

fn belongs(release: &str, spec: &Spec) -> bool {
    match spec {
        Spec::Newest => true,
        Spec::Series(series) => {
            release.strip_prefix(series.as_str()).is_some_and(|rest| rest.starts_with(['.', '-', '+', '~']))
        }
        Spec::Cached(_) | Spec::Path(_) => false,
    }
}

/// Orders releases: any final one is above every release candidate, then by the numbers in it.
fn rank(release: &str) -> (bool, Vec<u64>) {
    let numbers = release.trim_end_matches("-cloud-amd64").split(|c: char| !c.is_ascii_digit());
    (!is_candidate(release), numbers.filter_map(|number| number.parse().ok()).collect())
}

fn is_candidate(release: &str) -> bool {
    release.contains("rc")
}

#[cfg(test)]
mod tests {
    use super::{Spec, belongs, cloud_release, rank, series};

    #[test]
    fn a_name_is_a_series_or_newest_or_a_file() {
        assert_eq!("newest".parse(), Ok(Spec::Newest));
        assert_eq!("6.12".parse(), Ok(Spec::Series("6.12".into())));
        assert!("6.12.1".parse::<Spec>().is_err());
        assert!("/no/such/vmlinuz".parse::<Spec>().is_err());
        assert!(matches!("/proc/self/exe".parse(), Ok(Spec::Path(_))));
    }

    #[test]
    fn only_stock_cloud_kernels_are_taken() {
        assert_eq!(cloud_release("linux-image-6.1.0-50-cloud-amd64").as_deref(), Some("6.1.0-50-cloud-amd64"));
        for other in ["linux-image-cloud-amd64", "linux-image-6.1.0-50-cloud-amd64-dbg", "linux-image-6.1.0-50-amd64"] {
            assert_eq!(cloud_release(other), None, "{other}");
        }
    }

    #[test]
    fn a_series_is_not_a_prefix_of_numbers() {
        let series = Spec::Series("6.1".into());
        assert!(belongs("6.1.0-50-cloud-amd64", &series));
        assert!(!belongs("6.12.107+deb13-cloud-amd64", &series));
        assert!(belongs("7.3-cloud-amd64", &Spec::Series("7.3".into())));
    }

    #[test]
    fn the_series_is_the_first_two_numbers() {
        assert_eq!(series("6.12.107+deb13-cloud-amd64"), Some((6, 12)));
        assert_eq!(series("7.3-cloud-amd64"), Some((7, 3)));
        assert_eq!(series("vmlinuz"), None);
    }

    #[test]
    fn the_highest_final_release_wins() {
        let mut releases = ["7.3.4+deb13", "7.4~rc5", "7.2.12+deb14", "6.1.0-9", "6.1.0-50"];
        releases.sort_by_key(|release| rank(release));
        assert_eq!(releases, ["7.4~rc5", "6.1.0-9", "6.1.0-50", "7.2.12+deb14", "7.3.4+deb13"]);
    }
}
