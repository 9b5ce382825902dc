//! Python functions in the forms in which people write them: where their files lie, what they take, what they return,
//! and what becomes of a completion over which they fail.

use std::path::Path;

use reckon_rewards::{Outcome, Submission};
use serde_json::{Value, json};

use super::common::{example, verifier};
use super::plugins::{python, rewards};

const PLUGINS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/plugins");

fn error(kind: &str, entry: &str, keys: &str, info: Value, batch: &[&str]) -> String {
    python(kind, entry, keys, &example("4", info), batch).unwrap_err().to_string()
}

fn outcomes(kind: &str, entry: &str, keys: &str, batch: &[&str]) -> Vec<Outcome> {
    let verdicts = python(kind, entry, keys, &example("4", json!({})), batch).unwrap();
    verdicts.iter().map(|verdict| verdict.outcome).collect()
}

#[test]
fn a_file_named_like_a_module_of_python_leaves_the_library_whole() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(Path::new(PLUGINS).join("helpers.py"), folder.path().join("helpers.py")).unwrap();
    let names =
        ["json", "random", "types", "math", "ast", "enum", "inspect", "asyncio", "re", "code", "numbers", "my-own"];
    for name in names {
        std::fs::copy(Path::new(PLUGINS).join("named.py"), folder.path().join(format!("{name}.py"))).unwrap();
    }
    for name in names {
        let entry = folder.path().join(format!("{name}.py:verify"));
        let config = format!("kind = 'python'\nentry = '{}'\npool = {{workers = 1, retries = 0}}", entry.display());
        let four = example("4", json!({}));
        assert!(verifier(&config).verify(&four, "4").unwrap().passed(), "{name}");
    }
}

#[test]
fn a_file_inside_a_package_imports_as_files_of_packages_do() {
    let four = example("4", json!({}));
    for (file, expected) in
        [("package/inner/reward.py", 0.5), ("code/reward.py", 1.0), ("loose/deep/my-reward.py", 1.0)]
    {
        assert_eq!(rewards("python", &format!("{file}:verify"), "", &four, &["4", "5"]), [expected, 0.0], "{file}");
    }
}

#[test]
fn callable_objects_and_coroutines_judge_in_every_kind_and_on_one_loop() {
    let four = example("4", json!({}));
    for (kind, entry, keys, expected) in [
        ("python", "scaled.judge", "", 3.0),
        ("python", "waits", "", 1.0),
        ("python", "Waits", "", 1.0),
        ("python", "plain_async", "", 1.0),
        ("python_trl", "scaled", "", 3.0),
        ("python_trl", "Scaled", "kwargs = {scale = 0.5}", 0.5),
        ("python_trl", "half", "", 1.0),
        ("python_trl", "trl_async", "", 1.0),
        ("python_trl", "trl_async", "scope = 'completion'", 1.0),
        ("python_verl", "verl_async", "", 1.0),
    ] {
        let entry = format!("people.py:{entry}");
        assert_eq!(rewards(kind, &entry, keys, &four, &["4", "5"]), [expected, 0.0], "{kind} {entry} {keys}");
    }
}

#[test]
fn numbers_of_every_type_are_taken_and_none_is_not_judged() {
    let row = example("4", json!({}));
    let batch = ["true", "int", "decimal", "fraction", "array", "array of true", "none"];
    let expected = [Some(1.0), Some(2.0), Some(0.25), Some(0.5), Some(0.75), Some(1.0), None];
    for (kind, entry) in [("python", "value"), ("python_trl", "values"), ("python_verl", "scores")] {
        let verdicts = python(kind, &format!("people.py:{entry}"), "", &row, &batch).unwrap();
        let judged: Vec<_> = verdicts.iter().map(|verdict| verdict.judged()).collect();
        assert_eq!(judged, expected, "{kind}");
        assert_eq!(verdicts[6].outcome, Outcome::Skipped);
    }
}

