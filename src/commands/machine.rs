//! What a run is started on, as it is kept in its folder: for people who compare runs.

use std::fs::read_to_string;

use serde_json::{Map, Value};

use super::compute::place;
use super::memory;
use crate::config::ComputeConfig;

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

/// The name of the processor, where the system tells it.
fn processor() -> Option<String> {
    let text = read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
