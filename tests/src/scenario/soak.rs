//! Everything at once for a long time: agents come and go, some with a policy of their own, policies change, the daemon is
//! killed, followers come and go.
//! Nothing of it may pile up, and each denial is accounted for.

pub mod gauge;
mod ledger;

use std::fs;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::images;
use super::races::{Stop, either};
use crate::harness::cgroup::{self, Cgroup};
use crate::harness::control::{SOCKET, ask};
use crate::harness::daemon::{Daemon, Directory, PLACE, uninstall};
use crate::harness::wait::limit;
use crate::harness::{EACCES, Outcome, Process, Scenario, policy};
use crate::{scenarios, step};
use gauge::Gauge;
use ledger::Ledger;

pub const ALONE: &[Scenario] = scenarios![Soak: agents_policies_daemons_and_followers_come_and_go_and_nothing_piles_up];

/// How many seconds it goes on, where the environment has no `SOAK_SECONDS`.
const SECONDS: u64 = 180;
/// Agents that come and go in a second, as far as the machine can.
const LIVES: u32 = 100;
/// How often the daemon is killed.
const KILLED: Duration = Duration::from_secs(20);
/// How often the policy changes.
const CHANGED: Duration = Duration::from_secs(1);
const NAME: &str = "soak";

/// Where the soak has what is its own.
struct Place(Directory);

impl Place {
    fn make() -> Result<Self> {
        let place = Self(Directory(Path::new(PLACE).join("soak")));
        fs::create_dir_all(place.policies())?;
        for name in ["never", "always", "one", "two"] {
            fs::write(place.file(name), name)?;
        }
        let (log, policies) = (place.log(), place.policies());
        let settings =
            format!("audit_log = {log:?}\npolicies_dir = {policies:?}\n[audit]\nmax_bytes = {}\nkeep = 8\n", 16 << 20);
        fs::write(place.settings(), settings)?;
        place.change(0)?;
        Ok(place)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.0.join(name)
    }

    fn log(&self) -> PathBuf {
        self.file("audit.jsonl")
    }

    fn policies(&self) -> PathBuf {
        self.file("policies")
    }

    fn settings(&self) -> PathBuf {
        self.file("config.toml")
    }

    /// Puts the policy's next version into the policy directory, which the daemon watches.
    fn change(&self, number: usize) -> Outcome {
        let file = self.file(["one", "two"][number % 2]);
        let new = self.file("policy.new");
        fs::write(&new, policy::document(NAME, &either(&file, &self.file("always")), Path::new("/")))?;
        Ok(fs::rename(new, self.policies().join(format!("{NAME}.yaml")))?)
    }
}

/// What all threads know.
#[derive(Default)]
struct Common {
    stop: AtomicBool,
    lives: AtomicU64,
    changes: AtomicU64,
    bound: AtomicU64,
    followers: AtomicU64,
}

impl Common {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Acquire)
    }
}

fn agents_policies_daemons_and_followers_come_and_go_and_nothing_piles_up() -> Outcome {
    let seconds = std::env::var("SOAK_SECONDS").ok().map(|text| text.parse()).transpose()?.unwrap_or(SECONDS);
    let place = Place::make()?;
    let settings = place.settings().to_string_lossy().into_owned();
    let options = ["--config", settings.as_str()];
    let mut daemon = Daemon::start(&options)?;
    let mut ledger = Ledger::open(place.log())?;
    let common = Common::default();
    let mut gauge = Gauge::default();
    let mut outsider = Process::start()?;
    let start = Instant::now();
    let end = start + Duration::from_secs(seconds);
    // At the end no more: so long a daemon lives that what it would pile up shows.
    let last_kill = start + Duration::from_secs(seconds / 4 * 3);
    let mut kills = 0;
    let (lived, ledger) = std::thread::scope(|scope| -> Result<(Outcome, Result<Ledger>)> {
        let stop = Stop(&common.stop);
        let lives = scope.spawn(|| live(&place, &common));
        let changes = scope.spawn(|| change(&place, &common));
        let binds = scope.spawn(|| bind(&common));
        let follows = scope.spawn(|| follow(&common));
        let reads = scope.spawn(|| -> Result<Ledger> {
            while common.goes_on() {
                ledger.read()?;
                std::thread::sleep(Duration::from_millis(200));
            }
            Ok(ledger)
        });
        let mut next_kill = start + KILLED;
        while Instant::now() < end && !lives.is_finished() && !changes.is_finished() && !reads.is_finished() {
            std::thread::sleep(Duration::from_secs(1));
            if Instant::now() >= next_kill && Instant::now() < last_kill {
                daemon.kill();
                daemon.start_again(&options)?;
                kills += 1;
                next_kill += KILLED;
            }
            gauge.sample(daemon.pid(), start.elapsed(), images::count(&mut outsider)?)?;
        }
        drop(stop);
        let join = |result: std::thread::Result<Outcome>| result.map_err(|_| anyhow::anyhow!("a thread panicked"))?;
        let ended = join(lives.join()).and(join(changes.join())).and(join(binds.join())).and(join(follows.join()));
        let ledger = reads.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?;
        Ok((ended, ledger))
    })?;
    lived?;
    let mut ledger = ledger?;
    let lives = common.lives.load(Ordering::Acquire);
    ledger.until(lives, limit())?;
    let took = start.elapsed().as_secs_f32();
    println!(
        "{took:.0} s: {lives} agents ({:.0} a second), {} changes of the policy, {} agents with their own, {kills} daemons killed, \
         {} followers",
        lives as f32 / seconds as f32,
        common.changes.load(Ordering::Acquire),
        common.bound.load(Ordering::Acquire),
        common.followers.load(Ordering::Acquire)
    );
    println!("{}", ledger.sums());
    println!("{}", gauge.table());
    let status = ask("GET", "/v1/status", &Value::Null)?;
    ensure!(status["ready"] == true, "it is not ready: {status}");
    ensure!(daemon.stop()?.success(), "the daemon did not end well");
    uninstall()?;
    ledger.check()?;
    gauge.check()
}

