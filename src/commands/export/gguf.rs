//! A model as a GGUF file, read back and compared: what its size has cost on a text that it was not trained on.

use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use tokenizers::Tokenizer;

use crate::disk::{fill_file, read_text};
use crate::model::files::gguf::{self, Mix};
use crate::model::{CpuModel, Decoder, Expectations, ModelConfig, ModelFolder, Parameters};
use crate::ops::linear::Precision;
use crate::output::{note, say};
use crate::parallel::default_threads;

/// What models are compared on where no text is given.
const HELD_OUT: &str = include_str!("held_out.txt");
/// Most tokens that are compared: the distributions of all of them are held.
const TOKENS: usize = 256;

/// Writes `model`, which came from `source`, to `out`, reads it back and prints how near it is.
pub(super) fn write(
    model: ModelFolder<Parameters>,
    mix: Mix,
    source: &Path,
    out: &Path,
    text: Option<&Path>,
) -> Result<()> {
    ensure!(gguf::is_named(out), "--out {} does not end in .gguf, as a GGUF file's name has to", out.display());
    let text = text.map_or_else(|| Ok(HELD_OUT.to_owned()), read_text)?;
    let tokens = tokens(&model.tokenizer, &model.config, &text)?;
    let name = source.file_stem().unwrap_or_default().to_string_lossy();
    fill_file(out, |file| {
        let mut file = BufWriter::new(file);
        model.save_gguf(&mut file, &name, mix, default_threads())?;
        Ok(file.flush()?)
    })?;
    let bytes = std::fs::metadata(out)?.len();
    say!("{} from {}, as {}, {:.1} MiB", out.display(), source.display(), mix.name(), bytes as f64 / 1048576.0)?;
    let Some(tokens) = tokens else {
        note!("not compared: the text is not made of this model's tokens; pass one that is with --text");
        return Ok(());
    };
    let ModelFolder { config, tokenizer, companions, weights } = model;
    // One after the other: there need not be room for both.
    let was = expectations(&config, weights, &tokens);
    let read = ModelFolder::read_frozen(out).context("the file that was written does not read back")?.into_parameters();
    let shell = ModelFolder { config, tokenizer, companions, weights: () };
    shell.compare_with(&read).with_context(|| format!("{} does not read back", out.display()))?;
    let near = was.compare(&expectations(&shell.config, read.weights, &tokens));
    say!(
        "beside the model as it was, on {} held-out tokens: mean KL {:.2e}, {:.1}% of the greedy tokens are equal",
        near.tokens,
        near.kl,
        100.0 * near.same
    )
}

/// What a model expects, in fp32.
fn expectations(config: &ModelConfig, weights: Parameters, tokens: &[u32]) -> Expectations {
    let model = CpuModel::new(Decoder::new(config, false), weights, default_threads(), Precision::Fp32);
    Expectations::of(&model, tokens)
}

/// The beginning of a text in tokens, as much as is compared; none where the text is not made of the model's tokens.
fn tokens(tokenizer: &Tokenizer, config: &ModelConfig, text: &str) -> Result<Option<Vec<u32>>> {
    let encoding = tokenizer.encode(text, true).map_err(|error| anyhow!("cannot tokenize the text: {error}"))?;
    let mut tokens = encoding.get_ids().to_vec();
    tokens.truncate(TOKENS.min(config.max_position_embeddings));
    Ok((tokens.len() > 1).then_some(tokens))
}
