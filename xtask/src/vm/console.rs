//! Watches the kernel's console for what no healthy kernel prints. Pure: lines in, trouble out.

/// What a kernel says when it is in trouble. Each is looked for anywhere in a line.
const TROUBLE: [&str; 25] = [
    "Kernel panic",
    "Oops: ",
    "int3: 0000 [#",
    "Oops:0",
    "BUG: ",
    "BUG kmalloc",
    "kernel BUG at",
    "=============================================================================",
    "general protection fault",
    "Unable to handle kernel",
    "unable to handle page fault",
    "detected stall",
    "self-detected stall",
    "rcu_preempt kthread starved",
    "soft lockup",
    "hard LOCKUP",
    "blocked for more than",
    "KASAN: ",
    "UBSAN: ",
    "KCSAN: ",
    "refcount_t: ",
    "WARNING: ",
    "[ cut here ]",
    "Call Trace:",
    "possible recursive locking detected",
];

/// Lines shown before the first line of trouble.
const BEFORE: usize = 5;
/// Lines shown at most.
const SHOWN: usize = 80;

/// The console of one machine, line by line.
#[derive(Debug, Default)]
pub struct Console {
    lines: Vec<String>,
    trouble: Option<usize>,
}

impl Console {
    /// Takes a line; true if it is the first that tells of trouble.
    pub fn line(&mut self, line: &str) -> bool {
        let line = line.trim_end_matches(['\r', '\n']);
        let is_first = self.trouble.is_none() && TROUBLE.iter().any(|trouble| line.contains(trouble));
        if is_first {
            self.trouble = Some(self.lines.len());
        }
        self.lines.push(line.to_owned());
        is_first
    }

    /// The first line that tells of trouble.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.map(|at| without_time(&self.lines[at]))
    }

    /// Whether the trouble is a breakpoint that was met where none is: the kernel had put one there while it changed the code
    /// around it, and had taken it away again, with all processors waiting for that (`smp_text_poke_batch_finish`, in
    /// older kernels `text_poke_bp_batch`). Only a processor that is not exact meets it then.
    pub fn is_stale_breakpoint(&self) -> bool {
        let Some(trouble) = self.trouble.and_then(|at| self.lines.get(at..)) else { return false };
        let mut trouble = trouble.iter().take(SHOWN);
        let first = trouble.next().map_or("", String::as_str);
        // Either the kernel gives up; or it sees that the breakpoint has gone and goes on, meets it again, and stands still:
        // then the handler of the exception is shown first.
        if first.contains("detected stall") {
            trouble.by_ref().find(|line| line.contains("RIP: 0010:asm_exc_int3+"));
        } else if !first.contains("int3: 0000 [#1]") {
            return false;
        }
        trouble.by_ref().find(|line| line.contains("RIP: 0010:"));
        let code = trouble.next().and_then(|line| line.split_once("Code: ")).map(|(_, code)| code);
        // The byte at which the processor was goes in brackets; the breakpoint would be the one before it.
        let before = code.and_then(|code| code.split_once(" <")).map(|(before, _)| before);
        before.is_some_and(|before| !before.ends_with("cc"))
    }

    /// What a person should read: the lines around the trouble, or the last ones where there was none.
    pub fn excerpt(&self) -> &[String] {
        let start = match self.trouble {
            Some(at) => at.saturating_sub(BEFORE),
            None => self.lines.len().saturating_sub(SHOWN / 2),
        };
        &self.lines[start..self.lines.len().min(start + SHOWN)]
    }

    /// All of it.
    pub fn text(&self) -> String {
        let mut text = self.lines.join("\n");
        text.push('\n');
        text
    }
}

/// A kernel line without the time in front of it.
fn without_time(line: &str) -> &str {
    line.strip_prefix('[').and_then(|rest| rest.split_once("] ")).map_or(line, |(_, text)| text)
}

#[cfg(test)]
mod tests {
    use super::Console;

