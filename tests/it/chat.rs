//! A model's own chat template in use: in prompts, in training, in samples; one that fails is told before step 0.

use std::fs;
use std::path::Path;

use crate::program::{fails, records, succeeds, text};
use crate::recipes::write_model;

/// A folder with a model that has `template`, rows with two questions, and a config.
fn workplace(template: &str, prompt: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let (model, rows) = (folder.path().join("model"), folder.path().join("rows.jsonl"));
    write_model(&model);
    if !template.is_empty() {
        fs::write(model.join("chat_template.jinja"), template).unwrap();
    }
    let row = |n| format!("{{\"question\": \"What is {n} + 1?\", \"answer\": \"{}\"}}\n", n + 1);
    fs::write(&rows, (1..9).map(row).collect::<String>()).unwrap();
    let config = format!(
        "steps = 1\nmodel = {{path = '{}'}}\ndata = {{dataset = 'file', path = '{}', held_out = 0.3}}
        rollout = {{prompts_per_step = 2, group_size = 2, max_new_tokens = 4}}\neval = {{problems = 0}}
        [prompt]\ntemplate = 'chat'\n{prompt}\n
        [[rubric.verifiers]]\nkind = 'regex'\npattern = '<think>'\nmatch = 'search'\nextract = {{from = 'whole'}}\n",
        model.display(),
        rows.display()
    );
    fs::write(folder.path().join("config.toml"), config).unwrap();
    folder
}

fn turns() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/chat/turns.jinja")).unwrap()
}

#[test]
fn prompts_are_what_the_template_writes_and_the_prefilled_start_counts_as_completion() {
    let folder = workplace(&turns(), "system = 'Be brief.'\nuser = '{question} Think.'\nprefill = '<think>'");
    let (config, run) = (folder.path().join("config.toml"), folder.path().join("run"));
    let shown = succeeds(&["data", "show", text(&config), "--count", "8"]);
    let expected = "tokens\n<|turn|>system\nBe brief.<|end|>\n<|turn|>user\nWhat is 3 + 1? Think.<|end|>\n\
                    <|turn|>assistant\n<think>\n--- answer: 4";
    assert!(shown.contains(expected), "{shown}");
    succeeds(&["train", text(&config), "--out", text(&run)]);
    assert_eq!(records(&run)[1].get("reward/regex"), Some(1.0), "every completion begins with <think>");
}

#[test]
fn a_sample_can_be_asked_for_as_a_chat() {
    let folder = workplace("{{ raise_exception('seen') }}", "");
    let model = folder.path().join("model");
    assert!(fails(&["sample", "hello", "--chat", "--model", text(&model)]).contains("seen"));
    succeeds(&["sample", "hello", "--model", text(&model), "--max-new-tokens", "2"]);
}

#[test]
fn a_template_that_fails_is_one_line_before_step_0() {
    let alternating = "{% for m in messages %}{% if m.role == 'system' %}\n\
        {{ raise_exception('no system turns here') }}{% endif %}{% endfor %}";
    for (template, prompt, expected) in [
        ("", "", "the model has no chat template"),
        ("{% for m in messages %}", "", "the chat template, line 1: "),
        ("x\n{{ strftime_tomorrow('%d') }}", "", "the chat template, line 2: strftime_tomorrow"),
        (alternating, "system = 'x'", "line 2: no system turns here"),
        ("{{ messages[0].content.shout() }}", "", "shout"),
        ("{{ messages }}", "variables = 3", "prompt.variables"),
        ("{{ '' }}", "", "gives an empty prompt"),
    ] {
        let folder = workplace(template, prompt);
        let (config, run) = (folder.path().join("config.toml"), folder.path().join("run"));
        for command in [&["train", text(&config), "--out", text(&run)][..], &["data", "check", text(&config)]] {
            let complaint = fails(command);
            assert!(complaint.contains(expected) && complaint.trim().lines().count() == 1, "{template}: {complaint}");
        }
        assert!(!run.exists());
    }
}

#[test]
fn variables_reach_the_template() {
    let folder =
        workplace("{{ 'quiet' if enable_thinking is false else 'loud' }}", "variables = {enable_thinking = false}");
    let config = folder.path().join("config.toml");
    assert!(succeeds(&["data", "show", text(&config), "--count", "1"]).contains("tokens\nquiet\n"));
    let dry = succeeds(&["train", text(&config), "--dry-run"]);
    assert!(dry.contains("enable_thinking = false"), "the resolved config keeps them: {dry}");
}
