//! Configs become rubrics, or errors that say what to change; verdicts become totals.
#![allow(clippy::unwrap_used)]

use reckon_datasets::Example;
use reckon_rewards::{KINDS, MAX_COMPLETION_BYTES, Outcome, Rubric, RubricConfig};

fn example() -> Example {
    Example { id: "1".into(), question: "?".into(), answer: "4".into(), info: Default::default() }
}

fn total(config: &str, completion: &str) -> f32 {
    let config: RubricConfig = toml::from_str(config).unwrap();
    Rubric::from_config(&config).unwrap().score(&example(), completion).unwrap().total
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
fn a_completion_beyond_the_limit_is_truncated() {
    let rubric = Rubric::from_config(&toml::from_str(BOTH).unwrap()).unwrap();
    let score = rubric.score(&example(), &"x".repeat(MAX_COMPLETION_BYTES + 1)).unwrap();
    assert!(score.total == 0.0 && score.parts.iter().all(|verdict| verdict.outcome == Outcome::Truncated));
    assert_eq!(rubric.names(), ["exact", "format"]);
}

#[test]
fn a_config_that_makes_no_sense_is_refused_by_name() {
    for (config, expected) in [
        ("kind = 'countdwon'", "did you mean `countdown`?"),
        ("kind = 'llm_judge'", "`format`, `exact`, `numeric`, `choice`, `regex`, `countdown`"),
        ("weight = 1", "has no `kind`"),
        ("kind = 'exact'\nignorecase = true", "unknown field `ignorecase`, expected one of `trim`, `ignore_case`"),
        ("kind = 'exact'\nextract = {form = 'tag'}", "unknown field `form`"),
        ("kind = 'exact'\nweight = 'x'", "`weight`: invalid type"),
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
        let extra = if *kind == "regex" { "pattern = 'x'" } else { "" };
        let text = format!("mode = 'sum'\n[[verifiers]]\nkind = '{kind}'\nname = 'n'\nweight = 0.5\n{extra}");
        let config: RubricConfig = toml::from_str(&text).unwrap();
        assert_eq!(toml::from_str::<RubricConfig>(&toml::to_string(&config).unwrap()).unwrap(), config);
        assert_eq!(serde_json::from_str::<RubricConfig>(&serde_json::to_string(&config).unwrap()).unwrap(), config);
    }
}
