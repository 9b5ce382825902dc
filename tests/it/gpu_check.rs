//! The parts of `scripts/gpu-check` that need no card: that its programs compile, and the table it makes of figures.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts");

/// What a program printed and how it ended; `None`, with a message, where it is not on this machine.
fn ran(program: &str, arguments: &[&str]) -> Option<Output> {
    let output = Command::new(program).args(arguments).output();
    if output.is_err() {
        eprintln!("skipped: there is no {program} on this machine");
    }
    output.ok()
}

#[test]
fn the_scripts_for_a_card_are_programs() {
    let compiles = "import sys; compile(open(sys.argv[1]).read(), sys.argv[1], 'exec')";
    for script in ["gpu_table.py", "gpu_torch.py"] {
        let Some(output) = ran("python3", &["-c", compiles, &format!("{SCRIPTS}/{script}")]) else { return };
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    }
    for script in ["gpu-check", "cuda-toolkit"] {
        let Some(output) = ran("bash", &["-n", &format!("{SCRIPTS}/{script}")]) else { return };
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Leaves what a part of the check leaves behind.
fn leave(out: &Path, part: &str, status: &str, printed: &str) {
    fs::write(out.join(format!("{part}.status")), status).unwrap();
    fs::write(out.join(format!("{part}.json")), printed).unwrap();
}

fn update(tokens_per_s: f64, gib: f64) -> Value {
    let total = json!({ "held": gib, "planned": 1.02 * gib });
    json!({ "update": { "tokens_per_s": tokens_per_s, "share_of_product_rate": 0.45, "gib": { "total": total } } })
}

fn rows(tokens_per_s: f64) -> Value {
    json!({ "tokens_per_s": tokens_per_s, "gib": { "held": 5.0, "planned": 5.1 } })
}

/// Figures that meet every aim.
fn leave_all(out: &Path) {
    let mut full = update(45_000.0, 11.0);
    for (name, value) in [
        ("card", json!("A card")),
        ("products", json!({ "tflops": 700.0 })),
        ("attention", json!({ "forward_s": 0.004, "backward_s": 0.014 })),
        ("vocabulary", json!({ "mib_beside_weights": 223.0 })),
    ] {
        full[name] = value;
    }
    let mut others = update(60_000.0, 14.0);
    others["sampling"] = json!({ "rows": { "64": rows(20_000.0) } });
    let torch = json!({ "matmul_tflops": 710.0, "sdpa_forward_s": 0.003, "sdpa_backward_s": 0.008 });
    for (part, figures) in [
        ("full", full),
        ("eight_bit", update(44_000.0, 9.0)),
        ("lora", update(50_000.0, 4.0)),
        ("lora_4b", update(9_000.0, 20.0)),
        ("experts", others.clone()),
        ("latent", others.clone()),
        ("delta", others),
        ("sampling", json!({ "sampling": { "rows": { "64": rows(30_000.0), "256": rows(80_000.0) } } })),
        ("growth", json!({ "growth": { "growth": 0.0 } })),
        ("resume", json!({ "equal_files": 2 })),
        ("torch", torch),
    ] {
        leave(out, part, "passed\n", &figures.to_string());
    }
    for part in ["doctor", "tests"] {
        leave(out, part, "passed\n", "plain words\n");
    }
}

fn table(out: &Path) -> Option<(String, Option<i32>)> {
    let out = out.to_str().unwrap();
    let output = ran("python3", &[&format!("{SCRIPTS}/gpu_table.py"), out, "abc123", "580.1"])?;
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    Some((String::from_utf8(output.stdout).unwrap(), output.status.code()))
}

fn line<'a>(table: &'a str, start: &str) -> &'a str {
    table.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("no line {start} in {table}"))
}

#[test]
fn the_table_sets_every_figure_beside_its_aim() {
    let out = tempfile::tempdir().unwrap();
    leave_all(out.path());
    let Some((printed, code)) = table(out.path()) else { return };
    assert_eq!(code, Some(0), "{printed}");
    for (start, words) in [
        ("update, Qwen3-0.6B ", "45,000 tokens/s  above 16,400  met"),
        ("update, Qwen3-4B, LoRA 16", "9,000 tokens/s  above 6,200"),
        ("attention forward, 16k x 128", "4.00 ms"),
        ("vocabulary of 151,936", "223 MiB  below 256"),
        ("sampling, Qwen3-0.6B, 256 rows", "80,000 tokens/s"),
        ("update, V2-Lite, 4 layers, LoRA 16", "60,000 tokens/s"),
        ("sampling, Qwen3.5-0.8B, 64 rows", "20,000 tokens/s"),
        ("memory after 200 updates", "+0.00%  1%"),
        ("PyTorch and transformers", "-"),
    ] {
        assert!(line(&printed, start).contains(words), "{start}: {printed}");
    }
    assert!(printed.contains("75%  50%           met") && printed.contains("57%  50%           met"), "{printed}");
    let report: Value = serde_json::from_str(&fs::read_to_string(out.path().join("gpu-check.json")).unwrap()).unwrap();
    assert_eq!(report.pointer("/parts/full/figures/products/tflops"), Some(&json!(700.0)));
    assert_eq!((&report["commit"], &report["card"]), (&json!("abc123"), &json!("A card")));
}

#[test]
fn parts_that_fail_and_aims_that_are_missed_are_said_and_the_rest_stays() {
    let out = tempfile::tempdir().unwrap();
    leave_all(out.path());
    leave(out.path(), "lora", "passed", &update(16_400.0, 5.2).to_string());
    leave(out.path(), "lora_4b", "failed with code 1", "");
    leave(out.path(), "growth", "passed", "not JSON");
    fs::remove_file(out.path().join("torch.status")).unwrap();
    let Some((printed, code)) = table(out.path()) else { return };
    assert_eq!(code, Some(1), "{printed}");
    assert!(line(&printed, "update, Qwen3-0.6B, LoRA 16").ends_with("MISSED"), "not above: {printed}");
    assert!(line(&printed, "update, Qwen3-4B, LoRA 16").contains(" -  above 6,200"), "{printed}");
    for (part, words) in [
        ("lora_4b ", "failed with code 1: see lora_4b.log"),
        ("growth ", "printed no JSON"),
        ("torch ", "did not run"),
        ("full ", "passed"),
    ] {
        assert!(line(&printed, part).contains(words), "{part}: {printed}");
    }
    assert!(printed.contains("45,000 tokens/s"), "the rest stays: {printed}");
}