    #[test]
    fn a_healthy_console_is_no_trouble() {
        let mut console = Console::default();
        assert!(!console.line("[    0.000000] Linux version 6.12"));
        assert!(!console.line("machine: booting\r\n"));
        assert_eq!(console.trouble(), None);
        assert_eq!(console.excerpt().len(), 2);
    }

    #[test]
    fn a_breakpoint_is_stale_where_the_code_holds_none() {
        for (oops, code, is_stale) in [
            ("Oops: int3: 0000 [#1] SMP NOPTI", "90 f3 0f 1e fa 0f <1f> 44 00 00", true),
            ("int3: 0000 [#1] PREEMPT SMP NOPTI", "90 f3 0f 1e fa 66 <90> 44 00 00", true),
            ("Oops: int3: 0000 [#1] SMP NOPTI", "90 f3 0f 1e fa cc <1f> 44 00 00", false),
            ("Oops: 0000 [#1] SMP NOPTI", "90 f3 0f 1e fa 0f <1f> 44 00 00", false),
            ("Oops: int3: 0000 [#1] SMP NOPTI", "Unable to access opcode bytes", false),
        ] {
            let mut console = Console::default();
            let lines =
                [oops, "CPU: 1 UID: 0", "RIP: 0010:f+0x5", &format!("Code: {code}"), "Call Trace:", "Code: 0f <1f> 44"];
            for line in lines {
                console.line(&format!("[    3.1] {line}"));
            }
            assert_eq!(console.is_stale_breakpoint(), is_stale, "{oops}: {code}");
        }
    }

    #[test]
    fn a_processor_that_meets_a_stale_breakpoint_again_and_again_is_known() {
        for (inner, is_stale) in [("ff eb <63> e9 50", true), ("ff cc <63> e9 50", false)] {
            let mut console = Console::default();
            for line in [
                "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
                "RIP: 0010:asm_exc_int3+0x0/0x40",
                "Code: 00 66 0f <0f> 01 ca",
                "Call Trace:",
                "RIP: 0010:syscall_trace_enter.constprop.0+0xd9/0x190",
                &format!("Code: {inner}"),
            ] {
                console.line(&format!("[    3.1] {line}"));
            }
            assert_eq!(console.is_stale_breakpoint(), is_stale, "{inner}");
        }
    }

    #[test]
    fn each_kind_of_trouble_is_seen_and_shown_with_what_came_before() {
        for line in [
            "[    3.1] Kernel panic - not syncing: Attempted to kill init!",
            "[    3.1] BUG: kernel NULL pointer dereference, address: 0000000000000000",
            "[    3.1] Oops: 0000 [#1] PREEMPT SMP NOPTI",
            "[   30.1] rcu: INFO: rcu_preempt self-detected stall on CPU",
            "[   30.1] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
            "[   30.1] watchdog: BUG: soft lockup - CPU#0 stuck for 26s!",
            "[   30.1] watchdog: CPU0: Watchdog detected hard LOCKUP on cpu 0",
            "[  130.1] INFO: task sh:12 blocked for more than 120 seconds.",
            "[    3.1] BUG: KASAN: use-after-free in bpf_prog_free",
            "[    3.1] BUG kmalloc-64 (Not tainted): Poison overwritten",
            "[    3.1] WARNING: CPU: 0 PID: 1 at kernel/bpf/verifier.c:1",
            "[    3.1] =============================================================================",
            "[    3.1] BUG: Bad page state in process sh  pfn:00001",
            "[    3.1] refcount_t: underflow; use-after-free.",
        ] {
            let mut console = Console::default();
            (0..9).for_each(|number| assert!(!console.line(&format!("line {number}"))));
            assert!(console.line(line), "{line}");
            assert!(!console.line("Kernel panic again"));
            assert_eq!(console.trouble(), line.split_once("] ").map(|(_, text)| text));
            assert_eq!(console.excerpt()[0], "line 4");
            assert_eq!(console.excerpt()[5], line);
        }
    }
}
