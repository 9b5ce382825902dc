//! Completions of several turns: what tools say is in the context and in no loss, and nothing depends on when they answer.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use reckon::grpo::TrainSample;
use reckon::metrics::Record;
use reckon::policy::Model;
use reckon::prompt::Prompt;
use reckon::rollout::{
    Answer, Calling, Completion, Engine, FinishReason, Memory, PromptTokens, Request, SampleKey, Sampling, Tools, Turns,
};
use reckon::run::rollouts::{self, SavedRollout};
use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

use super::device_model::rounded;
use super::device_sampling::model;
use super::host_device::device;
use super::models::{DELTA, FAMILIES, cpu, micros, prompts, rising, sampling, shared_micros, tiny};
use super::program::{fails, records, small_run, succeeds, text};

/// Answers by letters that follow from the call and from how many there were, after a while that follows from them too.
struct Letters;

impl Tools for Letters {
    fn answer(&self, prompt: usize, memory: &mut Memory, call: &str) -> Result<Answer> {
        let before = memory.as_ref().and_then(|memory| memory.downcast_ref::<u64>().copied()).unwrap_or(0);
        *memory = Some(Box::new(before + 1));
        let number = prompt as u64 + 7 * before + 3 * call.len() as u64;
        std::thread::sleep(Duration::from_micros(number * 977 % 3000));
        let letters = (0..number % 9).map(|i| char::from(b'k' + ((number + i) % 7) as u8));
        let reward = (!number.is_multiple_of(3)).then_some(number as f64);
        Ok(Answer { text: letters.collect(), failed: number.is_multiple_of(4), reward })
    }
}

/// Calls stand between `a` and `b`, answers between `m` and `n`.
fn turns(max_calls: usize) -> Turns {
    let pair = |texts: [&str; 2]| texts.map(String::from);
    Turns {
        call: pair(["a", "b"]),
        answer: pair(["m", "n"]),
        whole_turns: false,
        max_calls,
        max_answer_tokens: 5,
        workers: 3,
    }
}

fn ask(engine: &Engine, prompts: &[Prompt], turns: &Turns, max_new_tokens: usize) -> Vec<Completion> {
    // Nothing but the limits ends a completion, so that there are many calls.
    let sampling = Sampling { stop_tokens: Vec::new(), stop_strings: Vec::new(), ..sampling(max_new_tokens) };
    let done = Mutex::new(Vec::new());
    let prompts: Vec<PromptTokens> = prompts.iter().map(PromptTokens::from).collect();
    let (key, calling) = (SampleKey { seed: 1, step: 2 }, Some(Calling { turns, tools: &Letters }));
    let request =
        Request { prompts: &prompts, group_size: 4, sampling: &sampling, key, calling, order: None, routed: true };
    engine.generate(&request, &|p, s, c| done.lock().unwrap().push((p, s, c))).unwrap();
    let mut done = done.into_inner().unwrap();
    done.sort_by_key(|(p, s, _)| (*p, *s));
    done.into_iter().map(|(_, _, c)| c).collect()
}

fn train_samples(prompts: &[Prompt], completions: &[Completion]) -> Vec<TrainSample> {
    let sample = |(i, c): (usize, &Completion)| TrainSample {
        tokens: [prompts[i / 4].tokens.as_slice(), &c.tokens].concat(),
        prompt_len: prompts[i / 4].tokens.len(),
        observed: c.tools.observed.clone(),
        rollout_logprobs: c.logprobs.clone(),
        advantages: vec![1.0; c.sampled_len()],
        routed: c.routed.clone(),
        ..TrainSample::default()
    };
    completions.iter().enumerate().map(sample).collect()
}

#[test]
fn when_tools_answer_changes_nothing() {
    let policy = tiny("Qwen2ForCausalLM", true);
    let (prompts, turns) = (prompts(9), turns(3));
    let by = |threads, capacity| {
        let engine = Engine { threads, ..Engine::of(&policy, capacity) };
        ask(&engine, &prompts, &turns, 60)
    };
    let expected = by(1, 64);
    assert!(expected.iter().filter(|c| c.tools.calls > 1).count() > 5, "several call twice");
    assert!(expected.iter().all(|c| c.tools.rewards.len() <= c.tools.calls));
    assert!(expected.iter().any(|c| c.tools.rewards.len() > 1), "some are rewarded twice");
    for (threads, capacity) in [(1, 1), (1, 7), (2, 7), (2, 64), (3, 5)] {
        for (a, b) in expected.iter().zip(by(threads, capacity)) {
            assert_eq!((&a.tokens, &a.text), (&b.tokens, &b.text), "{threads} threads, capacity {capacity}");
            assert_eq!((&a.logprobs, &a.tools.observed), (&b.logprobs, &b.tools.observed));
            assert_eq!((a.tools.calls, a.tools.failed), (b.tools.calls, b.tools.failed));
            assert_eq!(a.tools.rewards, b.tools.rewards);
        }
    }
}

