//! The terminal of who starts `run`: the command has another one, and another session, so it can do nothing to the first.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, ensure};

use crate::harness::wait::{ended, limit};
use crate::harness::{Outcome, Scenario, Scene, Terminal, cgroup, policy};
use crate::{scenarios, step};

pub const ALL: &[Scenario] = scenarios![Node:
    run_has_a_session_and_a_terminal_of_its_own,
    no_signal_from_a_terminal_reaches_run_or_its_caller,
    no_signal_from_a_terminal_stops_who_tends_the_command,
    a_command_at_a_terminal_needs_no_calls_but_its_own,
    run_stops_and_goes_on_as_its_command_does,
    a_command_in_the_background_reads_nothing_that_is_typed,
    run_before_others_in_a_pipeline_takes_the_terminal_when_its_command_reads,
    run_without_a_terminal_has_a_session_of_its_own,
];

/// Those that must have no daemon.
pub const ALONE: &[Scenario] = scenarios![Alone:
    run_without_a_daemon_has_a_session_and_a_terminal_of_its_own,
];

const SPEC: &str = r#"
files:
  - {allow: [read], paths: ["/proc/self/maps"]}
  - {allow: [read, write], paths: ["/dev/{null,tty}", "anon:pipe"]}
exec:
  - {allow: ["/root/scenarios", "/bin/busybox"]}
privileges:
  - {allow: [signal-same-agent]}
"#;

fn place() -> anyhow::Result<PathBuf> {
    place_with(SPEC)
}

fn place_with(spec: &str) -> anyhow::Result<PathBuf> {
    let place = PathBuf::from("/tmp/scenarios-terminal");
    fs::create_dir_all(&place)?;
    fs::write(place.join("policy.yaml"), policy::document("terminal-scenario", spec, &place))?;
    Ok(place)
}

/// Starts `run` as a job of the terminal's leader: in the `fg` or `bg`, with these descriptors, with this command.
fn start(
    terminal: &mut Terminal,
    place: &Path,
    how: &str,
    descriptors: &str,
    command: &[&str],
) -> anyhow::Result<String> {
    let policy = place.join("policy.yaml");
    let mut step = step!("job", how, descriptors, "/usr/local/bin/agent-monitor", "run", "--policy", policy, "--");
    step.extend(command.iter().map(|word| word.as_bytes().to_vec()));
    Ok(terminal.leader.works(&step, "start run")?.to_string())
}

const TRIGGER: &[&str] = &["/root/scenarios", "trigger"];

/// A command in the foreground of a terminal, which is raw for it: the terminal, and the job.
fn at_a_terminal(place: &Path) -> anyhow::Result<(Terminal, String)> {
    let mut terminal = Terminal::make()?;
    terminal.resize(31, 97)?;
    let job = start(&mut terminal, place, "fg", "ttt", TRIGGER)?;
    terminal.wait_served()?;
    Ok((terminal, job))
}

fn ends(terminal: &mut Terminal, job: &str, status: i64) -> Outcome {
    let found = terminal.leader.works(&step!("job-wait", job), "wait for run")?;
    ensure!(found == status, "run ended with {found}, not {status}");
    terminal.leader.works(&step!("nothing"), "afterwards, the leader").map(drop)
}

/// Waits until `run` has stopped with its command.
fn stops(terminal: &mut Terminal, job: &str) -> Outcome {
    let status = terminal.leader.works(&step!("job-wait", job), "wait for run")?;
    ensure!(status == 2000 + i64::from(libc::SIGSTOP), "run has the status {status}, and did not stop");
    Ok(())
}

/// Lets `run` go on in the foreground.
fn goes_on(terminal: &mut Terminal, job: &str) -> Outcome {
    terminal.leader.works(&step!("job-continue", job), "let run go on").map(drop)
}

fn own_session_and_terminal() -> Outcome {
    let place = place()?;
    let (mut terminal, job) = at_a_terminal(&place)?;
    let leader = terminal.leader.pid();
    let runs_session = terminal.leader.works(&step!("session-of", job), "look at run")?;
    ensure!(runs_session == i64::from(leader), "run is in the session {runs_session}");
    let (session, group) = (terminal.does(&step!("session-of", "0"))?, terminal.does(&step!("group-of", "0"))?);
    ensure!(session != runs_session && group.to_string() != job, "session {session}, group {group}");
    ensure!(terminal.does(&step!("has-terminal"))? == 1, "standard descriptors are not the session's terminal");
    let size = terminal.does(&step!("window-size"))?;
    ensure!(size == 31_097, "the size is {size}");
    terminal.resize(40, 120)?;
    // A command that does not wait for the signal asks until it is there.
    let deadline = Instant::now() + limit();
    while terminal.does(&step!("window-size"))? != 40_120 {
        ensure!(Instant::now() < deadline, "the size does not change");
    }
    every_byte(&mut terminal)?;
    ensure!(!terminal.is_cooked()?, "the terminal is not raw");
    // The end of a file, as it is typed.
    terminal.types(b"\x04")?;
    ends(&mut terminal, &job, 0)?;
    ensure!(terminal.is_cooked()?, "the terminal is left raw");
    Ok(())
}

