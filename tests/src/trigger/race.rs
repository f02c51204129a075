//! Steps that go on for some seconds in threads, while somebody else changes what they are judged by. What was seen is
//! counted; the step `counted N` tells.

use std::ffi::CString;
use std::os::fd::AsRawFd;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::sys::{Done, check, descriptor};
use super::words::Words;

static COUNTED: Mutex<Vec<i64>> = Mutex::new(Vec::new());

/// The steps, by name.
pub const STEPS: &[super::Row] = &[
    ("counted", |_, words| {
        let counted = COUNTED.lock().map_err(|_| libc::EIO)?;
        counted.get(words.number(1) as usize).copied().ok_or(libc::ERANGE)
    }),
    // A thread for each path opens it over and over. Counts for each: opened, denied, what else it ended with.
    ("race-open", |_, words| {
        let end = end(words);
        let paths: Vec<CString> = (2..words.0.len()).map(|index| words.path(index)).collect();
        let counts = std::thread::scope(|scope| {
            let open = |path| scope.spawn(move || opens(path, end));
            let threads: Vec<_> = paths.iter().map(open).collect();
            threads.into_iter().filter_map(|thread| thread.join().ok()).flatten().collect()
        });
        keep(counts)
    }),
    // `race-turn SECONDS|STOP ONE TWO NEVER ALWAYS`: opens two files in turn, of which one is allowed, one that never is,
    // and one that always is, for so long or until something has the name STOP. Counts: opens of the two, how often the
    // other one of the two was found to be allowed, opens of the third that worked, opens of the fourth that failed, what
    // ended in another way.
    ("race-turn", |_, words| {
        let (end, stop, mut counts) = (end(words), words.path(1), [0_i64; 5]);
        let timed = words.number(1) > 0;
        let (paths, [never, always]) = ([words.path(2), words.path(3)], [words.path(4), words.path(5)]);
        let mut allowed = None;
        while if timed { Instant::now() < end } else { !super::hammer::exists(&stop) } {
            for (index, path) in paths.iter().enumerate() {
                let now = match open(path) {
                    Ok(()) => index,
                    Err(libc::EACCES) => 1 - index,
                    Err(_) => {
                        counts[4] += 1;
                        continue;
                    }
                };
                counts[0] += 1;
                counts[1] += i64::from(allowed.is_some_and(|before| before != now));
                allowed = Some(now);
            }
            match open(&never) {
                Ok(()) => counts[2] += 1,
                Err(libc::EACCES) => {}
                Err(_) => counts[4] += 1,
            }
            counts[3] += i64::from(open(&always).is_err());
        }
        keep(counts.to_vec())
    }),
    // Executes a program over and over. What it counts stands in a file, which is held, at any moment: tries begun, the
    // last that worked, the last that was denied.
    ("race-exec", |held, words| {
        let (end, file) = (end(words), held.get(words, 3)?);
        let exec = Words(vec![b"exec".to_vec(), words.path(2).into_bytes(), b"true".to_vec()]);
        let step = super::exec::STEPS.iter().find(|row| row.0 == "exec").ok_or(libc::ENOSYS)?.1;
        let mut counts = [0_i64; 3];
        while Instant::now() < end {
            counts[0] += 1;
            write(file, &counts)?;
            match step(held, &exec) {
                Ok(_) => counts[1] = counts[0],
                Err(libc::EACCES) => counts[2] = counts[0],
                Err(errno) => return Err(errno),
            }
            write(file, &counts)?;
        }
        keep(counts.to_vec())
    }),
    // Makes a cgroup in the one with this directory, goes into it, makes one in that, and so on; until that is denied, or
    // something has the name STOP. After some levels it begins anew from the first. Gives how many it made.
    ("descend", |_, words| {
        let (top, stop) = (words.path(1), words.path(2));
        let mut made = 0;
        loop {
            if made % LEVELS == 0 {
                // SAFETY: the path ends with NUL.
                check(unsafe { libc::chdir(top.as_ptr()) })?;
            }
            let name = CString::new(format!("d{made}")).expect("a name has no NUL");
            // SAFETY: the paths end with NUL, and the text is as long as is said.
            unsafe {
                check(libc::mkdir(name.as_ptr(), 0o755))?;
                check(libc::chdir(name.as_ptr()))?;
                let procs = libc::open(c"cgroup.procs".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
                let procs = descriptor(procs)?;
                check(libc::write(procs.as_raw_fd(), c"0".as_ptr().cast(), 1) as i32)?;
            }
            made += 1;
            if super::hammer::exists(&stop) {
                return Ok(made);
            }
        }
    }),
];

/// Levels below each other that `descend` makes.
const LEVELS: i64 = 50;

fn end(words: &Words) -> Instant {
    Instant::now() + Duration::from_secs(words.number(1) as u64)
}

fn keep(counts: Vec<i64>) -> Done {
    *COUNTED.lock().map_err(|_| libc::EIO)? = counts;
    Ok(0)
}

fn open(path: &CString) -> Result<(), i32> {
    // SAFETY: the path ends with NUL and lives during the call.
    descriptor(unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) }).map(drop)
}

fn opens(path: &CString, end: Instant) -> [i64; 3] {
    let mut counts = [0; 3];
    while Instant::now() < end {
        match open(path) {
            Ok(()) => counts[0] += 1,
            Err(libc::EACCES) => counts[1] += 1,
            Err(_) => counts[2] += 1,
        }
    }
    counts
}

/// Numbers at the start of a file, all at once: each is eight bytes.
fn write(file: i32, counts: &[i64; 3]) -> Result<(), i32> {
    // SAFETY: the numbers are as long as is said.
    check(unsafe { libc::pwrite(file, counts.as_ptr().cast(), size_of_val(counts), 0) } as i64).map(drop)
}