#[test]
fn an_answer_stands_behind_its_call_and_calls_are_bounded() {
    let policy = tiny("Qwen2ForCausalLM", true);
    let prompts = prompts(12);
    let completions = ask(&Engine::of(&policy, 16), &prompts, &turns(2), 60);
    let (mut too_many, mut full) = (0, 0);
    for c in &completions {
        assert_eq!(c.logprobs.len(), c.sampled_len());
        assert_eq!(c.tokens.len(), c.sampled_len() + c.tools.observed_len());
        // The answer that a completion has no room for is its last.
        let lost = c.tools.calls - c.tools.observed.len();
        assert!(lost == 0 || lost == 1 && c.finish == FinishReason::Length, "{lost} answers are lost: {}", c.text);
        assert!(c.tools.calls <= 2 && c.tokens.len() <= 60);
        for range in &c.tools.observed {
            let said = &c.tokens[range.clone()];
            // `m`, at most five letters, `n`.
            assert!(said[0] == 12 && said[said.len() - 1] == 13 && said.len() <= 7, "{said:?}");
            assert_eq!(c.tokens[range.start - 1], 1, "an answer stands behind `b`: {}", c.text);
            assert!(range.end < c.tokens.len(), "something is sampled behind it: {}", c.text);
        }
        let last = c.tools.observed.last().map_or(0, |range| range.end);
        let calls = c.text.is_char_boundary(last) && c.text[last..].contains('a') && c.text.ends_with('b');
        too_many += usize::from(calls && c.tools.calls == 2 && c.finish == FinishReason::Length);
        full += usize::from(c.tokens.len() == 60);
        assert!(
            !calls || c.finish == FinishReason::Length,
            "a call that is not answered ends in the middle: {}",
            c.text
        );
    }
    assert!(too_many > 0 && full > 0, "{too_many} called too often, {full} are full");
}

#[test]
fn the_trainer_agrees_to_the_bit_about_tokens_behind_an_answer() {
    for architecture in FAMILIES.into_iter().chain(["DeepseekV3ForCausalLM", DELTA]) {
        let policy = tiny(architecture, false);
        let prompts = prompts(6);
        let samples = train_samples(&prompts, &ask(&Engine::of(&policy, 5), &prompts, &turns(4), 70));
        let observed: usize = samples.iter().map(|sample| sample.observed.len()).sum();
        // The mixture is so sure of its tokens that it rarely calls.
        let mixture = architecture.starts_with("Deepseek");
        assert!(observed > if mixture { 0 } else { 10 }, "{architecture}: {observed} answers");
        for max_tokens in [1, 100, 10_000] {
            let micros = shared_micros(&samples, max_tokens);
            for (micro, stats) in micros.iter().zip(cpu(&policy).logprobs(None, &micros, 0.8)) {
                assert_eq!(micro.old_logprobs, stats.logprobs, "{architecture}, {max_tokens} tokens a micro-batch");
            }
            // The experts of an answer's tokens are known too.
            cpu(&policy).gradients(&micros, 0.8, &rising);
            let choices = cpu(&policy).take_choices();
            let inputs: usize = micros.iter().map(|micro| micro.tokens.len()).sum();
            let known = if mixture { inputs as u64 } else { 0 };
            assert_eq!((choices.known, choices.differing), (known, 0), "{architecture}");
        }
    }
}

