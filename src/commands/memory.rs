//! How much memory there is, and how sizes are written.

use anyhow::{Context, Result, bail, ensure};

const GIB: f64 = (1u64 << 30) as f64;

/// Bytes as people write them.
pub(super) fn gib(bytes: usize) -> String {
    format!("{:.3} GiB", bytes as f64 / GIB)
}

/// A size such as `80GiB`, `24GB` or `512MiB`.
pub(super) fn parse(text: &str) -> Result<usize> {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = (text[..split].trim(), &text[split..]);
    let number: f64 = number.parse().with_context(|| format!("--memory {text}: \"{number}\" is not a number"))?;
    let scale = match unit.to_ascii_lowercase().as_str() {
        "gib" | "g" => GIB,
        "mib" | "m" => GIB / 1024.0,
        "gb" => 1e9,
        "mb" => 1e6,
        _ => bail!("--memory {text}: write a unit, such as 80GiB, 24GB or 512MiB"),
    };
    ensure!(number > 0.0, "--memory {text}: a device has some memory");
    Ok((number * scale) as usize)
}

/// Bytes that this machine has, or that the group this process is in may take of them; `None` where the system does not
/// tell.
pub(super) fn of_this_machine() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let machine = line.split_whitespace().next()?.parse::<usize>().ok()? * 1024;
    let group = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let group = group.and_then(|text| text.trim().parse::<usize>().ok());
    Some(group.map_or(machine, |limit| limit.min(machine)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_units() {
        for (text, bytes) in [("80GiB", 80 << 30), ("24GB", 24_000_000_000), ("512 MiB", 512 << 20), ("1.5g", 3 << 29)]
        {
            assert_eq!(parse(text).unwrap(), bytes, "{text}");
        }
        for text in ["80", "GiB", "0GB", "-1GB"] {
            let message = parse(text).unwrap_err().to_string();
            assert!(message.contains(&format!("--memory {text}: ")), "{message}");
        }
    }
}
