//! Files of public shapes become examples without a word of configuration; what is wrong in a file is told in one line.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::{Path, PathBuf};

use reckon_datasets::{
    Arithmetic, ArithmeticConfig, Columns, Cut, Dataset, Error, Example, FileRows, Purpose, Split, Wanted,
};
use serde_json::json;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(format!("{name}.parquet"))
}

fn parquet(name: &str) -> FileRows {
    FileRows::open(&[fixture(name)], &Columns::default(), Purpose::Reference).unwrap()
}

fn lines(text: &str, columns: &Columns, purpose: Purpose) -> Result<FileRows, Error> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.jsonl");
    std::fs::write(&path, text).unwrap();
    FileRows::open(&[path], columns, purpose)
}

#[test]
fn public_parquet_files_are_recognised() {
    for (name, shape, questions_and_answers) in [
        ("gsm8k", "GSM8K", vec![("Tom has 3 apples", "7"), ("A car costs", "1500")]),
        ("math", "MATH", vec![("Halve 1.", "\\frac{1}{2}"), ("What is $1+1$?", "2")]),
        ("verl", "verl", vec![("6*7?", "42")]),
        ("verl_countdown", "verl", vec![("Make 31 from", "")]),
        ("countdown", "Countdown", vec![("44,19,35:98", ""), ("63,95,96:64", "")]),
        ("open_instruct", "open-instruct", vec![("1+1?", "2"), ("2+2?", "4")]),
    ] {
        let rows = parquet(name);
        assert_eq!((rows.shape(), rows.len()), (shape, questions_and_answers.len()), "{name}");
        for (index, (question, answer)) in questions_and_answers.into_iter().enumerate() {
            let example = rows.get(index);
            assert!(example.question.starts_with(question), "{name}: {}", example.question);
            assert_eq!(example.answer, answer, "{name}");
            assert_eq!(example.id, format!("{name}-{}", index + 1));
        }
    }
}

#[test]
fn every_column_of_a_row_is_kept_as_the_file_has_it() {
    let gsm8k = parquet("gsm8k").get(0);
    assert_eq!(gsm8k.info["question"], gsm8k.question.as_str());
    assert!(gsm8k.info["answer"].as_str().unwrap().ends_with("#### 7") && gsm8k.answer == "7");
    assert_eq!(parquet("verl").get(0).info["prompt"][0]["content"], "Be brief.");
    for text in [
        r#"{"id": 7, "question": "1+1?", "answer": 2, "tools": [{"b": 1, "a": null}]}"#,
        r#"{"prompt": "1+1?", "solution": "It is $\\boxed{2}$.", "level": [3]}"#,
        r#"{"problem": "1+1?", "solution": " 2 "}"#,
    ] {
        let id = text.contains("id").then(|| "id".to_owned());
        let example = lines(text, &Columns { id, ..Columns::default() }, Purpose::Reference).unwrap().get(0);
        assert_eq!(
            serde_json::to_value(&example.info).unwrap(),
            serde_json::from_str::<serde_json::Value>(text).unwrap()
        );
    }
}

#[test]
fn a_conversation_of_the_question_ends_with_it() {
    let text = r#"{"messages": [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"}], "ground_truth": 2}"#;
    let example = lines(text, &Columns::default(), Purpose::Reference).unwrap().get(0);
    assert_eq!(example.messages.len(), 1, "the answer is not told");
}

#[test]
fn what_else_a_row_knows_is_kept() {
    assert_eq!(parquet("math").get(0).info["level"], "Level 3");
    assert_eq!(parquet("math").get(0).info["solution"], "So $\\boxed{\\frac{1}{2}}$.");
    let verl = parquet("verl").get(0);
    assert_eq!(verl.messages[0]["content"], "Be brief.");
    assert_eq!(verl.info["extra_info"]["split"], "train");
    for name in ["countdown", "verl_countdown"] {
        let example = parquet(name).get(0);
        assert!(example.info["numbers"].as_array().unwrap().len() == 3 && example.info["target"].is_number(), "{name}");
    }
}

