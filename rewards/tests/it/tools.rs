//! What tools outside this program answer, and what follows from their faults.

use std::path::{Path, PathBuf};

use reckon_datasets::Example;
use reckon_rewards::sandbox::helper_at;
use reckon_rewards::{Memory, State, ToolAnswer, ToolError, ToolOptions, Toolbox};
use serde::Deserialize;

#[derive(Deserialize)]
struct Tables {
    tools: Vec<ToolOptions>,
}

fn toolbox(text: &str) -> Result<Toolbox, ToolError> {
    let tables: Tables = toml::from_str(text).unwrap();
    Toolbox::new(&tables.tools)
}

fn file(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("tool.py");
    std::fs::write(&path, text).unwrap();
    path
}

fn example() -> Example {
    Example { id: "row".into(), question: "guess".into(), answer: "42".into(), ..Example::default() }
}

const GAME: &str = "
class Guess:
    def __init__(self, hint='no'):
        self.hint = hint
    def reset(self, row):
        return {'secret': int(row['answer']), 'guesses': 0}
    def step(self, state, input):
        state['guesses'] += 1
        if int(input) == state['secret']:
            return state, 'yes, after %d' % state['guesses']
        return state, self.hint

def double(text):
    return 2 * int(text)

class Bid:
    def step(self, state, input):
        return None, {'answer': 'bid', 'reward': float(input)}

def pay(text):
    return {'answer': 7, 'reward': eval(text)}

def tip(text):
    return {'reward': 1}

def hang(text):
    import time
    time.sleep(60)

def die(text):
    import os
    os._exit(3)
";

#[test]
fn a_tool_with_state_gets_it_back_whoever_answers() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), GAME);
    let tools =
        format!("tools = [{{kind = 'function', entry = '{}:Guess', kwargs = {{hint = 'cold'}}}}]", path.display());
    let tools = toolbox(&tools).unwrap();
    let (mut one, mut other) = (Memory::new(), Memory::new());
    let ask = |memory: &mut Memory, call: &str| tools.answer(&example(), memory, call).unwrap().text;
    assert_eq!(ask(&mut one, "1"), "cold");
    assert_eq!(ask(&mut other, "42"), "yes, after 1");
    assert_eq!(ask(&mut one, "2"), "cold");
    assert_eq!(ask(&mut one, "42"), "yes, after 3");
}

#[test]
fn a_function_answers_and_its_faults_are_told_to_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), GAME);
    let entry = |name: &str| {
        format!("{{kind = 'function', name = '{name}', entry = '{}:{name}', timeout_s = 0.5}}", path.display())
    };
    let tools = format!("tools = [{}, {}, {}]", entry("double"), entry("hang"), entry("die"));
    let tools = toolbox(&tools).unwrap();
    for (call, expected, failed) in [
        ("double 21", "42", false),
        ("double x", "error: ValueError: invalid literal for int() with base 10: 'x'", true),
        ("hang: 1", "error: no answer within 0.5 s", true),
        ("die 1", "error: the tool ended (exit status: 3)", true),
        ("double 4", "8", false),
    ] {
        let answer: ToolAnswer = tools.answer(&example(), &mut Memory::new(), call).unwrap();
        assert!(answer.text.starts_with(expected) && answer.failed == failed, "{call}: {answer:?}");
    }
}

#[test]
fn a_function_gives_a_reward_beside_its_answer_or_the_call_fails() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), GAME);
    let entry = |name: &str| format!("{{kind = 'function', name = '{name}', entry = '{}:{name}'}}", path.display());
    let tools = ["pay", "Bid", "tip", "double"].map(entry).join(", ");
    let tools = toolbox(&format!("tools = [{tools}]")).unwrap();
    for (call, expected, reward) in [
        ("double 21", "42", None),
        ("pay 0.5", "7", Some(0.5)),
        ("pay True", "7", Some(1.0)),
        ("pay None", "7", None),
        ("pay -3", "7", Some(-3.0)),
        ("pay __import__('fractions').Fraction(1, 4)", "7", Some(0.25)),
        ("Bid 2", "bid", Some(2.0)),
        ("Bid nan", "error: ValueError: `Bid` gave the reward nan: give a finite number, or None for none", None),
        ("pay 'much'", "error: ValueError: `pay` gave the reward 'much': give a finite number", None),
        ("pay 10 ** 400", "error: ValueError: `pay` gave the reward 1000", None),
        ("tip 1", "error: TypeError: `tip` returned {'reward': 1}: with `reward` go `answer`, the text", None),
        ("nothing 1", "error: there is no tool `nothing`", None),
    ] {
        let answer = tools.answer(&example(), &mut Memory::new(), call).unwrap();
        assert!(answer.text.starts_with(expected), "{call}: {answer:?}");
        assert_eq!((answer.failed, answer.reward), (expected.starts_with("error"), reward), "{call}");
    }
}

