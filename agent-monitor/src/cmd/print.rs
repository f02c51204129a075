//! Printing: tables that line up, and output that may end early.

use std::io::{self, Write};
use std::os::fd::BorrowedFd;

use anyhow::Result;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, write};
use rustix::stdio::stderr;
use serde::Serialize;

/// Prints text on standard output. Who reads it may stop early (`| head`); that is no error.
pub fn out(text: &str) -> Result<()> {
    let mut output = io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Prints text on standard error, all of it: a command that had the same open file may have left it such that it does not
/// block, and full. Who reads it may have gone; that is no error.
pub fn error(text: &str) {
    write_all(stderr(), text.as_bytes());
}

fn write_all(output: BorrowedFd<'_>, mut text: &[u8]) {
    while !text.is_empty() {
        match write(output, text) {
            Ok(written) => text = &text[written..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => drop(poll(&mut [PollFd::from_borrowed_fd(output, PollFlags::OUT)], None)),
            Err(_) => return,
        }
    }
}

/// Prints a value as JSON.
pub fn json<T: Serialize>(value: &T) -> Result<()> {
    out(&(serde_json::to_string_pretty(value)? + "\n"))
}

/// A table with its columns lined up; the last column is as wide as it likes.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let head: Vec<String> = head.iter().map(|word| (*word).to_owned()).collect();
    let mut widths = vec![0; head.len()];
    for row in rows.iter().chain([&head]) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in [&head].into_iter().chain(rows) {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_pipe_that_does_not_block_and_is_full_loses_nothing() {
        let (mut reader, writer) = io::pipe().expect("a pipe can be made");
        rustix::io::ioctl_fionbio(&writer, true).expect("it can be told not to block");
        let text = vec![b'x'; 1 << 20];
        let read = std::thread::spawn(move || {
            let mut read = Vec::new();
            io::Read::read_to_end(&mut reader, &mut read).map(|_| read)
        });
        write_all(writer.as_fd(), &text);
        drop(writer);
        assert!(read.join().expect("the reader ends").expect("it can read") == text);
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".to_owned(), "long cell".to_owned()], vec!["bcd".to_owned(), "x".to_owned()]];
        assert_eq!(table(&["N", "CELL"], &rows), "N    CELL\na    long cell\nbcd  x\n");
    }
}