#[test]
fn a_prompt_keeps_all_its_messages_and_a_whole_conversation_loses_its_answer() {
    let asked = r#"{"role": "user", "content": [{"type": "text", "text": "1"}, {"type": "text", "text": "+1?"}]}"#;
    let call = r#"{"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "add"}}], "name": null}"#;
    let result = r#"{"role": "tool", "content": "2", "tool_call_id": "a"}"#;
    let begun = r#"{"role": "assistant", "content": "It is"}"#;
    let plain = json!({"role": "user", "content": "1+1?"});
    let (called, told) = (
        json!({"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "add"}}]}),
        json!({"role": "tool", "content": "2", "tool_call_id": "a"}),
    );
    let opened = json!({"role": "assistant", "content": "It is"});
    for (column, answer, messages, purpose, expected) in [
        ("prompt", "answer", vec![asked, begun], Purpose::Reference, json!([plain, opened])),
        ("prompt", "answer", vec![asked, call, result], Purpose::Reference, json!([plain, called, told])),
        (
            "prompt",
            "answer",
            vec![asked, call, result, begun],
            Purpose::Reference,
            json!([plain, called, told, opened]),
        ),
        (
            "messages",
            "ground_truth",
            vec![asked, call, result, begun],
            Purpose::Reference,
            json!([plain, called, told]),
        ),
        ("messages", "other", vec![asked, call, result, begun], Purpose::Completion, json!([plain, called, told])),
        ("prompt", "completion", vec![asked, begun], Purpose::Completion, json!([plain, opened])),
    ] {
        let text = format!("{{\"{column}\": [{}], \"{answer}\": \"is 2\"}}", messages.join(","));
        let example = lines(&text, &Columns::default(), purpose).unwrap().get(0);
        assert_eq!((example.question.as_str(), json!(example.messages)), ("1+1?", expected), "{text}");
    }
    let beside = format!("{{\"problem\": \"1+1?\", \"solution\": \"2\", \"messages\": [{asked}, {begun}]}}");
    let example = lines(&beside, &Columns::default(), Purpose::Reference).unwrap().get(0);
    assert!(example.messages.is_empty(), "a conversation with the answer is no prompt");
}

#[test]
fn columns_of_the_config_come_before_what_is_recognised() {
    let text = r#"{"q": "x", "deep": {"list": [{"a": 5}]}, "n": 7, "question": "kept"}"#;
    let given = |question: &str, answer: &str| Columns {
        question: Some(question.into()),
        answer: Some(answer.into()),
        ..Columns::default()
    };
    let columns = Columns { id: Some("n".into()), ..given("q", "deep.list.0.a") };
    let example = lines(text, &columns, Purpose::Reference).unwrap().get(0);
    assert_eq!((example.id.as_str(), example.question.as_str(), example.answer.as_str()), ("7", "x", "5"));
    assert_eq!(example.info["question"], "kept");
    let none = lines(text, &given("q", ""), Purpose::Reference).unwrap().get(0);
    assert_eq!(none.answer, "");
    let whole = Columns { cut: Some(Cut::Whole), ..Columns::default() };
    let uncut = lines(r##"{"question": "x", "answer": "1\n#### 1"}"##, &whole, Purpose::Reference).unwrap();
    assert_eq!(uncut.get(0).answer, "1\n#### 1");
}

#[test]
fn completions_to_learn_are_recognised() {
    for (text, question, completion) in [
        (r#"{"prompt": "1+1?", "completion": " 2"}"#, "1+1?", "2"),
        (
            r#"{"prompt": [{"role": "user", "content": "1+1?"}],"completion":[{"role": "assistant", "content": "2"}]}"#,
            "1+1?",
            "2",
        ),
        (r#"{"messages": [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"}]}"#, "1+1?", "2"),
        (r##"{"question": "1+1?", "answer": "two\n#### 2"}"##, "1+1?", "two\n#### 2"),
    ] {
        let example = lines(text, &Columns::default(), Purpose::Completion).unwrap().get(0);
        assert_eq!((example.question.as_str(), example.answer.as_str()), (question, completion), "{text}");
    }
}

#[test]
fn what_is_wrong_is_told_in_one_line_with_its_place() {
    let row = r#"{"question": "a", "answer": "b"}"#;
    for (text, expected) in [
        (r#"{"a": 1, "b": 2}"#.to_owned(), "rows.jsonl, line 1: no known shape has the columns a, b: name them with"),
        (format!("{row}\n{{\"question\": \"c\"}}"), "line 2: no column \"answer\"; the row has: question"),
        (format!("{row}\n{{\"question\": \"c\", \"answer\": \" \"}}"), "line 2: column \"answer\" is empty"),
        (
            format!("{row}\n{{\"question\": \"c\", \"answer\": null}}"),
            "line 2: column \"answer\" is empty (null, NaN or Infinity)",
        ),
        (format!("{row}\n{{\"question\": {{}}, \"answer\": 1}}"), "line 2: column \"question\" holds {}, not a text"),
        ("{\"question\": \"a\", \"answer\": \"#### \"}".to_owned(), "line 1: column \"answer\" is empty"),
        (
            "{\"question\": \"a\", \"answer\": \"#### 1\"}\n{\"question\": \"a\", \"answer\": \"1\"}".to_owned(),
            "has no ####",
        ),
        (r#"{"prompt": [{"role": "system", "content": "x"}], "answer": 1}"#.to_owned(), "no message of role \"user\""),
        (r#"{"prompt": [{"role": "user"}], "answer": 1}"#.to_owned(), "not a message of role and content"),
        ("\n\n".to_owned(), "rows.jsonl holds no example"),
    ] {
        let message = lines(&text, &Columns::default(), Purpose::Reference).unwrap_err().to_string();
        assert!(message.contains(expected) && !message.contains('\n'), "{message}");
    }
    let absent = FileRows::open(&["no/such.jsonl".into()], &Columns::default(), Purpose::Reference).unwrap_err();
    assert!(absent.to_string().starts_with("cannot read no/such.jsonl: "), "{absent}");
}

#[test]
fn a_damaged_parquet_file_is_an_error_wherever_it_is_damaged() {
    let whole = std::fs::read(fixture("verl")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.parquet");
    let open = || FileRows::open(std::slice::from_ref(&path), &Columns::default(), Purpose::Reference);
    for length in [0, 3, 4, 100, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..length]).unwrap();
        let message = open().unwrap_err().to_string();
        assert!(message.contains("bad.parquet: it is no Parquet file, or a damaged one"), "{length}: {message}");
    }
    std::fs::write(&path, "{\"question\": \"not Parquet\"}").unwrap();
    assert!(open().unwrap_err().to_string().contains("no Parquet file"));
}

#[test]
fn rows_can_be_chosen_by_what_their_columns_hold() {
    let only = |column: &str, values: &[&str]| {
        let values = Wanted::OneOf(values.iter().map(ToString::to_string).collect());
        parquet("math").only(&[(column.to_owned(), values)].into())
    };
    assert_eq!(only("level", &["Level 3", "Level 4"]).unwrap().len(), 1);
    for (column, values) in [("level", &["Level 9"][..]), ("lvl", &["Level 3"])] {
        let message = only(column, values).unwrap_err().to_string();
        assert!(message.contains(column) && message.contains(values[0]), "{message}");
    }
}

#[test]
fn a_share_held_out_keeps_equal_questions_together() {
    let text: String = (0..2000).map(|i| format!("{{\"question\": \"q{}\", \"answer\": {i}}}\n", i / 2)).collect();
    let rows = lines(&text, &Columns::default(), Purpose::Reference).unwrap();
    let (train, held) = rows.clone().split(0.1).unwrap();
    assert_eq!(train.len() + held.len(), 2000);
    assert!((140..260).contains(&held.len()), "{}", held.len());
    let questions = |rows: &FileRows| -> std::collections::HashSet<String> {
        (0..rows.len()).map(|i| rows.get(i).question).collect()
    };
    assert!(questions(&train).is_disjoint(&questions(&held)));
    for share in [-0.1, 1.0, f64::NAN] {
        assert!(rows.clone().split(share).unwrap_err().to_string().contains("held_out = "));
    }
}

#[test]
fn a_share_of_what_a_generator_made_to_train_on_is_held_out_too() {
    let sums = Arithmetic::new(ArithmeticConfig::default(), 1, Split::Train).unwrap();
    let row = |i| {
        let Example { question, answer, .. } = sums.get(i);
        format!("{}\n", json!({ "question": question, "answer": answer.as_str() }))
    };
    let rows = lines(&(0..1000).map(row).collect::<String>(), &Columns::default(), Purpose::Reference).unwrap();
    let (_, held) = rows.split(0.05).unwrap();
    assert!((20..100).contains(&held.len()), "{}", held.len());
}

#[test]
fn of_a_few_rows_none_may_be_held_out() {
    let row = |i: usize| format!("{{\"question\": \"q{i}\", \"answer\": {i}}}\n");
    let rows = lines(&(0..5).map(row).collect::<String>(), &Columns::default(), Purpose::Reference).unwrap();
    for share in [0.0, 0.001] {
        let (train, held) = rows.clone().split(share).unwrap();
        assert_eq!((train.len(), held.len()), (5, 0), "{share}");
    }
}

#[test]
fn a_list_of_plain_values_is_several_right_answers() {
    for (answer, expected) in [
        (r#"["Paris", "Paris, France"]"#, vec!["Paris", "Paris, France"]),
        ("[1.50, 3]", vec!["1.50", "3"]),
        ("[7]", vec!["7"]),
        (r#####"["x\n#### 1,000", "#### 1e3"]"#####, vec!["1000", "1e3"]),
        (r#""[1, 2]""#, vec!["[1, 2]"]),
        (r#"[{"b": 1, "a": 2}]"#, vec![r#"[{"b":1,"a":2}]"#]),
        (r#"{"z": 1, "a": 123456789012345678901234567890}"#, vec![r#"{"z":1,"a":123456789012345678901234567890}"#]),
    ] {
        let text = format!("{{\"question\": \"q\", \"answer\": {answer}}}");
        let rows = lines(&text, &Columns::default(), Purpose::Reference).unwrap();
        assert_eq!(rows.get(0).answer.each().collect::<Vec<_>>(), expected, "{text}");
    }
    let message = lines(r#"{"question": "q", "answer": ["a", null]}"#, &Columns::default(), Purpose::Reference);
    assert!(message.unwrap_err().to_string().contains("column \"answer\" is empty"));
}

#[test]
fn the_fingerprint_changes_with_any_row() {
    let print = |text: &str| lines(text, &Columns::default(), Purpose::Reference).unwrap().fingerprint();
    let two = |answer: &str| format!("{{\"question\":\"a\",\"answer\":1}}\n{{\"question\":\"b\",\"answer\":{answer}}}");
    assert_eq!(print(&two("2")), print(&two("2")));
    assert_ne!(print(&two("2")), print(&two("3")));
    assert_ne!(print(&two("2")), print(&two("2").replace('}', ",\"level\":1}")));
}