/// All bytes pass both ways as they are.
fn every_byte(terminal: &mut Terminal) -> Outcome {
    const LENGTH: usize = 16 << 10;
    let step = step!("echo-bytes", LENGTH.to_string());
    terminal.types(format!("{}\n", crate::trigger::words::encode(&step)).as_bytes())?;
    terminal.shows(b"!")?;
    let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(LENGTH).collect();
    for piece in bytes.chunks(1024) {
        terminal.types(piece)?;
        let shown = terminal.shows(piece)?;
        ensure!(shown == piece, "something else was shown: {shown:?}");
    }
    terminal.shows(b"echo-bytes 0 ").map(drop)
}

/// Output up to the end, the command's status, and the settings of the terminal.
fn statuses(place: &Path) -> Outcome {
    let mut terminal = Terminal::make()?;
    let before = terminal.settings()?;
    let script = "i=0; while [ $i -lt 2000 ]; do echo $i; i=$((i+1)); done; exit 7";
    let commands: [(&[&str], i64); 3] = [
        (&["/bin/busybox", "sh", "-c", script], 7),
        (&["/bin/busybox", "sh", "-c", "kill -TERM $$"], 128 + 15),
        (&["/no/such/program"], 127),
    ];
    for (command, status) in commands {
        let job = start(&mut terminal, place, "fg", "ttt", command)?;
        if status == 7 {
            let wanted: String = (0..2000).map(|number| format!("{number}\n")).collect();
            let shown = terminal.shows(b"1999\n")?;
            ensure!(shown == wanted.as_bytes(), "shown was {}", String::from_utf8_lossy(&shown));
        }
        ends(&mut terminal, &job, status)?;
        ensure!(terminal.settings()? == before, "the settings are not what they were");
        // Not even what leads the session counts as left behind.
        let shown = terminal.take_shown()?;
        ensure!(!shown.contains("killed") && !shown.contains("denied"), "the report says {shown}");
    }
    Ok(())
}

fn run_has_a_session_and_a_terminal_of_its_own(_scene: &mut Scene<'_>) -> Outcome {
    own_session_and_terminal()?;
    statuses(&place()?)
}

fn run_without_a_daemon_has_a_session_and_a_terminal_of_its_own() -> Outcome {
    own_session_and_terminal()?;
    // Where run is killed nothing is left of the command, either.
    let (mut terminal, job) = at_a_terminal(&place()?)?;
    let command = terminal.does(&step!("group-of", "0"))?;
    terminal.leader.works(&step!("kill", job, libc::SIGKILL.to_string()), "kill run")?;
    ends(&mut terminal, &job, 1000 + i64::from(libc::SIGKILL))?;
    ensure!(ended(command, Instant::now() + limit()), "the command {command} lives on");
    cgroup::until_no_guard()
}

fn no_signal_from_a_terminal_reaches_run_or_its_caller(_scene: &mut Scene<'_>) -> Outcome {
    // The privilege lets it choose the signal, so that only who gets it protects others.
    let place = place_with(&SPEC.replace("[signal-same-agent]", "[signal-same-agent, signal-any]"))?;
    // The kernel sends it to all that is in the foreground when something is typed.
    let (mut terminal, job) = at_a_terminal(&place)?;
    terminal.does(&step!("signal-from-terminal", libc::SIGKILL.to_string()))?;
    terminal.types(b"x\n")?;
    ends(&mut terminal, &job, 128 + 9)?;
    ensure!(terminal.is_cooked()?, "the terminal is left raw");
    // Nor can others be put into its foreground.
    let (mut terminal, job) = at_a_terminal(&place)?;
    for other in [job.clone(), terminal.leader.pid().to_string()] {
        let (errno, _) = terminal.tries(&step!("foreground", other))?;
        ensure!([libc::EPERM, libc::ESRCH].contains(&errno), "the foreground was given to {other}: errno {errno}");
    }
    ensure!(terminal.foreground().to_string() == job, "another group is in the foreground");
    // What is typed to stop or end the command is for the command alone.
    terminal.types(b"\x03")?;
    ends(&mut terminal, &job, 128 + 2)?;
    // The leader of the session is the agent's; with it ends the agent, and nobody else.
    let (mut terminal, job) = at_a_terminal(&place)?;
    let session = terminal.does(&step!("session-of", "0"))?;
    terminal.types(format!("kill\t{session}\t9\n").as_bytes())?;
    // The kernel hangs the command up, which may be told before the end of the leader.
    let status = terminal.leader.works(&step!("job-wait", job), "wait for run")?;
    ensure!([128 + 1, 128 + 9].contains(&status), "run ended with {status}");
    terminal.leader.works(&step!("nothing"), "afterwards, the leader")?;
    ensure!(terminal.is_cooked()?, "the terminal is left raw");
    Ok(())
}

