//! Configs become rubrics, or errors that say what to change; verdicts become totals.

use reckon_datasets::Example;
use reckon_rewards::{
    KINDS, MAX_COMPLETION_BYTES, Mode, Outcome, Part, Registry, Rubric, RubricConfig, Scope, Submission, Verdict,
    Verifier, VerifierError,
};

fn example() -> Example {
    Example { id: "1".into(), question: "?".into(), answer: "4".into(), ..Example::default() }
}

fn total(config: &str, completion: &str) -> f32 {
    let config: RubricConfig = toml::from_str(config).unwrap();
    Rubric::from_config(&config).unwrap().score(&example(), completion).unwrap().total.unwrap()
}

const BOTH: &str = "[[verifiers]]\nkind = 'exact'\n[[verifiers]]\nkind = 'format'\n";

#[test]
fn a_binary_total_needs_every_required_part_that_has_weight() {
    let (good, bare) = ("<think>a</think><answer>4</answer>", "<answer>4</answer>");
    for (extra, completion, expected) in [
        ("", good, 1.0),
        ("", bare, 0.0),
        ("weight = 0", bare, 1.0),
        ("required = false", bare, 1.0),
        ("weight = 0.2", "<think>a</think><answer>5</answer>", 0.0),
    ] {
        assert_eq!(total(&format!("{BOTH}{extra}"), completion), expected, "{extra} {completion}");
    }
}

#[test]
fn a_sum_weighs_every_part() {
    let config = format!("mode = 'sum'\n{BOTH}weight = 0.25");
    assert_eq!(total(&config, "<think>a</think><answer>4</answer>"), 1.25);
    assert_eq!(total(&config, "<think>a</think><answer>5</answer>"), 0.25);
}

