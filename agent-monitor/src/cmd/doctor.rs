//! `doctor`: what this kernel and this node can enforce.

use anyhow::Result;

use super::print;
use crate::bind::Hierarchy;
use crate::bpf::Roots;
use crate::cli::{Format, Output};
use crate::config::Config;
use crate::support::Support;

/// Prints a line for each feature, and the sum.
pub fn doctor(config: &Config, options: &Output) -> Result<u8> {
    // Where no hierarchy is mounted the line about it says so; this is the place where it should be.
    let hierarchy = Hierarchy::open(&config.roots.cgroup, &config.roots.proc);
    let cgroup = hierarchy.map_or_else(|_| "/sys/fs/cgroup".into(), |hierarchy| hierarchy.mount().to_owned());
    let support = Support::probe(&Roots { sys: config.roots.sys.clone(), cgroup });
    match options.output {
        Format::Json => print::json(&support)?,
        Format::Table => {
            let first = |text: &str| text.lines().next().unwrap_or_default().to_owned();
            let rows = support.features.iter().map(|line| {
                let how = if line.how.is_empty() { String::new() } else { format!("; {}", line.how) };
                vec![line.feature.clone(), line.state.to_owned(), first(&line.detail) + &how]
            });
            let rows = rows.collect::<Vec<_>>();
            let sum = format!("\nkernel {}: enforcement {}\n", support.kernel, support.enforcement.name());
            print::out(&(print::table(&["FEATURE", "STATE", "DETAIL"], &rows) + &sum))?;
        }
    }
    Ok(support.enforcement.exit_code())
}