fn no_signal_from_a_terminal_stops_who_tends_the_command(_scene: &mut Scene<'_>) -> Outcome {
    let (mut terminal, job) = at_a_terminal(&place()?)?;
    ensure!(terminal.does(&step!("read-in-group-of-parent"))? == 1, "the kernel did not stop the group");
    // Whoever is in that group, what is typed, how the command stops, and how it ends, is passed on as ever.
    terminal.types(b"\x1a")?;
    stops(&mut terminal, &job)?;
    goes_on(&mut terminal, &job)?;
    terminal.does(&step!("nothing"))?;
    // Its command has none of these signals blocked.
    let blocked = fs::read_to_string(format!("/proc/{}/status", terminal.does(&step!("group-of", "0"))?))?;
    ensure!(blocked.contains("SigBlk:\t0000000000000000\n"), "the command has {blocked}");
    terminal.types(b"\x03")?;
    ends(&mut terminal, &job, 128 + 2)
}

/// Where a call that is not allowed ends who makes it.
fn a_command_at_a_terminal_needs_no_calls_but_its_own(_scene: &mut Scene<'_>) -> Outcome {
    let calls = "syscallEnforcement: kill\nsyscalls:\n  - {allow: [\"@agent\"]}\n  - {deny: [close, pause]}\n";
    let place = place_with(&format!("{SPEC}{calls}"))?;
    let mut terminal = Terminal::make()?;
    for script in ["while read line; do echo got $line; done; exit 7", "kill -TERM $$"] {
        let shell = ["/bin/busybox", "sh", "-c", script];
        let job = start(&mut terminal, &place, "fg", "ttt", &shell)?;
        if script.contains("exit") {
            terminal.types(b"a line\n")?;
            terminal.shows(b"got a line\n")?;
            // What leads the session is thawed with the command, and still makes no call.
            terminal.types(b"\x1a")?;
            stops(&mut terminal, &job)?;
            goes_on(&mut terminal, &job)?;
            terminal.types(b"another\n")?;
            terminal.shows(b"got another\n")?;
            terminal.types(b"\x04")?;
        }
        ends(&mut terminal, &job, if script.contains("exit") { 7 } else { 128 + 15 })?;
        let shown = terminal.take_shown()?;
        ensure!(!shown.contains("denied"), "the report says {shown}");
    }
    Ok(())
}

fn run_stops_and_goes_on_as_its_command_does(_scene: &mut Scene<'_>) -> Outcome {
    let place = place()?;
    let (mut terminal, job) = at_a_terminal(&place)?;
    // The command is in a process group of its own, which has its number.
    let command = terminal.does(&step!("group-of", "0"))?;
    let agent = cgroup::of(command)?;
    for how in ["typed", "read from behind"] {
        match how {
            "typed" => terminal.types(b"\x1a")?,
            _ => terminal.types(b"read-from-behind\n")?,
        }
        stops(&mut terminal, &job).context(how)?;
        ensure!(terminal.is_cooked()?, "{how}: the terminal is left raw");
        // Its other processes stand still, too: nobody would record what they do.
        cgroup::until(&agent, "frozen 1", limit()).context(how)?;
        if how == "typed" {
            goes_on(&mut terminal, &job)?;
            terminal.does(&step!("nothing"))?;
            ensure!(!terminal.is_cooked()?, "the terminal is not raw again");
        }
    }
    // It reads in its background still, and is of no more use; the leader is.
    terminal.leader.works(&step!("kill", job, libc::SIGTERM.to_string()), "ask run to end")?;
    // Which comes to the command before it goes on and reads once more.
    goes_on(&mut terminal, &job)?;
    ends(&mut terminal, &job, 128 + 15)
}