#[test]
fn a_part_of_a_sum_is_switched_on_or_ramped_by_the_step() {
    let config = |ramp: &str| format!("mode = 'sum'\nschedule = [{{verifier = 'format', {ramp}}}]\n{BOTH}weight = 0.5");
    for (ramp, expected) in [
        ("from_step = 3", vec![1.0, 1.0, 1.5, 1.5, 1.5]),
        ("from_step = 2, ramp_steps = 1", vec![1.0, 1.25, 1.5, 1.5, 1.5]),
        ("from_step = 0", vec![1.5; 5]),
    ] {
        let rubric = Rubric::from_config(&toml::from_str(&config(ramp)).unwrap()).unwrap();
        let score = rubric.score(&example(), "<think>a</think><answer>4</answer>").unwrap();
        let found: Vec<f32> = (1..=5).map(|step| rubric.total_at(&score, step).unwrap()).collect();
        assert_eq!((found, score.total), (expected, Some(1.5)), "{ramp}");
    }
    for (config, expected) in [
        (config("from_step = 1").replace("'sum'", "'binary'"), "mode `sum` alone"),
        (
            config("from_step = 1").replace("verifier = 'format'", "verifier = 'fromat'"),
            "no verifier is called `fromat`",
        ),
    ] {
        let message = Rubric::from_config(&toml::from_str(&config).unwrap()).err().unwrap().to_string();
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_completion_beyond_the_limit_is_truncated() {
    let rubric = Rubric::from_config(&toml::from_str(BOTH).unwrap()).unwrap();
    let score = rubric.score(&example(), &"x".repeat(MAX_COMPLETION_BYTES + 1)).unwrap();
    assert!(score.total == Some(0.0) && score.parts.iter().all(|verdict| verdict.outcome == Outcome::Truncated));
    assert_eq!(rubric.names(), ["exact", "format"]);
}

#[test]
fn a_config_that_makes_no_sense_is_refused_by_name() {
    for (config, expected) in [
        ("kind = 'countdwon'", "unknown variant `countdwon`, expected one of `format`, `exact`"),
        ("kind = 'llm_judge'", "`format`, `exact`, `math`, `numeric`, `choice`, `regex`, `countdown`, `code`, `logic`"),
        ("kind = 'rust'\nverifier = 'mine'", "no verifier `mine` is linked into this program (linked: none)"),
        ("weight = 1", "missing field `kind`"),
        ("kind = 'exact'\nignorecase = true", "unknown field `ignorecase`, expected one of `trim`, `ignore_case`"),
        ("kind = 'exact'\nextract = {form = 'tag'}", "unknown field `form`"),
        ("kind = 'exact'\nweight = 'x'", "invalid type: string \"x\", expected f64"),
        ("kind = 'regex'", "missing field `pattern`"),
        ("kind = 'regex'\npattern = 'a)|(b'", "cannot be compiled"),
        ("kind = 'regex'\npattern = '\\w{9000}'\nsize_limit = 1000", "cannot be compiled"),
        ("kind = 'choice'\nchoices = 1", "`choices = 1` must be from 2 to 26"),
        ("kind = 'exact'\nweight = nan", "weight"),
        ("kind = 'exact'\nweight = -1.0", "weight -1 must be"),
        ("kind = 'exact'\nweight = 0.0", "no verifier counts"),
        ("kind = 'exact'\n[[verifiers]]\nkind = 'exact'", "two verifiers have this name"),
        ("kind = 'format'\ntags = ['<a>']", "tag name `<a>`"),
        ("kind = 'format'\ntags = ['a', 'a']", "names `a` twice"),
        ("kind = 'numeric'\ntolerance = -1.0", "`tolerance = -1`"),
        ("kind = 'countdown'\nmax_depth = 100000", "`max_depth = 100000`"),
    ] {
        let read = toml::from_str::<RubricConfig>(&format!("[[verifiers]]\n{config}")).map_err(|e| e.to_string());
        let error = match read {
            Err(error) => error,
            Ok(config) => Rubric::from_config(&config).err().expect("the rubric is refused").to_string(),
        };
        assert!(error.contains(expected), "{config}: {error}");
    }
}

#[test]
fn a_config_survives_being_written_and_read() {
    for kind in KINDS {
        let extra = match *kind {
            "regex" => "pattern = 'x'",
            "rust" => "verifier = 'x'\noptions = {depth = 3}",
            "python" | "python_trl" | "python_verl" => "entry = 'mine.py:verify'\npool = {workers = 3}",
            "command" => "command = ['./mine', '--stdio']",
            "http" => "url = 'http://localhost:1'",
            "length" => "rule = 'cosine'\nmax = 9\nof = {kind = 'exact'}",
            _ => "",
        };
        let text = format!("mode = 'sum'\n[[verifiers]]\nkind = '{kind}'\nname = 'n'\nweight = 0.5\n{extra}");
        let config: RubricConfig = toml::from_str(&text).unwrap();
        assert_eq!(toml::from_str::<RubricConfig>(&toml::to_string(&config).unwrap()).unwrap(), config);
        assert_eq!(serde_json::from_value::<RubricConfig>(serde_json::to_value(&config).unwrap()).unwrap(), config);
    }
}

/// Passes the shortest completions of a batch; does not judge `skip`, and fails over `break`.
struct Shortest;

impl Verifier for Shortest {
    fn name(&self) -> &str {
        "shortest"
    }

    fn verify(&self, example: &Example, completion: &str) -> Result<Verdict, VerifierError> {
        Ok(self.verify_batch(&[Submission::new(example, completion)])?.remove(0))
    }

    fn scope(&self) -> Scope {
        Scope::Group
    }

    fn verify_batch(&self, batch: &[Submission]) -> Result<Vec<Verdict>, VerifierError> {
        let shortest = batch.iter().map(|s| s.completion.len()).min();
        let judge = |s: &Submission| match s.completion {
            "skip" => Verdict::zero(Outcome::Skipped, "told to"),
            "break" => Verdict::zero(Outcome::Error, "a ValueError"),
            text if Some(text.len()) == shortest => Verdict::pass(text, "shortest"),
            text => Verdict::fail(text, "longer"),
        };
        let drop = batch.iter().any(|s| s.completion == "drop");
        Ok(batch.iter().skip(usize::from(drop)).map(judge).collect())
    }
}

fn shortest(mode: Mode) -> Rubric {
    Rubric::new(mode, vec![Part { verifier: Box::new(Shortest), weight: 0.5, required: true }]).unwrap()
}

fn scores(rubric: &Rubric, completions: &[&str]) -> Result<Vec<Option<f32>>, VerifierError> {
    let example = example();
    let batch: Vec<_> = completions.iter().map(|text| Submission::new(&example, text)).collect();
    Ok(rubric.score_batch(&batch)?.iter().map(|score| score.total).collect())
}

#[test]
fn a_verifier_of_scope_group_sees_the_whole_batch() {
    let long = "x".repeat(MAX_COMPLETION_BYTES + 1);
    let rubric = shortest(Mode::Binary);
    assert_eq!(rubric.scope(), Scope::Group);
    assert_eq!(scores(&rubric, &["abc", &long, "a", "ab", "b"]).unwrap(), [0.0, 0.0, 1.0, 0.0, 1.0].map(Some));
    assert!(scores(&rubric, &[]).unwrap().is_empty());
}

#[test]
fn a_part_that_does_not_judge_is_left_out_and_without_a_part_that_does_there_is_no_total() {
    for mode in [Mode::Sum, Mode::Binary] {
        let full = if mode == Mode::Sum { 0.5 } else { 1.0 };
        assert_eq!(scores(&shortest(mode), &["a", "skip", "ab"]).unwrap(), [Some(full), None, Some(0.0)], "{mode:?}");
        assert_eq!(scores(&beside_exact(mode), &["a", "skip", "break"]).unwrap()[1..], [Some(1.0), None], "{mode:?}");
    }
}

/// [`Shortest`] beside a part that passes every `skip`, and one that is logged only and breaks over nothing.
fn beside_exact(mode: Mode) -> Rubric {
    let exact = "[[verifiers]]\nkind = 'regex'\npattern = 'skip'\nextract = {from = 'whole'}";
    let exact = toml::from_str::<RubricConfig>(exact).unwrap();
    let exact = Part { verifier: exact.verifiers[0].build().unwrap(), weight: 1.0, required: true };
    Rubric::new(mode, vec![Part { verifier: Box::new(Shortest), weight: 1.0, required: true }, exact]).unwrap()
}

#[test]
fn a_completion_that_is_not_judged_is_not_accepted() {
    for mode in [Mode::Sum, Mode::Binary] {
        for (completion, accepted) in [("a", true), ("skip", false), ("break", false)] {
            let rubric = shortest(mode);
            let score = rubric.score(&example(), completion).unwrap();
            assert_eq!(rubric.accepts(&example(), &score), accepted, "{mode:?} {completion}");
        }
    }
}

#[test]
fn errors_beyond_the_share_stop_the_run() {
    let registry = Registry::default().with("shortest", |_, _| Ok(Box::new(Shortest)));
    let check = |share: &str, completions: &[&str]| {
        let text = format!("{share}\n[[verifiers]]\nkind = 'rust'\nverifier = 'shortest'");
        let rubric = Rubric::from_config_with(&toml::from_str(&text).unwrap(), &registry)?;
        let example = example();
        let scores: Vec<_> = completions.iter().map(|text| rubric.score(&example, text).unwrap()).collect();
        rubric.check_errors(&scores.iter().map(|score| (&example, score)).collect::<Vec<_>>())
    };
    check("", &[]).unwrap();
    check("", &["break", "break", "a", "skip"]).unwrap();
    check("max_error_share = 1", &["break"; 4]).unwrap();
    for (share, completions, expected) in [
        (
            "",
            &["break", "break", "a", "break"][..],
            "a ValueError; it failed over 3 of 4 completions, more than max_error_share = 0.5",
        ),
        ("max_error_share = 0", &["a", "a", "a", "break"], "1 of 4 completions, more than max_error_share = 0;"),
        ("max_error_share = 1.5", &[], "`max_error_share = 1.5` must be from 0 to 1"),
        ("max_error_share = nan", &[], "`max_error_share = NaN` must be from 0 to 1"),
    ] {
        let error = check(share, completions).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_verdict_that_is_missing_is_an_error_and_never_a_reward() {
    let error = scores(&shortest(Mode::Binary), &["a", "drop"]).unwrap_err().to_string();
    assert!(error.contains("1 verdicts for a batch of 2"), "{error}");
}

#[test]
fn a_linked_verifier_is_built_from_the_options_in_the_config() {
    let registry = Registry::default().with("shortest", |name, options| match options.get("depth") {
        Some(depth) => Err(VerifierError::config(name, format!("depth {depth}"))),
        None => Ok(Box::new(Shortest)),
    });
    let build = |extra: &str| {
        let text = format!("[[verifiers]]\nkind = 'rust'\nname = 'n'\nverifier = 'shortest'\n{extra}");
        Rubric::from_config_with(&toml::from_str(&text).unwrap(), &registry)
    };
    assert_eq!(build("").unwrap().names(), ["shortest"]);
    assert_eq!(build("options = {depth = 3}").err().unwrap().to_string(), "verifier `n` is misconfigured: depth 3");
}