#[test]
fn what_is_no_number_is_refused_by_name_with_what_to_return() {
    let cases = [
        ("text", "returned '1.0', a text"),
        ("bytes", "returned b'1', a text"),
        ("array of text", "a text"),
        ("nan", "returned nan, which is not finite"),
        ("decimal nan", "returned nan, which is not finite"),
        ("infinity", "returned inf, which is not finite"),
        ("huge", "of type int"),
        ("two", "of type Array"),
        ("list", "returned [1.0], of type list"),
        ("complex", "returned (1+0j), of type complex"),
        ("object", "of type type"),
    ];
    for (kind, entry) in [("python", "value"), ("python_trl", "values"), ("python_verl", "scores")] {
        let file = format!("people.py:{entry}");
        let verdicts = python(kind, &file, "on_error = 'skip'", &example("4", json!({})), &cases.map(|(said, _)| said));
        for (verdict, (said, expected)) in verdicts.unwrap().iter().zip(cases) {
            let reason = &verdict.reason;
            assert!(reason.contains(&format!("`{entry}` returned")) && reason.contains(expected), "{said}: {reason}");
            assert!(reason.contains(": return a number, a bool, or None") && !reason.contains('\n'), "{reason}");
        }
        let stopped = error(kind, &file, "", json!({}), &["text"]);
        assert!(stopped.contains("returned '1.0', a text: return a number"), "{stopped}");
    }
    let error = |kind, entry, said: &[&str]| error(kind, entry, "", json!({}), said);
    for said in ["text", "none", "number", "dict"] {
        let error = error("python_trl", "people.py:whole", &[said, ""]);
        assert!(
            error.contains("`whole` returned") && error.contains("which is no list: return a list of 2"),
            "{error}"
        );
    }
    assert!(error("python_trl", "people.py:whole", &["short", ""]).contains("`whole` returned 1 rewards for 2 comp"));
    assert!(error("python_trl", "people.py:whole", &["long", ""]).contains("`whole` returned 3 rewards for 2 comp"));
    assert!(
        error("python_verl", "people.py:no_score", &["x"])
            .contains("`no_score` returned {'acc': 1.0}, which has no `score`")
    );
    assert!(error("python", "people.py:no_reward", &["x"]).contains("which has no `reward`"));
}

/// A row as a file has it.
fn row() -> Value {
    json!({
        "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"}],
        "question": "2 + 2?", "answer": "thus\n#### 4", "solution": "It is 4.", "level": 3,
        "tools": [{"b": 1, "a": 2}], "source": null,
    })
}

#[test]
fn functions_of_trl_get_every_column_but_the_prompt_as_the_file_has_it() {
    let four = example("4", row());
    for entry in ["told", "everything"] {
        assert_eq!(rewards("python_trl", &format!("people.py:{entry}"), "", &four, &["4", "5"]), [1.0, 1.0], "{entry}");
    }
    let missing = error("python_trl", "people.py:told", "", json!({}), &["4", "5"]);
    assert!(
        missing.contains("`told` wants solution, tools, source, and is offered answer, completion_ids"),
        "{missing}"
    );
}

#[test]
fn prompts_and_completions_are_messages_or_texts_as_the_rows_have_them_or_as_the_config_says() {
    let (chat, text) = (row(), json!({"prompt": "2 + 2?"}));
    let mut continued = row();
    continued["prompt"].as_array_mut().unwrap().push(json!({"role": "assistant", "content": "4"}));
    let none = json!({});
    let conversation = row()["prompt"].as_array().unwrap().clone();
    let (whole, system, user) = (&conversation[..], &conversation[..1], json!({"prompt": conversation[1..]}));
    let (messages, texts) = ("conversational = true", "conversational = false");
    for (entry, keys, info, told) in [
        ("chats", "", &chat, &[][..]),
        ("chats", messages, &chat, whole),
        ("chats", "", &continued, &[]),
        ("chats", "", &none, whole),
        ("chats", "", &user, whole),
        ("chats", messages, &text, system),
        ("texts", "", &text, system),
        ("texts", "", &none, system),
        ("texts", texts, &text, &[]),
        ("texts", texts, &chat, whole),
        ("asks_the_user_alone", messages, &text, &[]),
    ] {
        let mut example = example("4", info.clone());
        example.question = "2 + 2?".into();
        example.messages = told.to_vec();
        assert_eq!(
            rewards("python_trl", &format!("people.py:{entry}"), keys, &example, &["4"]),
            [1.0],
            "{entry} {keys}"
        );
    }
    let said = error("python_trl", "people.py:chats", "", text, &["4"]);
    assert!(said.contains("were texts, as the rows have them: `conversational = true` gives messages"), "{said}");
    let said = error("python_trl", "people.py:texts", "", chat, &["4"]);
    assert!(said.contains("were messages, as the rows have them: `conversational = false` gives texts"), "{said}");
}