#[test]
fn on_a_device_rows_that_wait_keep_their_slots_and_the_trainer_agrees() {
    for architecture in [FAMILIES[1], DELTA] {
        let policy = rounded(architecture, true);
        let Some(device) = device(0) else { return };
        let model = model(&policy, device);
        let prompts = prompts(4);
        let engine = Engine { model: Model::Device(&model), ..Engine::of(&policy, 3) };
        let completions = ask(&engine, &prompts, &turns(2), 40);
        assert!(completions.iter().any(|c| c.tools.calls > 0), "{architecture}");
        let samples = train_samples(&prompts, &completions);
        let micros = micros(&samples, 10_000);
        let trained = micros.iter().flat_map(|micro| model.logprobs(None, micro, 0.8).unwrap().logprobs);
        let on_cpu = cpu(&policy).logprobs(None, &micros, 0.8).into_iter().flat_map(|stats| stats.logprobs);
        let sampled = completions.iter().flat_map(|c| c.logprobs.iter().copied());
        let farthest = |others: &mut dyn Iterator<Item = f32>| {
            sampled.clone().zip(others).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
        };
        let far = [farthest(&mut { trained }), farthest(&mut { on_cpu })];
        assert!(far[0] < 0.1 && far[1] < 0.1, "{architecture}: log-probabilities differ by {far:?}");
    }
}

const COUNT: &str = "
class Count:
    def reset(self, row):
        return 0
    def step(self, state, input):
        if state > 0:
            raise ValueError('once')
        return state + 1, 'ok'
";

/// A run in which the embedded model thinks between these tags in every completion: each thought is a call.
pub(crate) fn thoughtful_run(folder: &Path, more: &str) -> PathBuf {
    let tool = folder.join("count.py");
    std::fs::write(&tool, COUNT).unwrap();
    thoughts_told_to(&format!("kind = 'function', entry = '{}:Count'", tool.display()), folder, more)
}

/// The same with a tool of one's own.
fn thoughts_told_to(tool: &str, folder: &Path, more: &str) -> PathBuf {
    let environment = format!("call = ['<think>', '</think>'], answer = ['', ''], workers = 8, tools = [{{{tool}}}]");
    small_run(folder, 2, &format!("environment = {{{environment}}}\n{more}"))
}

#[test]
fn a_run_counts_calls_and_sampler_and_trainer_agree() {
    let folder = tempfile::tempdir().unwrap();
    let config = thoughtful_run(folder.path(), "");
    let by = |name: &str, set: &str| {
        let out = folder.path().join(name);
        succeeds(&["train", text(&config), "--out", text(&out), "--set", set]);
        records(&out)
    };
    let found = by("one", "rollout.capacity=3");
    let step = &found[1];
    let get = |name: &str| step.get(name).unwrap_or_else(|| panic!("{name} is not recorded"));
    assert!(get("tools/calls_mean") > 0.3 && get("tools/calls_mean") <= 8.0, "{step:?}");
    assert!(get("tools/turns_mean") > 1.0 && get("tools/turns_mean") <= 1.0 + get("tools/calls_mean"), "{step:?}");
    assert_eq!(get("policy/mismatch_kl"), 0.0);
    assert!(found[0].get("eval/tools/calls_mean").is_some());
    assert_eq!(by("other", "compute.threads=1"), found, "whoever waits for whom");
}

/// A tool in both forms, which pays for a call by its length.
const GAME: &str = "
import json, sys

class Game:
    def step(self, state, input):
        return (state or 0) + 1, {'answer': 'ok', 'reward': len(input) % 5 / 4}

if __name__ == '__main__':
    print(json.dumps({'ready': True}), flush=True)
    for line in sys.stdin:
        call = json.loads(line)
        state, said = Game().step(call['state'], call['input'])
        print(json.dumps({**said, 'id': call['id'], 'state': state}), flush=True)
";

