//! A low-rank adapter (LoRA, Hu et al. 2021, arXiv:2106.09685): which linear layers of the decoder it adds to, and its
//! values in one flat buffer, which are all that is trained beside a frozen base. Files are left to [`super::files::peft`].

use std::collections::BTreeMap;
use std::ops::Range;

use anyhow::{Result, ensure};
use reckon_datasets::Counted;

use crate::ops::linear::LowRankPlaces;

use super::files::Source;
use super::layout::{Builder, Entry, Layout, Matrix};

/// Names, shapes and places of an adapter's values.
#[derive(Debug, Clone)]
pub struct AdapterLayout {
    /// Every tensor under PEFT's name, in the order of the buffer.
    pub entries: Vec<Entry>,
    /// Rank of every addition (`R`).
    pub rank: usize,
    /// Every addition is multiplied by `alpha / R`.
    pub alpha: f32,
    /// What is added to a matrix, by the place at which the matrix begins.
    additions: BTreeMap<usize, LowRankPlaces>,
    /// `A (R, K)` and `B (N, R)` of each module.
    modules: BTreeMap<String, (Range<usize>, Range<usize>)>,
}

/// The module that a weight belongs to.
fn module_of(weight: &str) -> &str {
    weight.strip_suffix(".weight").unwrap_or(weight)
}

/// The name of a factor (`A` or `B`) of a module, as PEFT spells it.
fn factor_name(module: &str, factor: &str) -> String {
    format!("base_model.model.{module}.lora_{factor}.weight")
}

/// The module that a tensor of an adapter belongs to, and whether it is its `A`.
pub(super) fn parse_name(tensor: &str) -> Option<(&str, bool)> {
    let name = tensor.strip_prefix("base_model.model.")?.strip_suffix(".weight")?;
    let a = name.strip_suffix(".lora_A").map(|module| (module, true));
    a.or_else(|| name.strip_suffix(".lora_B").map(|module| (module, false)))
}

/// The linear layers of the decoder, which an adapter may add to.
pub(super) fn modules(layout: &Layout) -> Vec<&str> {
    let matrices = layout.layers.iter().flat_map(|layer| layer.linears());
    matrices.flat_map(|matrix| layout.entries_of(&matrix.range)).map(|entry| module_of(&entry.name)).collect()
}

/// Whether a module's name ends in `name`.
pub fn has_module(layout: &Layout, name: &str) -> bool {
    modules(layout).iter().any(|module| is_end_of(name, module))
}

/// The modules that `patterns` choose: a pattern is the end of a module's name from a dot on, in which `*` stands for
/// anything.
pub fn chosen<'a>(layout: &'a Layout, patterns: &[String]) -> Result<Vec<&'a str>> {
    let modules = modules(layout);
    for pattern in patterns {
        let mut names: Vec<&str> = Vec::new();
        for name in modules.iter().filter_map(|module| module.rsplit('.').next()) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        ensure!(
            modules.iter().any(|module| is_end_of(pattern, module)),
            "lora.targets: \"{pattern}\" matches no module; there are {}, from {} to {}",
            names.join(", "),
            modules.first().unwrap_or(&""),
            modules.last().unwrap_or(&"")
        );
    }
    Ok(modules.into_iter().filter(|module| patterns.iter().any(|pattern| is_end_of(pattern, module))).collect())
}

fn is_end_of(pattern: &str, module: &str) -> bool {
    let ends = module.match_indices('.').map(|(dot, _)| &module[dot + 1..]);
    std::iter::once(module).chain(ends).any(|end| matches(pattern, end))
}

/// Whether `text` is `pattern`, in which `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => text.strip_prefix(before).is_some_and(|rest| {
            let mut starts = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
            starts.any(|at| matches(after, &rest[at..]))
        }),
    }
}

impl AdapterLayout {
    /// An adapter on the modules that `has` says.
    pub fn new(layout: &Layout, rank: usize, alpha: f32, has: impl Fn(&str) -> bool) -> Self {
        let (mut builder, mut modules, mut additions) = (Builder::default(), BTreeMap::new(), BTreeMap::new());
        for Matrix { range, inputs, .. } in layout.layers.iter().flat_map(|layer| layer.linears()) {
            let entries: Vec<&Entry> = layout.entries_of(range).filter(|entry| has(module_of(&entry.name))).collect();
            let mut add = |entry: &Entry, factor, shape: [usize; 2]| {
                builder.add(factor_name(module_of(&entry.name), factor), &shape)
            };
            let a: Vec<_> = entries.iter().map(|entry| add(entry, "A", [rank, *inputs])).collect();
            let mut parts = Vec::new();
            for (entry, a) in entries.iter().zip(&a) {
                let b = add(entry, "B", [entry.shape[0], rank]);
                modules.insert(module_of(&entry.name).to_owned(), (a.clone(), b.clone()));
                parts.push(((entry.range.start - range.start) / inputs, b));
            }
            if let [first, ..] = a.as_slice() {
                let a = first.start..first.start + a.iter().map(Range::len).sum::<usize>();
                additions.insert(range.start, LowRankPlaces { a, parts });
            }
        }
        Self { entries: builder.entries, rank, alpha, additions, modules }
    }

