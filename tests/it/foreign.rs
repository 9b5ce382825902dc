//! Models of families that are sampled from and not trained say what transformers says (`scripts/other_models.py`).

use std::path::{Path, PathBuf};

use reckon::foreign::ForeignModel;
use reckon::policy::Policy;
use serde::Deserialize;

use super::models::{generate, prompt_of, sampling};
use super::program::{fails, succeeds, text};

const FAMILIES: [&str; 6] = ["gemma2", "gemma3", "glm4", "mistral", "olmo2", "phi3"];

fn folder(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/other").join(family)
}

#[derive(Deserialize)]
struct Expected {
    prompt: Vec<u32>,
    greedy: Vec<u32>,
    logprobs: Vec<f32>,
}

#[test]
fn greedy_text_is_that_of_transformers() {
    for family in FAMILIES {
        let policy = Policy::foreign(ForeignModel::read(&folder(family)).unwrap());
        let expected = std::fs::read(folder(family).join("expected.json")).unwrap();
        let expected: Vec<Expected> = serde_json::from_slice(&expected).unwrap();
        for (index, Expected { prompt, greedy, logprobs }) in expected.into_iter().enumerate() {
            let sampling = reckon::rollout::Sampling {
                temperature: 0.0,
                stop_tokens: Vec::new(),
                stop_strings: Vec::new(),
                ..sampling(greedy.len())
            };
            // Several of the same prompt: the cache of one row must not show in the next.
            for completion in generate(&policy, &[prompt_of(&prompt, index as u64)], &sampling, 1, 4) {
                assert_eq!(completion.tokens, greedy, "{family}");
                let far = completion.logprobs.iter().zip(&logprobs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(far < 1e-3, "{family}: log-probabilities differ by {far}");
            }
        }
    }
}

#[test]
fn sample_and_eval_take_them_and_train_refuses_them() {
    let model = folder("phi3");
    let printed = succeeds(&["sample", "1234", "--model", text(&model), "--max-new-tokens", "5", "--device", "cpu"]);
    assert!(printed.starts_with("1234") && printed.trim().len() > 4, "{printed}");
    let work = tempfile::tempdir().unwrap();
    let config = work.path().join("config.toml");
    let path = model.display();
    std::fs::write(
        &config,
        format!(
            "steps = 1\nmodel = {{ path = '{path}' }}\ndata = {{ dataset = 'arithmetic' }}\n\
             rollout = {{ prompts_per_step = 2, group_size = 2, max_new_tokens = 4 }}\neval = {{ problems = 3 }}\n\
             rubric = {{ verifiers = [{{ kind = 'exact' }}] }}\ncompute = {{ device = 'cpu' }}\naudit = {{ rows = 0 }}"
        ),
    )
    .unwrap();
    assert!(succeeds(&["eval", text(&config)]).contains("on 3 problems"));
    let line = fails(&["train", text(&config), "--out", text(&work.path().join("run"))]);
    let expected = "architecture \"Phi3ForCausalLM\" is not known; known are LlamaForCausalLM";
    assert!(line.contains(expected) && line.trim().lines().count() == 1, "{line}");
}