#[test]
fn what_a_tool_gives_is_the_reward_of_a_run_and_is_saved_for_a_replay() {
    let folder = tempfile::tempdir().unwrap();
    let game = folder.path().join("game.py");
    std::fs::write(&game, GAME).unwrap();
    let by = |name: &str, tool: &str| {
        let (config, out) = (thoughts_told_to(tool, folder.path(), ""), folder.path().join(name));
        let part = "rubric.verifiers=[{kind='environment', of='sum', range=[0, 2]}]";
        let sets = ["rubric.mode='sum'", part, "save.rollouts_every=1"].map(|set| ["--set", set]).concat();
        succeeds(&[&["train", text(&config), "--out", text(&out)], &sets[..]].concat());
        (records(&out), out)
    };
    let (found, out) = by("function", &format!("kind = 'function', entry = '{}:Game'", game.display()));
    let files = rollouts::files(&out).unwrap();
    assert_eq!(files.len(), 2);
    for path in &files {
        let groups = rollouts::read(path).unwrap();
        let saved: Vec<&SavedRollout> = groups.iter().flat_map(|group| &group.rollouts).collect();
        for rollout in &saved {
            let given = (rollout.rewards.iter().sum::<f64>() / 2.0).clamp(0.0, 1.0) as f32;
            assert_eq!(rollout.score.total, Some(given), "{:?}", rollout.rewards);
            assert_eq!(rollout.reward, Some(if rollout.truncated { 0.0 } else { given }), "{rollout:?}");
        }
        assert!(saved.iter().any(|rollout| rollout.rewards.is_empty()), "some call nothing");
        let sum: f64 = saved.iter().filter_map(|rollout| rollout.reward).map(f64::from).sum();
        let record = found.iter().find(|record| record.step == groups[0].step).unwrap();
        let mean = record.get("reward/mean").unwrap();
        assert!((mean - sum / saved.len() as f64).abs() < 1e-6 && mean > 0.0, "{mean} of {sum}");
    }
    let command = format!("kind = 'command', command = ['python3', '{}']", game.display());
    assert_eq!(by("command", &command).0, found, "whichever way it is asked");

    assert!(succeeds(&["verify", "replay", text(&out)]).contains("32 of 32 rollouts"));
    // Rollouts of a build that kept no rewards are read, and had none.
    let lines = std::fs::read_to_string(&files[1]).unwrap();
    let older = lines.lines().map(|line| {
        let mut group: Value = serde_json::from_str(line).unwrap();
        for rollout in group["rollouts"].as_array_mut().unwrap() {
            rollout.as_object_mut().unwrap().remove("rewards");
        }
        group.to_string() + "\n"
    });
    std::fs::write(&files[1], older.collect::<String>()).unwrap();
    let message = fails(&["verify", "replay", text(&out)]);
    assert!(message.contains("rollouts were judged differently"), "{message}");
}

#[test]
fn a_run_with_tools_that_was_resumed_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let config = thoughtful_run(folder.path(), "");
    let [whole, resumed] = ["whole", "resumed"].map(|name| folder.path().join(name));
    succeeds(&["train", text(&config), "--out", text(&whole)]);
    succeeds(&["train", text(&config), "--out", text(&resumed), "--set", "steps=1"]);
    succeeds(&["train", "--resume", text(&resumed), "--set", "steps=2"]);
    // What stopped at step 1 was evaluated there.
    assert_eq!(records(&resumed)[2..], records(&whole)[2..]);
}

/// A server of OpenEnv's protocol that tells each session how often it was called, and ends it in the second call. It
/// takes `served` connections and is gone. Gives its address, and how many sessions are open.
fn environment(served: usize) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (url, open) = (format!("ws://{}", listener.local_addr().unwrap()), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&open);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten().take(served) {
            let open = Arc::clone(&counted);
            std::thread::spawn(move || {
                open.fetch_add(1, SeqCst);
                let _ = tungstenite::accept(stream).ok().and_then(session);
                open.fetch_sub(1, SeqCst);
            });
        }
    });
    (url, open)
}

fn session(mut socket: WebSocket<TcpStream>) -> Option<()> {
    let mut calls = 0;
    while let Message::Text(text) = socket.read().ok()? {
        let told: Value = serde_json::from_str(&text).ok()?;
        let observation = |calls: usize| {
            let data = json!({"observation": calls.to_string(), "reward": null, "done": calls == 2});
            json!({"type": "observation", "data": data})
        };
        let answer = match told["type"].as_str()? {
            "reset" => {
                assert!(told["data"]["seed"].is_u64());
                observation(calls)
            }
            "step" => {
                calls += 1;
                observation(calls)
            }
            "state" => json!({"type": "state", "data": {"step_count": calls}}),
            _ => return Some(()),
        };
        socket.send(Message::text(answer.to_string())).ok()?;
    }
    Some(())
}

