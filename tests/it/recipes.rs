//! Every recipe runs for two steps on a tiny random model of its family, with rows of the shape it names.

use std::path::Path;
use std::process::Command;

use reckon::model::files::folder::{ModelFolder, read_config, read_tokenizer};
use reckon::model::{Companions, Layout, SaveDtype, Weights};
use reckon::policy::Policy;
use serde_json::{Map, Value, json};

/// The letters that stand for the 256 bytes in a byte-level vocabulary: printable ones for themselves.
pub(crate) fn letters() -> Vec<char> {
    let plain = |byte: u32| (0x21..=0x7e).contains(&byte) || (0xa1..=0xac).contains(&byte) || byte >= 0xae;
    let mut next = 0x100;
    let letter = |byte| {
        let code = if plain(byte) { byte } else { next };
        next += u32::from(!plain(byte));
        char::from_u32(code).unwrap()
    };
    (0..256).map(letter).collect()
}

/// A tokenizer with a token a byte, and Qwen's special ones.
fn tokenizer() -> Value {
    let mut vocab: Map<String, Value> = letters().iter().enumerate().map(|(i, c)| (c.to_string(), json!(i))).collect();
    let special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
    let added: Vec<Value> = (256..).zip(special).map(|(id, content)| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true})
    }).collect();
    vocab.extend((256..).zip(special).map(|(id, content)| (content.to_owned(), json!(id))));
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": bytes, "post_processor": null, "decoder": bytes,
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    })
}

/// Writes a random model of Qwen2's shape.
pub(crate) fn write_model(folder: &Path) {
    let config = json!({
        "architectures": ["Qwen2ForCausalLM"], "vocab_size": 259, "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 8192, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": true,
        "eos_token_id": [258, 256],
    });
    let config = read_config(config.to_string().as_bytes()).unwrap();
    let text = tokenizer().to_string();
    let tokenizer = read_tokenizer(text.as_bytes(), &config).unwrap();
    let weights = Weights::random(Layout::of(&config).unwrap(), 3);
    let mut companions = Companions::new(text.as_bytes());
    let template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}";
    companions.files.push(("chat_template.jinja".to_owned(), template.as_bytes().to_vec()));
    let folder_of_model = ModelFolder { config, tokenizer, companions, weights };
    std::fs::create_dir(folder).unwrap();
    Policy::new(folder_of_model, reckon::model::CpuOptions::default()).save(folder, SaveDtype::F32).unwrap();
}

/// Runs a recipe of `examples/` on rows of its shape.
fn check(recipe: &str, rows: Option<Vec<Value>>) {
    let folder = tempfile::tempdir().unwrap();
    write_model(&folder.path().join("model"));
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(recipe);
    let mut sets = vec!["model.path=model".to_owned()];
    for small in
        ["steps=2", "rollout.prompts_per_step=2", "rollout.group_size=2", "rollout.max_new_tokens=8", "eval.problems=2"]
    {
        sets.push(small.to_owned());
    }
    if let Some(rows) = rows {
        let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
        std::fs::write(folder.path().join("rows.jsonl"), lines.join("\n")).unwrap();
        sets.extend(["data.path=rows.jsonl".to_owned(), "data.held_out=rows.jsonl".to_owned()]);
    }
    for command in [&["train", "--out", "run"][..], &["data", "check"]] {
        let mut run = Command::new(env!("CARGO_BIN_EXE_reckon"));
        run.args(command).arg(&config).current_dir(folder.path());
        sets.iter().for_each(|set| {
            run.args(["--set", set]);
        });
        let output = run.output().unwrap();
        assert!(output.status.success(), "{recipe} {command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let records = reckon::metrics::read(&folder.path().join("run/metrics.jsonl")).unwrap();
    assert!(records.iter().any(|record| record.get("completion/len_mean").is_some_and(|mean| mean > 0.0)), "{recipe}");
    assert!(folder.path().join("run/checkpoints/step-000002").is_dir(), "{recipe}");
}

#[test]
fn countdown_on_qwen_runs() {
    check(
        "countdown-qwen/config.toml",
        Some(vec![json!({"target": 98, "nums": [44, 19, 35]}), json!({"target": 64, "nums": [63, 95, 96]})]),
    );
}

#[test]
fn gsm8k_runs() {
    let row =
        |n: i64| json!({"question": format!("What is {n} + 1?"), "answer": format!("It is {0}.\n#### {0}", n + 1)});
    check("gsm8k/config.toml", Some((0..4).map(row).collect()));
}

#[test]
fn gsm8k_with_an_adapter_runs() {
    let row = |n: i64| json!({"question": format!("What is {n} less 1?"), "answer": format!("#### {}", n - 1)});
    check("gsm8k/lora.toml", Some((0..4).map(row).collect()));
}

#[test]
fn knights_and_knaves_run() {
    check("knights-and-knaves/config.toml", None);
}

#[test]
fn math_runs() {
    let row = |n: i64| json!({"problem": format!("Halve {n}."), "level": "Level 4", "solution": format!("So $\\boxed{{\\frac{{{n}}}{{2}}}}$.")});
    check("math/config.toml", Some((1..5).map(row).collect()));
}

#[test]
fn the_aha_recipes_of_real_size_run() {
    for recipe in ["aha-qwen-3b/config.toml", "aha-llama-3b-primed/config.toml"] {
        check(
            recipe,
            Some(vec![json!({"target": 98, "nums": [44, 19, 35]}), json!({"target": 64, "nums": [63, 95, 96]})]),
        );
    }
}

#[test]
fn aha_smollm2_runs() {
    check("aha-smollm2/config.toml", None);
}

#[test]
fn smollm2_arithmetic_runs() {
    check("smollm2-arithmetic/config.toml", None);
    check("smollm2-arithmetic/calculator.toml", None);
}
