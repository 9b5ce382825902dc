//! Whether memory grows over many updates of micro-batches of changing lengths.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::update::{Bench, micro_batch};
use crate::{Args, gib};
use reckon::ops::device::Device;
use reckon::progress::Bar;

/// Updates before the first look: all that is made once has been made.
const FIRST: usize = 10;

/// GiB of the device in use after the tenth update and after the last.
pub(crate) fn measure(device: &Device, args: &Args) -> Result<Value> {
    ensure!(args.updates > FIRST, "--updates {}: growth is looked at from update {FIRST} on", args.updates);
    let mut bench = Bench::new(device, args)?;
    let bar = Bar::new(args.updates as u64, "updates");
    let mut first = None;
    for step in 0..args.updates {
        // The longest first, as a run does it before its step 0.
        let tokens = args.tokens - 37 * step % args.tokens.div_ceil(2);
        bench.update(&micro_batch(tokens, bench.config.vocab_size)?)?;
        bar.tick(step as u64 + 1, "", "");
        if step + 1 == FIRST {
            first = Some(device.in_use()?);
        }
    }
    let (first, last) = (first.unwrap_or_default(), device.in_use()?);
    let growth = last as f64 / first as f64 - 1.0;
    Ok(json!({ "updates": args.updates, "gib_after_10": gib(first), "gib_at_the_end": gib(last), "growth": growth }))
}