/// Agents, one after the other: each is made below the agents root, does what is allowed and twice what is denied, and goes.
fn live(place: &Place, common: &Common) -> Outcome {
    let home = Cgroup::make("/scenarios/soak")?;
    let mut process = Process::start_in(&home.directory())?;
    let (never, always) = (step!("open", place.file("never"), "r"), step!("open", place.file("always"), "r"));
    let mut next = Instant::now();
    while common.goes_on() {
        let number = common.lives.load(Ordering::Acquire);
        let agent = cgroup::directory(&format!("/agents.slice/{NAME}/life{number}"));
        fs::create_dir(&agent).with_context(|| format!("make {}", agent.display()))?;
        cgroup::enter(&agent, process.pid())?;
        process.works(&always, "what is allowed")?;
        process.expect(&never, EACCES, "what is denied")?;
        process.expect(&never, EACCES, "what is denied")?;
        cgroup::enter(&home.directory(), process.pid())?;
        fs::remove_dir(&agent).with_context(|| format!("remove {}", agent.display()))?;
        common.lives.fetch_add(1, Ordering::AcqRel);
        next = (next + Duration::from_secs(1) / LIVES).max(Instant::now());
        std::thread::sleep(next - Instant::now());
    }
    Ok(())
}

fn change(place: &Place, common: &Common) -> Outcome {
    for number in 1.. {
        if !common.goes_on() {
            break;
        }
        place.change(number)?;
        common.changes.fetch_add(1, Ordering::AcqRel);
        std::thread::sleep(CHANGED);
    }
    Ok(())
}

/// A cgroup that is bound and unbound, each time to a policy of its own. What a daemon that was killed had bound is unbound
/// first; while none runs there is nobody to ask.
fn bind(common: &Common) -> Outcome {
    let cgroup = Cgroup::make("/scenarios/soak-bound")?;
    let agents = || ask("GET", "/v1/agents", &Value::Null);
    let unbind = || -> Outcome {
        for agent in agents()?.as_array().into_iter().flatten().filter(|agent| agent["cgroup"] == cgroup.path) {
            let id = agent["id"].as_str().context("an agent has an id")?;
            ask("DELETE", &format!("/v1/agents/{id}"), &Value::Null)?;
        }
        Ok(())
    };
    while common.goes_on() {
        let number = common.bound.load(Ordering::Acquire);
        let spec = format!("files:\n  - {{allow: [read], paths: [\"/none{number}\"]}}\n");
        let text = policy::document("soak-bound", &spec, Path::new("/"));
        let documents = json!([{"name": "", "path": "soak-bound.yaml", "text": text}]);
        let bound =
            unbind().and_then(|()| ask("POST", "/v1/agents", &json!({"documents": documents, "cgroup": cgroup.path})));
        if bound.is_ok() {
            common.bound.fetch_add(1, Ordering::AcqRel);
        }
        std::thread::sleep(CHANGED);
    }
    unbind()
}

/// Followers: some read, some do not, and all go without a word.
fn follow(common: &Common) -> Outcome {
    use std::io::Write;
    let mut bytes = [0; 16 << 10];
    while common.goes_on() {
        // While no daemon runs there is nobody to ask.
        let Ok(mut stream) = UnixStream::connect(SOCKET) else {
            std::thread::sleep(Duration::from_millis(100));
            continue;
        };
        stream.set_read_timeout(Some(Duration::from_millis(500)))?;
        let asked = stream.write_all(b"GET /v1/events HTTP/1.1\r\nHost: node\r\n\r\n");
        let number = common.followers.fetch_add(1, Ordering::AcqRel);
        if asked.is_ok() && !number.is_multiple_of(4) {
            for _ in 0..20 {
                if !stream.read(&mut bytes).is_ok_and(|count| count > 0) {
                    break;
                }
            }
        } else {
            std::thread::sleep(Duration::from_secs(1));
        }
    }
    Ok(())
}
