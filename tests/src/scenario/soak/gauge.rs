//! What the daemon and the kernel take, once a second.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// What was taken at one moment: megabytes, but for descriptors and images of policies.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Duration,
    daemon: f64,
    descriptors: usize,
    slab: f64,
    /// What the kernel keeps while nobody needs the room, such as names of cgroups that are gone; not judged.
    caches: f64,
    percpu: f64,
    vmalloc: f64,
    images: i64,
}

/// What of a sample is looked at.
type Value = fn(&Sample) -> f64;

/// All samples.
#[derive(Debug, Default)]
pub struct Gauge(Vec<Sample>);

/// By how much the middle of the last quarter of the time may be more than that of the quarter before: a tenth, and so many
/// megabytes (descriptors, images), which a kernel takes and gives back at any time.
const SLACK: f64 = 4.0;

impl Gauge {
    /// Takes a sample of this daemon and of the kernel, which has so many images of policies.
    pub fn sample(&mut self, daemon: u32, at: Duration, images: i64) -> Result<()> {
        let memory = fs::read_to_string("/proc/meminfo")?;
        let status = fs::read_to_string(format!("/proc/{daemon}/status")).context("the daemon is gone")?;
        let descriptors = fs::read_dir(format!("/proc/{daemon}/fd"))?.count();
        self.0.push(Sample {
            at,
            daemon: megabytes(&status, "VmRSS:")?,
            descriptors,
            slab: megabytes(&memory, "SUnreclaim:")?,
            caches: megabytes(&memory, "SReclaimable:")?,
            percpu: megabytes(&memory, "Percpu:")?,
            vmalloc: megabytes(&memory, "VmallocUsed:")?,
            images,
        });
        Ok(())
    }

    /// Ten of the samples as a table.
    pub fn table(&self) -> String {
        let mut text = "seconds  daemon MB  descriptors  slab MB  caches MB  percpu MB  vmalloc MB  images".to_owned();
        for sample in self.0.iter().step_by((self.0.len() / 10).max(1)) {
            let Sample { at, daemon, descriptors, slab, caches, percpu, vmalloc, images } = sample;
            let at = at.as_secs();
            let kernel = format!("{slab:8.1} {caches:10.1} {percpu:10.1} {vmalloc:11.1} {images:7}");
            text.push_str(&format!("\n{at:7} {daemon:10.1} {descriptors:12} {kernel}"));
        }
        text
    }

    /// Fails unless all levels off.
    pub fn check(&self) -> Result<()> {
        ensure!(self.0.len() >= 40, "there are only {} samples", self.0.len());
        let quarter = self.0.len() / 4;
        let (before, last) = (&self.0[2 * quarter..3 * quarter], &self.0[3 * quarter..]);
        let values: [(&str, Value); 6] = [
            ("the daemon's memory in MB", |sample| sample.daemon),
            ("its descriptors", |sample| sample.descriptors as f64),
            ("the kernel's slabs in MB, without caches", |sample| sample.slab),
            ("its memory for each CPU in MB", |sample| sample.percpu),
            ("its virtual memory in MB", |sample| sample.vmalloc),
            ("its images of policies", |sample| sample.images as f64),
        ];
        for (what, value) in values {
            let (before, last) = (middle(before, value), middle(last, value));
            ensure!(last <= before * 1.1 + SLACK, "{what}: {before:.1}, and in the last quarter {last:.1}");
        }
        Ok(())
    }
}

fn middle(samples: &[Sample], value: Value) -> f64 {
    let mut values: Vec<f64> = samples.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The number of kilobytes behind a word of `/proc/meminfo` or `/proc/PID/status`, in megabytes.
pub fn megabytes(text: &str, word: &str) -> Result<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(word));
    let number = line.and_then(|line| line.split_whitespace().next()).and_then(|number| number.parse::<f64>().ok());
    Ok(number.with_context(|| format!("no {word}"))? / 1024.0)
}
