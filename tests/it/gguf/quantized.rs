//! Frozen bases that stay in quantized blocks: what is sampled is what is trained on, to the bit, and both are what the
//! widened weights give.

use std::path::Path;

use candle_core::quantized::GgmlDType;
use reckon::model::files::Source;
use reckon::model::{BaseType, CpuOptions, CpuReference, ModelFolder, SaveDtype};
use reckon::policy::Policy;

use super::read::{LARGE, by_candle};
use super::{Size, model, put};
use crate::gradients::check_gradients;
use crate::lora::{all, trained_with};
use crate::models::{FAMILIES, cpu, cpu_mut, generate, prompts, rising, samples, sampling, shared_micros};
use crate::program::{records, succeeds, text};
use crate::sampling::check_trainer_agrees;

/// Rows that divide by 32 and not by 256, and no whole number of panels.
const NARROW: Size = Size { width: 96, inner: 160, head: 16, tied: false };

const TYPES: [(GgmlDType, Size); 9] = [
    (GgmlDType::Q8_0, LARGE),
    (GgmlDType::Q8_0, NARROW),
    (GgmlDType::Q4_0, NARROW),
    (GgmlDType::Q4_1, NARROW),
    (GgmlDType::Q4K, LARGE),
    (GgmlDType::Q6K, LARGE),
    (GgmlDType::Q5K, LARGE),
    (GgmlDType::Q2K, LARGE),
    (GgmlDType::Q3K, LARGE),
];

/// A policy with a trained adapter on the base in a file of blocks.
fn adapted(folder: &Path, architecture: &str, size: Size, dtype: impl Fn(usize) -> GgmlDType) -> Policy {
    let path = put(folder, &by_candle(architecture, size, dtype));
    trained_with(&path, &all(), CpuOptions::default())
}

fn logprobs(policy: &Policy) -> Vec<f32> {
    let stats = cpu(policy).logprobs(None, &shared_micros(&samples(6), 50), 0.9);
    stats.into_iter().flat_map(|stats| stats.logprobs).collect()
}

#[test]
fn the_sampler_and_the_trainer_agree_to_the_bit_on_blocks_of_every_kind() {
    for (number, (dtype, size)) in TYPES.into_iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let architecture = FAMILIES[number % FAMILIES.len()];
        let policy = adapted(folder.path(), architecture, size, |_| dtype);
        check_trainer_agrees(&policy, &format!("{dtype:?}, {architecture}"));
        let (prompts, sampling) = (prompts(5), sampling(20));
        let expected = generate(&policy, &prompts, &sampling, 1, 64);
        for (threads, capacity) in [(1, 1), (2, 3), (3, 64)] {
            for (a, b) in expected.iter().zip(generate(&policy, &prompts, &sampling, threads, capacity)) {
                assert_eq!((&a.tokens, &a.logprobs), (&b.tokens, &b.logprobs), "{dtype:?}, {threads}, {capacity}");
            }
        }
    }
}

#[test]
fn blocks_give_every_bit_that_their_widened_values_give() {
    for (dtype, size) in TYPES {
        for architecture in FAMILIES {
            let folder = tempfile::tempdir().unwrap();
            let path = put(folder.path(), &by_candle(architecture, size, |_| dtype));
            // Weights that learn are widened by candle when they are read.
            let widened = Policy::new(ModelFolder::read(&path).unwrap(), CpuOptions::default());
            let blocks = Policy::new(ModelFolder::read_frozen(&path).unwrap(), CpuOptions::default());
            assert_eq!(logprobs(&blocks), logprobs(&widened), "{dtype:?}, {architecture}");
            let bytes = cpu(&blocks).parameters().base().unwrap().bytes;
            assert!(bytes < 4 * cpu(&blocks).parameters().weights() / 2, "{dtype:?} takes {bytes} bytes");
        }
    }
}

#[test]
fn a_matrix_of_several_types_is_each_of_them_in_its_rows() {
    for architecture in FAMILIES {
        let folder = tempfile::tempdir().unwrap();
        let mixed = |number: usize| [GgmlDType::Q4K, GgmlDType::Q6K, GgmlDType::BF16, GgmlDType::F16][number % 4];
        let mut policy = adapted(folder.path(), architecture, LARGE, mixed);
        check_trainer_agrees(&policy, architecture);
        let micros = shared_micros(&samples(7), 30);
        let gradient = |policy: &Policy| cpu(policy).gradients(&micros, 1.0, &rising).0;
        let alone = gradient(&policy);
        cpu_mut(&mut policy).threads = 3;
        assert_eq!(gradient(&policy), alone, "{architecture}: threads change no bit of a gradient");
    }
}

#[test]
fn the_gradient_of_an_adapter_on_blocks_agrees_with_finite_differences() {
    for (architecture, dtype) in FAMILIES.into_iter().zip([GgmlDType::Q8_0, GgmlDType::Q4_1, GgmlDType::Q5_0]) {
        let folder = tempfile::tempdir().unwrap();
        let size = Size { width: 32, inner: 64, head: 16, tied: architecture == FAMILIES[1] };
        let mut policy = adapted(folder.path(), architecture, size, |_| dtype);
        check_gradients(&mut policy, &format!("{architecture}, {dtype:?}"));
    }
}