#[test]
fn a_completion_over_which_a_function_fails_is_left_out_where_the_config_says_so() {
    use Outcome::{Error, Fail, Pass};
    let batch = ["1", "x", "0.5", ""];
    for (kind, entry, keys, expected) in [
        ("python", "number_of_one", "", [Pass, Error, Fail, Error]),
        ("python", "numbers_of_all", "scope = 'group'", [Error; 4]),
        ("python_trl", "number_of", "", [Pass, Error, Fail, Error]),
        ("python_trl", "number_of", "scope = 'completion'", [Pass, Error, Fail, Error]),
    ] {
        let entry = format!("people.py:{entry}");
        assert_eq!(outcomes(kind, &entry, &format!("on_error = 'skip'\n{keys}"), &batch), expected, "{entry} {keys}");
        let stopped = error(kind, &entry, &format!("on_error = 'stop'\n{keys}"), json!({}), &batch);
        assert!(stopped.contains("ValueError: could not convert string to float: 'x' (people.py, line"), "{stopped}");
    }
    let values = ["true", "text", "none", "nan"];
    for (kind, entry) in [("python", "value"), ("python_trl", "values"), ("python_verl", "scores")] {
        let found = outcomes(kind, &format!("people.py:{entry}"), "on_error = 'skip'", &values);
        assert_eq!(found, [Pass, Error, Outcome::Skipped, Error], "{kind}");
    }
    // What fails over the group alone is no completion's fault.
    assert_eq!(outcomes("python_trl", "trl.py:too_few", "on_error = 'skip'", &["a", "b"]), [Error; 2]);
}

#[test]
fn programs_say_that_they_do_not_judge_and_their_errors_are_left_out_too() {
    let script = r#"
        echo '{"ready": true}'
        while IFS= read -r call; do
            id=${call#*\"id\":}; id=${id%%,*}
            case $call in
                *'"completion":"null"'*) said='"reward": null' ;;
                *'"completion":"error"'*) said='"error": "no licence"' ;;
                *'"completion":"missing"'*) said='"reason": "forgotten"' ;;
                *) said='"reward": 1' ;;
            esac
            echo "{\"id\": $id, $said}"
        done"#;
    let pool = json!({"workers": 1, "retries": 0});
    let config = |on_error: &str| {
        let config = json!({"kind": "command", "command": ["sh", "-c", script], "pool": pool, "on_error": on_error});
        serde_json::from_value::<reckon_rewards::VerifierConfig>(config).unwrap().build().unwrap()
    };
    let four = example("4", json!({}));
    let batch = ["right", "null", "error", "missing"].map(|text| Submission::new(&four, text));
    let verdicts = config("skip").verify_batch(&batch).unwrap();
    let outcomes: Vec<_> = verdicts.iter().map(|verdict| verdict.outcome).collect();
    assert_eq!(outcomes, [Outcome::Pass, Outcome::Skipped, Outcome::Error, Outcome::Error]);
    assert_eq!(verdicts[2].reason, "no licence");
    for (place, expected) in [(2, "no licence"), (3, "an answer without a `reward`")] {
        let error = config("stop").verify_batch(&batch[place..=place]).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
