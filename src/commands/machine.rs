//! What a run is started on, as it is kept in its folder: for people who compare runs.

use std::fs::read_to_string;

use serde_json::{Map, Value};

use super::compute::place;
use super::memory;
use crate::config::ComputeConfig;
use crate::parallel::default_threads;

/// `machine.json`: an object of texts.
pub(super) fn describe(compute: &ComputeConfig) -> String {
    let mut machine = Map::new();
    let mut put = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            machine.insert(name.to_owned(), Value::String(value));
        }
    };
    put("reckon", Some(env!("CARGO_PKG_VERSION").to_owned()));
    put("started", Some(jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M:%S UTC").to_string()));
    put("computes on", Some(place(compute)));
    put("processor", processor());
    put("cores", std::thread::available_parallelism().ok().map(|cores| cores.to_string()));
    put("memory", memory::of_this_machine().map(|bytes| format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))));
    put("system", read_to_string("/proc/sys/kernel/osrelease").ok().map(|release| format!("Linux {}", release.trim())));
    Value::Object(machine).to_string()
}

/// Threads of one of `local` ranks of this machine: those that the config asks for, or its part of the cores, unless the
/// launcher has bound it to some. 0 stands for all that the process may use.
pub(super) fn threads_of_a_rank(asked: usize, local: usize) -> usize {
    let may_use = default_threads();
    let bound = read_to_string("/sys/devices/system/cpu/online").is_ok_and(|online| may_use < cores_of(&online));
    if asked > 0 || local <= 1 || bound { asked } else { (may_use / local).max(1) }
}

/// How many there are in a list such as `0-3,8`.
fn cores_of(list: &str) -> usize {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some((last.trim().parse::<usize>().ok()? + 1).saturating_sub(first.trim().parse().ok()?))
    };
    list.split(',').filter_map(range).sum()
}

/// The name of the processor, where the system tells it.
fn processor() -> Option<String> {
    let text = read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_counted_as_the_system_lists_them() {
        for (list, expected) in [("0-3,8\n", 5), ("0\n", 1), ("", 0), ("0-127", 128)] {
            assert_eq!(cores_of(list), expected, "{list:?}");
        }
    }

    #[test]
    fn ranks_of_one_machine_share_its_cores() {
        assert_eq!(threads_of_a_rank(3, 2), 3, "what is asked for");
        assert_eq!(threads_of_a_rank(0, 1), 0, "all there are");
        assert!(threads_of_a_rank(0, 1000) <= 1);
    }
}