#[test]
fn a_command_gives_a_reward_beside_its_answer_or_its_error() {
    let script = r#"echo '{"ready": true}'
        while IFS= read -r call; do
            id=${call#*\"id\":}; id=${id%%,*}
            said=${call##*\"input\":\"}; said=${said%%\"*}
            case $said in
                bad) echo "{\"id\": $id, \"error\": \"off the board\", \"reward\": -1}" ;;
                none) echo "{\"id\": $id, \"answer\": \"ok\"}" ;;
                *) echo "{\"id\": $id, \"answer\": \"ok\", \"reward\": $said}" ;;
            esac
        done"#;
    let tools = toolbox(&format!("[[tools]]\nkind = 'command'\ncommand = ['sh', '-c', '''{script}''']")).unwrap();
    let ask = |call| tools.answer(&example(), &mut Memory::new(), call);
    for (call, text, reward) in [
        ("none", "ok", None),
        ("null", "ok", None),
        ("0.25", "ok", Some(0.25)),
        ("true", "ok", Some(1.0)),
        ("bad", "error: off the board", Some(-1.0)),
    ] {
        let ToolAnswer { text: found, failed, reward: given } = ask(call).unwrap();
        assert_eq!((found.as_str(), failed, given), (text, text.starts_with("error"), reward), "{call}");
    }
    for (call, expected) in [
        ("1e999", "tool `command`: the reward 1e+999 is not a finite number"),
        ("[]", "tool `command`: the reward [] is not a finite number"),
        ("NaN", "tool `command`: junk: "),
    ] {
        let message = ask(call).unwrap_err().to_string();
        assert!(message.starts_with(expected), "{message}");
    }
}

#[test]
fn a_command_answers_lines_and_one_that_breaks_the_protocol_stops_the_run() {
    let script = r#"echo '{"ready": true}'
        while IFS= read -r call; do
            id=${call#*\"id\":}; id=${id%%,*}
            case $call in
                *'"input":"junk"'*) echo junk ;;
                *'"input":"other"'*) echo '{"id": 99, "answer": "x"}' ;;
                *) echo "{\"id\": $id, \"answer\": \"hello\", \"state\": 1}" ;;
            esac
        done"#;
    let text = format!("[[tools]]\nkind = 'command'\ncommand = ['sh', '-c', '''{script}''']");
    let tools = toolbox(&text).unwrap();
    let mut memory = Memory::new();
    assert_eq!(tools.answer(&example(), &mut memory, "hi").unwrap().text, "hello");
    assert!(matches!(&memory["command"], State::Told(state) if *state == 1), "{memory:?}");
    for (call, expected) in [("junk", "tool `command`: junk: junk"), ("other", "a worker answered call Some(99)")] {
        let message = tools.answer(&example(), &mut memory, call).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_tool_that_cannot_start_is_refused_at_once() {
    for (tools, expected) in [
        ("{kind = 'command', command = ['/nowhere/tool']}", "cannot be started"),
        ("{kind = 'command', command = ['true']}", "before it was ready"),
        ("{kind = 'function', entry = 'nowhere.py:f'}", "tool `function`: "),
        ("{kind = 'function', entry = 'json:__name__'}", "name a function, or a class"),
        ("{kind = 'command', command = ['cat'], timeout_s = 0}", "`timeout_s = 0`"),
        ("{kind = 'python', level = 'S0'}", "without a sandbox"),
    ] {
        let message = toolbox(&format!("tools = [{tools}]")).unwrap_err().to_string();
        assert!(message.contains(expected) && message.lines().count() == 1, "{message}");
    }
}

#[test]
fn a_program_answers_what_it_prints_and_every_call_is_alone() {
    helper_at(env!("CARGO_BIN_EXE_reckon-sandbox"));
    for level in ["S2", "S1"] {
        // Under root the first may live where only root may look.
        let built = ["python3", "/usr/bin/python3"].map(|python| {
            toolbox(&format!(
                "tools = [{{kind = 'python', level = '{level}', python = '{python}', limits = {{time_s = 1}}}}]"
            ))
        });
        let Some(tools) = built.into_iter().find_map(Result::ok) else {
            eprintln!("skipped at {level}");
            continue;
        };
        for (call, expected) in [
            ("print(6 * 7)", "42"),
            ("\n```python\nx = 3\nprint(x)\n```\n", "3"),
            ("print(x)", "error: exit status 1: NameError: name 'x' is not defined"),
            ("open('left', 'w').write('x')", ""),
            ("import os\nprint(os.listdir('.'))", "['program.py']"),
            ("while True: pass", "error: out of time"),
            ("import socket\nsocket.create_connection(('127.0.0.1', 1))", "error: exit status 1: "),
        ] {
            let answer = tools.answer(&example(), &mut Memory::new(), call).unwrap();
            assert!(answer.text.starts_with(expected), "{level}, {call}: {answer:?}");
            assert_eq!(answer.failed, expected.starts_with("error"), "{level}, {call}: {answer:?}");
        }
    }
}
