//! The measurements of `bench-device`, on a device that this machine's processor stands in for.
#![allow(missing_docs, clippy::unwrap_used)]

// The same device as in the tests of the models, of which these need a part.
#[allow(dead_code)]
#[path = "../../tests/it/host_device.rs"]
mod host_device;

use clap::Parser;
use host_device::device;
use reckon_bench::{Args, measured};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

fn report(options: &str) -> Option<anyhow::Result<serde_json::Value>> {
    let shape = if options.contains("--shape") { "" } else { "--shape tiny" };
    let line = format!("bench-device {shape} --tokens 70 {options}");
    let args = Line::try_parse_from(line.split_whitespace()).unwrap().args;
    Some(measured(&args, &device(0)?).map(serde_json::Value::Object))
}

#[test]
fn every_measurement_gives_figures_and_memory_is_what_was_planned() {
    for options in [
        "--updates 1",
        "--updates 1 --lora 4 --measure update --eight-bit",
        "--updates 1 --recompute false",
        "--updates 1 --measure update --shape tiny-experts",
        "--updates 1 --measure update --shape tiny-experts --lora 4",
        "--updates 1 --measure update --shape tiny-latent --lora 4",
        "--updates 1 --measure update --shape tiny-delta",
    ] {
        let Some(report) = report(options) else { return };
        let report = report.unwrap();
        let figure = |pointer: &str| report.pointer(pointer).and_then(serde_json::Value::as_f64).unwrap_or(f64::NAN);
        if !options.contains("--measure") {
            for pointer in ["/products/tflops", "/attention/forward_s", "/attention/backward_tflops"] {
                assert!(figure(pointer) > 0.0, "{options}: {pointer} in {report}");
            }
            let vocabulary = figure("/vocabulary/mib_beside_weights");
            assert!(vocabulary > 1.0 && vocabulary < 256.0, "{options}: {report}");
        }
        assert!(figure("/update/tokens_per_s") > 0.0 && figure("/update/share_of_product_rate") > 0.0, "{report}");
        for class in ["weights", "optimizer", "gradients", "activations", "total"] {
            let [held, planned] = ["held", "planned"].map(|what| figure(&format!("/update/gib/{class}/{what}")));
            assert!((held / planned - 1.0).abs() < 0.05, "{options}: {class} holds {held} GiB, planned {planned}");
        }
    }
}

#[test]
fn sampling_is_measured_for_each_number_of_rows_and_its_memory_is_what_was_planned() {
    for options in ["", "--lora 4", "--shape tiny-experts", "--shape tiny-latent", "--shape tiny-delta"] {
        let Some(report) = report(&format!("--measure sampling --rows 1,3 --new 3 {options}")) else { return };
        let report = report.unwrap();
        for rows in [1, 3] {
            let of = |name: &str| report.pointer(&format!("/sampling/rows/{rows}/{name}")).unwrap().as_f64().unwrap();
            assert!(of("tokens_per_s") > 0.0 && of("step_ms") > 0.0, "{report}");
            let (held, planned) = (of("gib/held"), of("gib/planned"));
            assert!((held / planned - 1.0).abs() < 0.05, "{rows} rows hold {held} GiB, planned {planned}");
        }
    }
}

#[test]
fn memory_does_not_grow_over_updates_of_changing_lengths() {
    let Some(grown) = report("--measure growth --updates 12 --lora 2") else { return };
    assert_eq!(grown.unwrap().pointer("/growth/growth"), Some(&serde_json::json!(0.0)));
    let message = report("--measure growth --updates 10").unwrap().unwrap_err().to_string();
    assert!(message.contains("--updates 10"), "{message}");
}
