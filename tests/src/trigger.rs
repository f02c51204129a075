//! The process inside an agent: does single system calls as it is told, and says with which errno each ended.
//!
//! A step comes as a line on standard input (see [`words`]); the answer is the line `step errno value`.

mod call;
mod exec;
mod files;
pub mod hammer;
mod held;
mod inode;
mod ipc;
mod load;
mod maps;
mod memory;
mod mode;
mod mount;
mod network;
mod power;
mod race;
mod resource;
mod ring;
mod send;
mod sys;
mod task;
mod terminal;
mod transfer;
mod unix;
pub mod words;

use std::io::{BufRead, Write};
use std::process::ExitCode;

use held::Held;
use sys::Done;
use words::Words;

type Row = (&'static str, fn(&mut Held, &Words) -> Done);

const TABLES: &[&[Row]] = &[
    &[("nothing", |_, _| Ok(0))],
    files::STEPS,
    exec::STEPS,
    memory::STEPS,
    network::STEPS,
    send::STEPS,
    unix::STEPS,
    task::STEPS,
    terminal::STEPS,
    power::STEPS,
    load::STEPS,
    maps::STEPS,
    mount::STEPS,
    resource::STEPS,
    ipc::STEPS,
    ring::STEPS,
    race::STEPS,
    hammer::STEPS,
    call::STEPS,
    inode::STEPS,
    mode::STEPS,
    transfer::STEPS,
];

/// Does steps until standard input ends.
pub fn serve() -> ExitCode {
    let mut held = Held::default();
    let mut output = std::io::stdout().lock();
    for line in std::io::stdin().lock().split(b'\n') {
        let Ok(line) = line else { return ExitCode::FAILURE };
        let words = Words::decode(&line);
        let (errno, value) = take(&mut held, &words);
        if writeln!(output, "{} {errno} {value}", words.text(0)).and_then(|()| output.flush()).is_err() {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// Does the step that the arguments are, and ends with its errno.
pub fn once(arguments: &[String]) -> ExitCode {
    let words = Words(arguments.iter().map(|word| word.clone().into_bytes()).collect());
    let (errno, value) = take(&mut Held::default(), &words);
    println!("{} {errno} {value}", words.text(0));
    ExitCode::from(u8::try_from(errno).unwrap_or(u8::MAX))
}

fn take(held: &mut Held, words: &Words) -> (i32, i64) {
    let name = words.text(0);
    match TABLES.iter().copied().flatten().find(|row| row.0 == name) {
        Some((_, step)) => match step(held, words) {
            Ok(value) => (0, value),
            Err(errno) => (errno, 0),
        },
        None => (-1, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::TABLES;

    #[test]
    fn names_of_steps_are_unique() {
        let mut names: Vec<&str> = TABLES.iter().copied().flatten().map(|row| row.0).collect();
        names.sort_unstable();
        let twice: Vec<_> = names.windows(2).filter(|pair| pair[0] == pair[1]).collect();
        assert!(twice.is_empty(), "{twice:?}");
    }
}