#[test]
fn the_reference_of_a_trained_adapter_is_the_base_in_its_blocks() {
    let folder = tempfile::tempdir().unwrap();
    let policy = adapted(folder.path(), FAMILIES[0], LARGE, |_| GgmlDType::Q4K);
    let base = ModelFolder::read_frozen(&folder.path().join("model.gguf")).unwrap();
    let expected = logprobs(&Policy::new(base, CpuOptions::default()));
    assert_ne!(logprobs(&policy), expected);
    let reference = CpuReference::of(cpu(&policy).parameters());
    let stats = cpu(&policy).logprobs(Some(&reference), &shared_micros(&samples(6), 50), 0.9);
    assert_eq!(stats.into_iter().flat_map(|stats| stats.logprobs).collect::<Vec<f32>>(), expected);
}

#[test]
fn a_base_of_numbers_is_quantized_as_it_is_read() {
    for (base, most) in [(BaseType::Q8_0, 0.02), (BaseType::Q4K, 0.4), (BaseType::Bf16, 0.02)] {
        let (plain, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let model = model(FAMILIES[0], LARGE);
        model.save_merged(plain.path(), SaveDtype::F32).unwrap();
        let exact = ModelFolder::read_frozen(plain.path()).unwrap();
        let read = ModelFolder::read_requantized(plain.path(), Some(base)).unwrap();
        let (bytes, all) = (read.weights.bytes, exact.weights.bytes);
        assert!(bytes < all * 6 / 10, "{base:?} takes {bytes} bytes of {all}");
        assert_ne!(read.weights.fingerprint, exact.weights.fingerprint);
        let [read, exact] = [read, exact].map(|model| logprobs(&Policy::new(model, CpuOptions::default())));
        let far = read.iter().zip(&exact).map(|(a, b)| (a - b).abs()).sum::<f32>() / exact.len() as f32;
        assert!(far > 0.0 && far < most * 5.0, "{base:?}: log-probabilities differ by {far} in the mean");
        // What a file of blocks has is what is made of the same numbers at load.
        if base == BaseType::Q8_0 {
            let path = put(folder.path(), &super::written(&model, reckon::model::files::gguf::Mix::Q8_0));
            let file = Policy::new(ModelFolder::read_frozen(&path).unwrap(), CpuOptions::default());
            assert_eq!(logprobs(&file), read);
        }
    }
}

#[test]
fn rows_that_are_no_blocks_stay_as_they_are_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    model(FAMILIES[1], super::SMALL).save_merged(folder.path(), SaveDtype::F32).unwrap();
    let [exact, read] =
        [None, Some(BaseType::Q4K)].map(|base| ModelFolder::read_requantized(folder.path(), base).unwrap());
    // Rows of 32 values become Q5_0 or Q8_0; those of 48, of the matrix down, are no whole blocks.
    assert!(read.weights.bytes < exact.weights.bytes);
    let down = exact.weights.layout.entries.iter().find(|entry| entry.name.ends_with("down_proj.weight")).unwrap();
    let values = |base: &reckon::model::Base| {
        let mut values = vec![0.0; down.range.len()];
        base.values(down, 0..values.len(), &mut values).unwrap();
        values
    };
    assert_eq!(values(&read.weights), values(&exact.weights));
}

/// Two steps of a run of an adapter on `model`, with `more` under `[lora]`.
fn run(folder: &Path, model: &Path, more: &str) -> Vec<f64> {
    let config = format!(
        "steps = 2\ncontrol = 'coin_flip'\nmodel = {{ path = '{}' }}\ndata = {{ dataset = 'arithmetic' }}
        prompt = {{ template = 'plain' }}\ncompute = {{ device = 'cpu' }}\naudit = {{ rows = 0 }}
        rollout = {{ prompts_per_step = 2, group_size = 4, max_new_tokens = 8 }}\neval = {{ problems = 0 }}
        grpo = {{ kl_coef = 0.01 }}\nrubric = {{ verifiers = [{{ kind = 'exact' }}] }}\nsave = {{ every = 2 }}
        lora = {{ rank = 4, alpha = 8{more} }}\n",
        model.display()
    );
    let file = folder.join("config.toml");
    std::fs::write(&file, config).unwrap();
    let run = folder.join("run");
    succeeds(&["train", text(&file), "--out", text(&run)]);
    succeeds(&["plan", text(&file)]);
    let out = folder.join("out.gguf");
    assert!(succeeds(&["export", text(&run), "--gguf", "q8_0", "--out", text(&out)]).contains("as q8_0"));
    records(&run).iter().filter_map(|record| record.get("policy/mismatch_kl")).collect()
}

#[test]
fn a_run_of_an_adapter_on_blocks_samples_from_what_it_trains() {
    let folder = tempfile::tempdir().unwrap();
    let file = put(folder.path(), &by_candle(FAMILIES[2], LARGE, |_| GgmlDType::Q4K));
    assert_eq!(run(folder.path(), &file, ""), [0.0, 0.0]);
    let plain = tempfile::tempdir().unwrap();
    model(FAMILIES[1], NARROW).save_merged(plain.path(), SaveDtype::Bf16).unwrap();
    for base in ["q8_0", "q4_k", "bf16"] {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(run(folder.path(), plain.path(), &format!(", base = '{base}'")), [0.0, 0.0], "{base}");
    }
}