fn a_command_in_the_background_reads_nothing_that_is_typed(_scene: &mut Scene<'_>) -> Outcome {
    let place = place()?;
    let mut terminal = Terminal::make()?;
    let before = terminal.settings()?;
    let command = ["/root/scenarios", "once", "take-and-read"];
    let job = start(&mut terminal, &place, "bg", "ttt", &command)?;
    wait_for("/root/scenarios", "take-and-read")?;
    terminal.types(b"typed\n")?;
    let length = terminal.leader.works(&step!("read-terminal"), "read what is typed")?;
    ensure!(length == 6, "the leader read {length} bytes");
    ensure!(terminal.foreground() == i64::from(terminal.leader.pid()), "another group is in the foreground");
    ensure!(terminal.settings()? == before, "the settings were changed");
    terminal.leader.works(&step!("kill", job, libc::SIGTERM.to_string()), "ask run to end")?;
    ends(&mut terminal, &job, 128 + 15)?;
    // One that only reads stops as any job that reads in the background, and gets what is typed when it is in front.
    let job = start(&mut terminal, &place, "bg", "ttt", TRIGGER)?;
    stops(&mut terminal, &job)?;
    goes_on(&mut terminal, &job)?;
    ensure!(terminal.does(&step!("has-terminal"))? == 1, "it has no terminal");
    terminal.types(b"\x04")?;
    ends(&mut terminal, &job, 0)
}

/// Waits until this program runs with this argument, and sleeps.
fn wait_for(program: &str, argument: &str) -> Outcome {
    let deadline = Instant::now() + limit();
    let argument = format!("\0{argument}\0");
    while Instant::now() < deadline {
        let found = fs::read_dir("/proc")?.flatten().map(|entry| entry.path()).any(|process| {
            let text = |name: &str| fs::read_to_string(process.join(name)).unwrap_or_default();
            let runs = fs::read_link(process.join("exe")).is_ok_and(|exe| exe == Path::new(program));
            runs && text("cmdline").contains(&argument) && text("stat").contains(") S ")
        });
        if found {
            return Ok(());
        }
    }
    anyhow::bail!("{program} does not run with {argument}")
}

/// As `less` in `run ... | less`: the terminal is not run's before its command reads, or a line is typed for nobody else.
fn run_before_others_in_a_pipeline_takes_the_terminal_when_its_command_reads(_scene: &mut Scene<'_>) -> Outcome {
    let place = place()?;
    let mut terminal = Terminal::make()?;
    // The first reads, the second asks first whether there is something.
    let reads = ["/root/scenarios", "once", "read-input"];
    let asks = ["/bin/busybox", "sh", "-c", "read line; echo got $line >/dev/tty"];
    for (command, shown) in [(&reads[..], None), (&asks, Some(b"got a line\n"))] {
        let job = start(&mut terminal, &place, "fg", "tpt", command)?;
        terminal.types(b"a line\n")?;
        shown.map_or(Ok(Vec::new()), |shown| terminal.shows(shown))?;
        ends(&mut terminal, &job, 0)?;
        ensure!(terminal.is_cooked()?, "the terminal is left raw");
    }
    // What is typed for a program that has made the terminal raw is left to it.
    let job = start(&mut terminal, &place, "fg", "tpt", &["/bin/busybox", "sleep", "1001"])?;
    wait_for("/bin/busybox", "1001")?;
    let cooked = terminal.settings()?;
    terminal.change(|settings| settings.c_lflag &= !libc::ICANON)?;
    terminal.types(b"for others")?;
    terminal.leader.works(&step!("kill", job, libc::SIGTERM.to_string()), "ask run to end")?;
    ends(&mut terminal, &job, 128 + 15)?;
    let length = terminal.leader.works(&step!("read-terminal"), "read what is typed")?;
    ensure!(length == 10, "the leader read {length} bytes");
    terminal.change(|settings| settings.c_lflag |= libc::ICANON)?;
    ensure!(terminal.settings()? == cooked, "the settings were changed");
    Ok(())
}

fn run_without_a_terminal_has_a_session_of_its_own(_scene: &mut Scene<'_>) -> Outcome {
    let place = place()?;
    let mut terminal = Terminal::make()?;
    let before = terminal.settings()?;
    let own = terminal.leader.pid();
    // The caller's session has a terminal, but no descriptor is one. What the steps said is their exit status here.
    let script = format!(
        "[ \"$(/root/scenarios once session-of 0)\" != 'session-of 0 {own}' ] || exit 3; \
         [ \"$(/root/scenarios once has-terminal)\" = 'has-terminal {} 0' ] || exit 4; exit 5",
        libc::ENXIO
    );
    let job = start(&mut terminal, &place, "fg", "---", &["/bin/busybox", "sh", "-c", &script])?;
    ends(&mut terminal, &job, 5)?;
    // What is typed stops and ends it all the same.
    let sleep = ["/bin/busybox", "sleep", "1000"];
    let job = start(&mut terminal, &place, "fg", "---", &sleep)?;
    wait_for("/bin/busybox", "1000")?;
    terminal.types(b"\x1a")?;
    stops(&mut terminal, &job)?;
    goes_on(&mut terminal, &job)?;
    terminal.types(b"\x03")?;
    ends(&mut terminal, &job, 128 + 2)?;
    ensure!(terminal.settings()? == before, "the settings were changed");
    Ok(())
}