#[test]
fn a_run_has_a_session_for_each_completion_and_outlives_its_server() {
    let folder = tempfile::tempdir().unwrap();
    let by = |name: &str, url: &str, set: &str| {
        let tool = format!("kind = 'openenv', urls = ['{url}'], action = {{said = '{{input}}'}}, open_s = 0.1");
        let (config, out) = (thoughts_told_to(&tool, folder.path(), ""), folder.path().join(name));
        succeeds(&["train", text(&config), "--out", text(&out), "--set", set]);
        records(&out)
    };
    let (url, open) = environment(usize::MAX);
    let expected = by("one", &url, "rollout.capacity=3");
    let get = |step: &Record, name: &str| step.get(name).unwrap_or_else(|| panic!("{name} is not recorded"));
    assert!(get(&expected[1], "tools/calls_mean") > 0.3, "{:?}", expected[1]);
    assert!(get(&expected[1], "tools/failed_frac") < 1.0, "{:?}", expected[1]);
    assert_eq!(get(&expected[1], "policy/mismatch_kl"), 0.0);
    assert_eq!(by("other", &url, "compute.threads=1"), expected, "whoever waits for whom");
    let ended = (0..1000).any(|_| {
        std::thread::sleep(Duration::from_millis(5));
        open.load(SeqCst) == 0
    });
    assert!(ended, "{} sessions are left", open.load(SeqCst));
    // One connection is for the look before the first step.
    let lost = by("lost", &environment(1).0, "rollout.capacity=3");
    assert!(get(&lost[1], "tools/calls_mean") > 0.3, "{:?}", lost[1]);
    assert_eq!(get(&lost[1], "tools/failed_frac"), 1.0);
}

#[test]
fn an_environment_that_cannot_work_is_refused_before_the_first_step() {
    let folder = tempfile::tempdir().unwrap();
    for (more, expected) in [
        ("environment = {tools = []}", "environment.tools is empty"),
        ("environment = {tools = [{kind = 'abacus'}]}", "abacus"),
        ("environment = {tools = [{kind = 'calculator', place = 1}]}", "place"),
        ("environment = {format = 'chat', tools = [{kind = 'calculator'}]}", "needs prompt.template = \"chat\""),
        ("environment = {tools = [{kind = 'function', entry = 'nowhere.py:f'}]}", "tool `function`"),
        ("environment = {tools = [{kind = 'openenv', urls = ['ws://127.0.0.1:1']}]}", "no connection to 127.0.0.1:1"),
    ] {
        let config = small_run(folder.path(), 1, more);
        let message = fails(&["train", text(&config), "--out", text(&folder.path().join("run"))]);
        assert!(message.contains(expected), "{more}: {message}");
    }
    let config = small_run(folder.path(), 1, "environment = {tools = [{kind = 'calculator'}]}");
    let run = folder.path().join("run");
    let rubric = "rubric.verifiers=[{kind='environment'}]";
    let message = fails(&["train", text(&config), "--out", text(&run), "--set", rubric]);
    assert!(message.contains("and calculator give none: give [[environment.tools]] of kind \"openenv\""), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
}

#[test]
fn calls_of_a_whole_turn_are_answered_together() {
    let policy = tiny("Qwen2ForCausalLM", true);
    // `c` ends a turn, whose calls stand between `a` and `b`.
    let turns = Turns { whole_turns: true, ..turns(4) };
    let prompts = prompts(9);
    let prompts_of: Vec<PromptTokens> = prompts.iter().map(PromptTokens::from).collect();
    let sampling = Sampling { stop_tokens: vec![2], stop_strings: Vec::new(), ..sampling(80) };
    let (key, calling) = (SampleKey { seed: 1, step: 2 }, Some(Calling { turns: &turns, tools: &Letters }));
    let request =
        Request { prompts: &prompts_of, group_size: 8, sampling: &sampling, key, calling, order: None, routed: true };
    let done = Mutex::new(Vec::new());
    Engine::of(&policy, 16).generate(&request, &|_, _, c: Completion| done.lock().unwrap().push(c)).unwrap();
    let done = done.into_inner().unwrap();
    assert!(done.iter().any(|c| c.tools.calls > 0) && done.iter().any(|c| c.tools.calls == 0));
    for c in &done {
        assert!(c.tools.observed.iter().all(|range| c.tokens[range.start - 1] == 2), "a turn ends before an answer");
        let said = c.tools.observed.last().map_or(0, |range| range.end);
        let ended = c.tokens[said..].iter().filter(|token| **token == 2).count();
        assert!(ended <= 1, "the last turn goes to its end: {:?}", c.tokens);
        assert_eq!(c.finish == FinishReason::Stop, ended == 1 && !turns_call(&c.text, said));
    }
}

/// Whether the text from its token `from` on holds a call.
fn turns_call(text: &str, from: usize) -> bool {
    // A token is a letter, but for stop tokens, which are in the text where a turn follows them.
    text.get(from..).is_some_and(|turn| turn.split_once('a').is_some_and(|(_, rest)| rest.contains('b')))
}