    /// What is added to a matrix, if anything is.
    pub(super) fn addition(&self, matrix: &Matrix) -> Option<&LowRankPlaces> {
        self.additions.get(&matrix.range.start)
    }

    /// What every addition is multiplied by.
    pub fn scale(&self) -> f32 {
        self.alpha / self.rank as f32
    }

    /// Number of values.
    pub fn values(&self) -> usize {
        self.entries.last().map_or(0, |entry| entry.range.end)
    }

    /// The largest hidden width of an addition: `rank` times the modules that share one matrix (3 for q, k and v). The
    /// scratch between `A` and `B` has as many values for each token.
    pub(crate) fn widest(&self) -> usize {
        self.rank * self.additions.values().map(|places| places.parts.len()).max().unwrap_or(0)
    }

    /// Names of the modules that are added to.
    pub fn modules(&self) -> impl Iterator<Item = &str> {
        self.modules.keys().map(String::as_str)
    }
}

/// An adapter with its values.
#[derive(Debug, Clone)]
pub struct Adapter {
    /// Where each tensor lies.
    pub layout: AdapterLayout,
    /// All values.
    pub values: Vec<f32>,
    /// The patterns that chose its modules.
    pub targets: Vec<String>,
    /// The model that it belongs to, as its file names it.
    pub base: String,
}

impl Adapter {
    /// A new adapter, which adds nothing yet: `B` is zero, and `A` uniform in `±1/sqrt(K)` (Kaiming's with `a = sqrt 5`, as
    /// PEFT's).
    pub fn new(layout: AdapterLayout, targets: Vec<String>, base: String, seed: u64) -> Self {
        let mut values = vec![0f32; layout.values()];
        for (index, entry) in layout.entries.iter().enumerate() {
            if parse_name(&entry.name).is_some_and(|(_, is_a)| is_a) {
                let bound = 1.0 / (entry.shape[1] as f64).sqrt();
                let mut stream = Counted::new(&[seed, 0x10a4, index as u64]);
                values[entry.range.clone()].fill_with(|| ((2.0 * stream.unit() - 1.0) * bound) as f32);
            }
        }
        Self { layout, values, targets, base }
    }

    /// Adds to values `range` of the weight `entry` what the adapter adds to them: `s B A`.
    pub(super) fn add_to(&self, entry: &Entry, range: Range<usize>, out: &mut [f32]) {
        let Some((a, b)) = self.layout.modules.get(module_of(&entry.name)) else { return };
        let (a, b, k) = (&self.values[a.clone()], &self.values[b.clone()], entry.shape[1]);
        let mut at = range.start;
        while at < range.end {
            let (row, column) = (at / k, at % k);
            let count = (k - column).min(range.end - at);
            let out = &mut out[at - range.start..][..count];
            for (a, b) in a.chunks_exact(k).zip(&b[row * self.layout.rank..][..self.layout.rank]) {
                let factor = self.layout.scale() * b;
                out.iter_mut().zip(&a[column..]).for_each(|(out, a)| *out += factor * a);
            }
            at += count;
        }
    }
}

impl Source for Adapter {
    fn entries(&self) -> &[Entry] {
        &self.layout.entries
    }

    fn values(&self, entry: &Entry, range: Range<usize>, out: &mut [f32]) -> Result<()> {
        out.copy_from_slice(&self.values[entry.range.clone()][range]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_the_end_of_a_name_and_stars_stand_for_anything() {
        let module = "model.layers.10.self_attn.q_proj";
        for pattern in ["q_proj", "self_attn.q_proj", "layers.10.*", "*", "*_proj", "layers.1*.q_proj", module] {
            assert!(is_end_of(pattern, module), "{pattern}");
        }
        for pattern in ["proj", "q_pro", "layers.1.*", "", "q_proj.*", "*.k_proj"] {
            assert!(!is_end_of(pattern, module), "{pattern}");
        }
    }
}
