//! The table of system calls says what the header of this machine's kernel says.

use agent_monitor_common::syscall::{self, Abi};

/// The header, where the files of a C library for x86_64 are installed.
const HEADER: &str = "/usr/include/x86_64-linux-gnu/asm/unistd_64.h";

#[test]
fn names_and_numbers_are_unique_and_found_both_ways() {
    let mut last = None;
    for (number, name) in syscall::all() {
        assert!(last < Some(number), "{name}");
        last = Some(number);
        assert_eq!((syscall::number(name), syscall::name(number)), (Some(number), Some(name)));
    }
    assert_eq!(last, Some(syscall::LAST));
    assert_eq!([337, 423, syscall::LAST + 1].map(syscall::name), [None; 3]);
}

#[test]
fn the_table_agrees_with_the_header_of_this_machine() {
    let header = match std::fs::read_to_string(HEADER) {
        Ok(header) => header,
        Err(error) => return println!("skipped: {HEADER}: {error}"),
    };
    let lines = header.lines().filter_map(|line| line.strip_prefix("#define __NR_")?.split_once(' '));
    let mut compared = 0;
    for (name, number) in lines {
        let number: u16 = number.trim().parse().expect("a number");
        if number <= syscall::LAST {
            assert_eq!(syscall::name(number), Some(name));
            compared += 1;
        }
    }
    assert!(compared > 300, "{compared}");
}

#[test]
fn operands_tell_the_interfaces_apart() {
    assert_eq!(syscall::operand(Abi::Native, 0x0102), [0, 1, 2]);
    assert_eq!(syscall::operand(Abi::I386, 20), [1, 0, 20]);
    assert_eq!(syscall::operand(Abi::X32, 1 << 20), [2, 255, 255]);
}
