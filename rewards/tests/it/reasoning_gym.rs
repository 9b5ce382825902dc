//! reasoning-gym, live in a Python worker: its own answers score 1, others do not.

use std::process::Command;

use reckon_datasets::Example;
use reckon_rewards::{Plugin, PythonOptions, Submission, Verifier};
use serde_json::{Map, Value};

#[test]
fn the_answers_of_reasoning_gym_score_one_on_its_own_tasks() {
    // RECKON_TEST_PYTHON names an interpreter that has the package, where python3 has not.
    let python = std::env::var("RECKON_TEST_PYTHON").unwrap_or_else(|_| "python3".into());
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/verifiers/reasoning_gym_tasks.py");
    let has = Command::new(&python).args(["-c", "import reasoning_gym"]).output();
    if !has.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: {python} has no package reasoning-gym (pip install reasoning-gym==0.1.25)");
        return;
    }
    // Workers have this hash seed, and some tasks are others under another.
    let listed = Command::new(&python).args([file, "1"]).env("PYTHONHASHSEED", "0").output().unwrap();
    let rows: Vec<Example> = String::from_utf8(listed.stdout).unwrap().lines().filter_map(example).collect();
    let options = PythonOptions { python, ..PythonOptions::new(&format!("{file}:verify")) };
    let verifier = Plugin::new("reasoning_gym", &options).unwrap();
    let passing = |completion: &dyn Fn(&Example) -> String| -> Vec<&str> {
        let completions: Vec<String> = rows.iter().map(completion).collect();
        let batch: Vec<_> = rows.iter().zip(&completions).map(|(row, text)| Submission::new(row, text)).collect();
        let verdicts = verifier.verify_batch(&batch).unwrap();
        rows.iter().zip(verdicts).filter(|(_, verdict)| verdict.passed()).map(|(row, _)| row.id.as_str()).collect()
    };
    let (right, wrong) = (passing(&|row| row.answer.to_string()), passing(&|_| "no idea".into()));
    let others: Vec<&str> = rows.iter().map(|row| row.id.as_str()).filter(|id| !right.contains(id)).collect();
    eprintln!("{} of {} tasks give their own answer 1, all but {others:?}", right.len(), rows.len());
    assert!(right.len() >= 90, "only {} of {} tasks give their own answer 1", right.len(), rows.len());
    // This task compares whether two texts are empty.
    assert_eq!(wrong, ["game_of_life_halting"], "tasks that accept \"no idea\"");
}

/// A row of the example's data set; tasks whose answer is no text are left out.
fn example(line: &str) -> Option<Example> {
    let mut info: Map<String, Value> = serde_json::from_str(line).unwrap();
    let mut text = |key: &str| info.remove(key)?.as_str().map(str::to_owned);
    let (question, answer) = (text("question")?, text("answer")?);
    Some(Example { id: info["task"].as_str()?.into(), question, answer: answer.into(), messages: Vec::new(), info })
}
