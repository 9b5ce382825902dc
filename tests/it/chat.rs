//! A model's own chat template in use: in prompts, in training, in samples; one that fails is told before step 0.

use std::fs;
use std::path::Path;

use crate::program::{fails, records, succeeds, text};
use crate::recipes::write_model;

/// A folder with a model that has `template`, rows with two questions, and a config.
fn workplace(template: &str, prompt: &str) -> tempfile::TempDir {
    let row = |n| format!("{{\"question\": \"What is {n} + 1?\", \"answer\": \"{}\"}}\n", n + 1);
    workplace_of(template, prompt, &(1..9).map(row).collect::<String>(), "<think>")
}

/// The same with rows of one's own, whose completions are to hold `words`.
fn workplace_of(template: &str, prompt: &str, lines: &str, words: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let (model, rows) = (folder.path().join("model"), folder.path().join("rows.jsonl"));
    write_model(&model);
    match template {
        "" => fs::remove_file(model.join("chat_template.jinja")).unwrap(),
        template => fs::write(model.join("chat_template.jinja"), template).unwrap(),
    }
    fs::write(&rows, lines).unwrap();
    let config = format!(
        "steps = 1\nmodel = {{path = '{}'}}\ndata = {{dataset = 'file', path = '{}', held_out = 0.3}}
        rollout = {{prompts_per_step = 2, group_size = 2, max_new_tokens = 4}}\neval = {{problems = 0}}
        [prompt]\ntemplate = 'chat'\n{prompt}\n
        [[rubric.verifiers]]\nkind = 'regex'\npattern = '{words}'\nmatch = 'search'\nextract = {{from = 'whole'}}\n",
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
    let show = ["data", "show", text(&config), "--count", "8"];
    let shown = succeeds(&show) + &succeeds(&[&show[..], &["--held-out"]].concat());
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

/// Qwen's way to write turns, where the assistant begins with a thought.
const THINKING: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
    {% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}";

#[test]
fn a_thought_that_the_template_opens_counts_as_the_completions_start() {
    let folder = workplace(THINKING, "");
    let (config, run) = (folder.path().join("config.toml"), folder.path().join("run"));
    assert!(
        succeeds(&["data", "show", text(&config), "--count", "1"]).contains("<|im_start|>assistant\n<think>\n\n---")
    );
    succeeds(&["train", text(&config), "--out", text(&run)]);
    assert_eq!(records(&run)[1].get("reward/regex"), Some(1.0), "every completion begins with <think>");
}

#[test]
fn the_assistants_opening_words_are_gone_on_from_and_count_as_the_completions_start() {
    let row = |n: u32| {
        let prompt = serde_json::json!([
            {"role": "user", "content": [{"type": "text", "text": format!("What is {n}?")}]},
            {"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "f"}}]},
            {"role": "tool", "content": "3"},
            {"role": "assistant", "content": "It is "},
        ]);
        serde_json::json!({"prompt": prompt, "answer": n.to_string()}).to_string() + "\n"
    };
    let lines: String = (1..9).map(row).collect();
    let folder = workplace_of(THINKING, "", &lines, "^It is ");
    let (config, run) = (folder.path().join("config.toml"), folder.path().join("run"));
    let shown = succeeds(&["data", "show", text(&config), "--count", "1"]);
    let expected = "None<|im_end|>\n<|im_start|>tool\n3<|im_end|>\n<|im_start|>assistant\nIt is \n--- answer";
    assert!(shown.contains(expected), "{shown}");
    succeeds(&["train", text(&config), "--out", text(&run)]);
    assert_eq!(records(&run)[1].get("reward/regex"), Some(1.0));
    let twice = workplace_of(THINKING, "prefill = 'So'", &lines, "x");
    let complaint = fails(&["data", "check", text(&twice.path().join("config.toml"))]);
    assert!(complaint.contains("begins the assistant's turn with \"It is \""), "{complaint}");
    let plain = lines.replace("\"role\":\"tool\"", "\"role\":\"system\"");
    let folder = workplace_of(THINKING, "", &plain, "x");
    let complaint =
        fails(&["data", "check", text(&folder.path().join("config.toml")), "--set", "prompt.template=plain"]);
    assert!(complaint.contains("conversation of 3 messages"), "{complaint}");
}

/// Makes a model one that ends whole texts with its end token, and knows no end of a turn.
fn end_texts_alone(model: &Path) {
    let shape = fs::read_to_string(model.join("config.json")).unwrap();
    let shape: String = shape.split_whitespace().collect::<Vec<_>>().join(" ").replace("[ 258, 256 ]", "256");
    assert!(shape.contains("\"eos_token_id\": 256"), "{shape}");
    fs::write(model.join("config.json"), shape).unwrap();
}

/// What a saved model says that completions end with.
fn end_tokens(model: &Path) -> serde_json::Value {
    let text = fs::read_to_string(model.join("generation_config.json")).unwrap();
    serde_json::from_str::<serde_json::Value>(&text).unwrap()["eos_token_id"].clone()
}

#[test]
fn what_is_trained_on_chats_ends_its_turns_wherever_it_is_saved() {
    for lora in [&[][..], &["--set", "lora.rank=2"]] {
        let folder = workplace(THINKING, "");
        end_texts_alone(&folder.path().join("model"));
        let (config, run, out) =
            (folder.path().join("config.toml"), folder.path().join("run"), folder.path().join("out"));
        succeeds(&[&["train", text(&config), "--out", text(&run)], lora].concat());
        succeeds(&["export", text(&run), "--out", text(&out)]);
        assert_eq!(end_tokens(&out), serde_json::json!([256, 258]));
    }
}

#[test]
fn a_turn_is_learned_and_sampled_to_the_token_that_the_template_ends_it_with() {
    let folder = workplace(THINKING, "");
    let (model, rows) = (folder.path().join("model"), folder.path().join("rows.jsonl"));
    end_texts_alone(&model);
    fs::write(&rows, "{\"prompt\": \"1\", \"completion\": \"<think>\\nx</think>2\"}\n").unwrap();
    let config = format!(
        "steps = 80\ntokens_per_step = 40\nmodel = {{path = '{}'}}\noptim = {{lr = 3e-2}}\n\
         data = {{dataset = 'file', path = '{}'}}\nprompt = {{template = 'chat'}}\n",
        model.display(),
        rows.display()
    );
    let (sft, learned) = (folder.path().join("sft.toml"), folder.path().join("learned"));
    fs::write(&sft, config).unwrap();
    succeeds(&["sft", text(&sft), "--out", text(&learned)]);
    assert_eq!(end_tokens(&learned), serde_json::json!([256, 258]));
    let sampled = succeeds(&["sample", "1", "--chat", "--model", text(&learned), "--temperature", "0", "--json"]);
    let sampled: serde_json::Value = serde_json::from_str(&sampled).unwrap();
    assert_eq!(sampled["completion"], "x</think>2", "{sampled}");
    assert_eq!(sampled["tokens"].as_array().unwrap().last().unwrap(), 258);
    // A model that says nothing of the token stops at it where its template is used.
    fs::remove_file(learned.join("generation_config.json")).unwrap();
    let shape = fs::read_to_string(learned.join("config.json")).unwrap().split_whitespace().collect::<String>();
    fs::write(learned.join("config.json"), shape.replace("[256,258]", "256")).unwrap();
    let again = succeeds(&["sample", "1", "--chat", "--model", text(&learned), "--temperature", "0", "--json"]);
    assert_eq!(again, format!("{sampled}\n"));
    // As a stop string, the token is no part of the text either.
    fs::remove_file(learned.join("chat_template.jinja")).unwrap();
    let prompt = "<|im_start|>user\n1<|im_end|>\n<|im_start|>assistant\n<think>\n";
    let stop = ["--stop", "<|im_end|>", "--temperature", "0", "--json"];
    let stopped = succeeds(&[&["sample", prompt, "--model", text(&learned)], &stop[..]].concat());
    let stopped: serde_json::Value = serde_json::from_str(&stopped).unwrap();
    assert_eq!((&stopped["completion"], &stopped["finish"]), (&sampled["completion"], &"stop".into()), "{stopped}");
}

#[test]
fn the_day_that_a_template_prints_is_that_on_which_the_run_began() {
    let folder = workplace("{{ strftime_now('%d %b %Y') }} {{ messages[0].content }}", "");
    let (config, run) = (folder.path().join("config.toml"), folder.path().join("run"));
    succeeds(&["train", text(&config), "--out", text(&run)]);
    let written = fs::read_to_string(run.join("config.toml")).unwrap();
    let today = jiff::Zoned::now().date();
    assert!(written.contains(&format!("date = \"{today}\"")), "{written}");
    let then = succeeds(&["data", "show", text(&config), "--count", "1", "--set", "prompt.date=2024-07-26"]);
    assert!(then.contains("26 Jul 2024 What is"), "{then}");
    let complaint = fails(&["data", "check", text(&config), "--set", "prompt.date=tomorrow"]);
    assert!(complaint.contains("prompt.date = \"tomorrow\""), "{complaint}");
}
