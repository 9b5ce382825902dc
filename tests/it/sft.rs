//! Supervised runs: what is learned of a row, how long a run is, and that one which is killed goes on to the bit.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use reckon::config::SftConfig;
use reckon::model::{CpuOptions, ModelFolder};
use reckon::policy::Policy;
use reckon::sft::{SftSample, SftSource, SftTrainer};
use reckon::strict;
use reckon_datasets::Counted;
use serde_json::json;

use crate::killing::{ends_well_on, kill, spawn};
use crate::program::{base_config, errors, fails, reckon, records, succeeds, text};
use crate::recipes::write_model;

/// A tiny model, rows of a conversation or a pair in turn, and a config with `keys`.
fn workplace(keys: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let (model, rows) = (folder.path().join("model"), folder.path().join("rows.jsonl"));
    write_model(&model);
    let template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
        {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
    fs::write(model.join("chat_template.jinja"), template).unwrap();
    let turn = |role: &str, content: String| json!({ "role": role, "content": content });
    let row = |n: usize| {
        let first = [turn("user", format!("{n}?")), turn("assistant", format!("{n}."))];
        let second = [turn("user", format!("twice {n}?")), turn("assistant", format!("{}.", 2 * n))];
        let messages = if n.is_multiple_of(2) { first.to_vec() } else { [first, second].concat() };
        json!({ "messages": messages }).to_string() + "\n"
    };
    fs::write(&rows, (1..13).map(row).collect::<String>()).unwrap();
    let config = folder.path().join("sft.toml");
    let text = format!(
        "{keys}\nmodel = {{path = '{}'}}\ndata = {{dataset = 'file', path = '{}', held_out = 0.2}}\n\
         prompt = {{template = 'chat'}}\ncompute = {{device = 'cpu', threads = 1}}\n",
        model.display(),
        rows.display()
    );
    fs::write(&config, text).unwrap();
    (folder, config)
}

fn opened(config: &Path, sets: &[&str]) -> (SftConfig, ModelFolder) {
    let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
    let config: SftConfig = strict::load(&fs::read_to_string(config).unwrap(), "sft.toml", &sets).unwrap();
    let folder = ModelFolder::read(config.model.path.as_ref().unwrap()).unwrap();
    (config, folder)
}

/// The trained tokens of a sample as text, and all of it.
fn words(folder: &ModelFolder, sample: &SftSample) -> (Vec<String>, String) {
    let decode = |tokens: &[u32]| folder.tokenizer.decode(tokens, false).unwrap();
    let trained = sample.trained.iter().map(|range| decode(&sample.tokens[range.clone()]));
    (trained.collect(), decode(&sample.tokens))
}

#[test]
fn the_assistants_turns_alone_are_learned_with_what_ends_them() {
    let (_folder, config) = workplace("epochs = 1\nsamples_per_step = 12");
    let whole = "<|im_start|>user\n3?<|im_end|>\n<|im_start|>assistant\n3.<|im_end|>\n\
                 <|im_start|>user\ntwice 3?<|im_end|>\n<|im_start|>assistant\n6.<|im_end|>";
    for (learn, expected) in
        [("completion", vec!["3.<|im_end|>", "6.<|im_end|>"]), ("last", vec!["6.<|im_end|>"]), ("all", vec![whole])]
    {
        let (config, folder) = opened(&config, &["data.held_out=0", &format!("learn={learn}")]);
        let batch = SftSource::open(&config, &folder).unwrap().batch().unwrap();
        let found = batch.iter().map(|sample| words(&folder, sample)).find(|(_, text)| text == whole);
        let (trained, _) = found.expect("the conversation as the template writes it");
        assert_eq!(if learn == "all" { vec![trained.concat()] } else { trained }, expected, "{learn}");
    }
}

#[test]
fn what_is_packed_beside_a_sample_changes_nothing_of_its_loss() {
    let (_folder, config) = workplace("epochs = 1\nsamples_per_step = 12");
    let (config, folder) = opened(&config, &["data.held_out=0"]);
    let batch = SftSource::open(&config, &folder).unwrap().batch().unwrap();
    let trainer = SftTrainer::new(&config, 1, Policy::new(folder, CpuOptions::default())).unwrap();
    let targets = |sample: &SftSample| sample.trained.iter().map(|range| range.len()).sum::<usize>() as f64;
    let alone: f64 = batch.iter().map(|s| trainer.loss(std::slice::from_ref(s)).unwrap() * targets(s)).sum();
    let packed = trainer.loss(&batch).unwrap();
    assert!((packed - alone / batch.iter().map(targets).sum::<f64>()).abs() < 1e-6, "{packed}");
    let mut reversed = batch.clone();
    reversed.reverse();
    assert!((trainer.loss(&reversed).unwrap() - packed).abs() < 1e-6);
}

#[test]
fn a_run_is_as_many_steps_as_its_passes_take_and_uses_each_row_once_in_each() {
    let (_folder, path) = workplace("epochs = 3");
    for size in ["samples_per_step=5", "tokens_per_step=150", "tokens_per_step=100000"] {
        let (config, folder) = opened(&path, &[size, "data.held_out=0"]);
        let mut source = SftSource::open(&config, &folder).unwrap();
        let (mut steps, mut seen) = (0, Vec::new());
        loop {
            let batch = source.batch().unwrap();
            if batch.is_empty() {
                break;
            }
            steps += 1;
            seen.extend(batch.into_iter().map(|sample| sample.tokens));
        }
        assert_eq!((source.steps(&config).unwrap(), source.used), (steps, 36), "{size}");
        let (first, second) = (seen[..12].to_vec(), seen[12..24].to_vec());
        assert_ne!(first, second, "another order in each pass");
        let sorted = |mut rows: Vec<Vec<u32>>| {
            rows.sort();
            rows
        };
        assert_eq!(sorted(first), sorted(second));
    }
}

#[test]
fn rows_that_are_cut_or_left_out_are_counted() {
    let (folder, config) = workplace("steps = 1\nsamples_per_step = 2");
    let out = |name: &str| folder.path().join(name);
    let run = |name: &str, sets: &[&str]| {
        let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
        let out = out(name);
        let output = reckon(&[&["sft", text(&config), "--out", text(&out)], &sets[..]].concat()).output().unwrap();
        (output.status.success(), errors(&output))
    };
    let (ended, told) = run("refused", &["max_tokens=50", "data.held_out=0"]);
    assert!(!ended && told.contains("6 of 12 samples are longer than 50 tokens"), "{told}");
    let (ended, told) = run("dropped", &["max_tokens=50", "data.held_out=0", "data.long_prompts=drop"]);
    assert!(ended && told.contains("file-0: 6 rows are left out, which are longer than 50 tokens"), "{told}");
    let (ended, told) = run("cut", &["max_tokens=50", "data.held_out=0", "truncate=true"]);
    assert!(ended && told.contains("file-0: 6 rows are cut at 50 tokens and lose "), "{told}");
    let (ended, told) = run("beyond", &["max_tokens=10000"]);
    assert!(!ended && told.contains("max_tokens = 10000 is more than the model's context of 8192"), "{told}");
}

const ACCURACY: &str = "accuracy = {data = {dataset = 'parity'}, rubric = {verifiers = [{kind = 'exact'}]}, \
                        problems = 4, rollout = {max_new_tokens = 4}, prompt = {template = 'plain'}}";

#[test]
fn a_run_that_is_killed_and_resumed_equals_one_that_was_not() {
    let (folder, config) = workplace(&format!(
        "epochs = 4\nsamples_per_step = 3\nsave_every = 2\neval = {{every = 3}}\noptim = {{lr = 1e-2}}\n{ACCURACY}"
    ));
    let mut random = Counted::new(&[21]);
    for lora in [&[][..], &["--set", "lora.rank=2"]] {
        let place = |name: &str| folder.path().join(format!("{name}-{}", lora.len()));
        let straight = place("straight");
        let start = Instant::now();
        succeeds(&[&["sft", text(&config), "--out", text(&straight)], lora].concat());
        let length = start.elapsed();
        assert!(records(&straight).last().unwrap().get("eval/pass@1").is_some());
        let run = place("killed");
        let mut child = spawn(&[&["sft", text(&config), "--out", text(&run)], lora].concat());
        while !run.join("config.toml").exists() {
            std::thread::sleep(Duration::from_millis(1));
        }
        for kills in 0..3 {
            if !kill(&mut child, &run, length.mul_f64(0.5 * random.unit()), kills == 1) {
                break;
            }
            child = spawn(&["sft", "--resume", text(&run)]);
        }
        child.wait().unwrap();
        succeeds(&["sft", "--resume", text(&run)]);
        assert_eq!(records(&run), records(&straight));
        let values = if lora.is_empty() { "model.safetensors" } else { "adapter_model.safetensors" };
        let bytes = |run: &Path, name: &str| fs::read(run.join(name)).unwrap();
        assert_eq!(bytes(&run, values), bytes(&straight, values));
        let last = reckon::checkpoint::latest(&run.join("checkpoints")).unwrap().unwrap().1;
        let last = last.strip_prefix(&run).unwrap().join("trainer.safetensors");
        assert_eq!(bytes(&run, text(&last)), bytes(&straight, text(&last)), "the optimizer's moments");
    }
}

#[test]
fn an_adapter_learns_beside_its_base_and_is_sampled_from() {
    let folder = tempfile::tempdir().unwrap();
    let (rows, config, out) =
        (folder.path().join("rows.jsonl"), folder.path().join("sft.toml"), folder.path().join("out"));
    let row = |i: usize| format!("{{\"prompt\": \"{i}\", \"completion\": \"={i}\"}}\n");
    fs::write(&rows, (1..9).map(row).collect::<String>()).unwrap();
    let keys = format!(
        "epochs = 40\nsamples_per_step = 8\nmodel = {{path = 'builtin:countdown'}}\nlora = {{rank = 8}}\n\
         optim = {{lr = 1e-2}}\ndata = {{dataset = 'file', path = '{}', held_out = 0}}\ncompute = {{device = 'cpu'}}",
        rows.display()
    );
    fs::write(&config, keys).unwrap();
    succeeds(&["sft", text(&config), "--out", text(&out)]);
    let losses: Vec<f64> = records(&out).iter().filter_map(|record| record.get("sft/loss")).collect();
    assert!(losses[39] < 0.2 * losses[0], "{losses:?}");
    assert!(!out.join("model.safetensors").exists() && out.join("adapter_config.json").exists());
    let sampled = succeeds(&["sample", "7", "--model", text(&out), "--temperature", "0"]);
    assert_eq!(sampled, "7=7\n");
}

#[test]
fn a_run_saves_on_the_way_and_when_asked_to_stop() {
    let folder = tempfile::tempdir().unwrap();
    let config = base_config(folder.path());
    let run = folder.path().join("run");
    let sets = ["--set", "steps=100000", "--set", "tokens_per_step=300", "--set", "save_every=2"];
    let arguments = [&["sft", text(&config), "--out", text(&run)], &sets[..]].concat();
    let child = reckon(&arguments).stderr(Stdio::piped()).spawn().unwrap();
    while !run.join("checkpoints/step-000002").exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    ends_well_on("-INT", child);
    let (last, _) = reckon::checkpoint::latest(&run.join("checkpoints")).unwrap().unwrap();
    assert_eq!(records(&run).last().unwrap().step, last, "nothing after the last save is lost");
    succeeds(&["sample", "7,7:14 ", "--model", text(&run), "--max-new-tokens", "2"]);
    // A longer run needs no word, another one does.
    let stop = format!("steps={}", last + 1);
    succeeds(&["sft", "--resume", text(&run), "--set", &stop]);
    assert_eq!(records(&run).last().unwrap().step, last + 1);
    let config = fs::read_to_string(run.join("config.toml")).unwrap();
    fs::write(run.join("config.toml"), config.replace("learn = \"all\"", "learn = \"last\"")).unwrap();
    assert!(fails(&["sft", "--resume", text(&run)]).contains("learn is \"last\" and was \"all\""));
}
