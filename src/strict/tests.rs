//! Every kind of mistake in a document, and the sentence that it gets.

use super::*;
use serde::Deserialize;

#[derive(Deserialize, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
struct Config {
    name: Option<String>,
    #[serde(default)]
    seed: u64,
    #[serde(default)]
    rollout: Rollout,
    #[serde(default)]
    verifiers: Vec<Verifier>,
    #[serde(default)]
    advantage: Advantage,
    #[serde(default)]
    schedule: Option<Schedule>,
}

impl Document for Config {}

#[derive(Deserialize, Debug, PartialEq, Default)]
#[serde(deny_unknown_fields, default)]
struct Rollout {
    group_size: usize,
    temperature: f64,
    stop: Vec<String>,
    greedy: bool,
}

#[derive(Deserialize, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
struct Verifier {
    kind: String,
    #[serde(default)]
    weight: f64,
}

#[derive(Deserialize, Debug, PartialEq, Default)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Advantage {
    #[default]
    Grpo,
    DrGrpo,
    Clipped {
        limit: f64,
    },
}

#[derive(Deserialize, Debug, PartialEq)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum Schedule {
    Constant { warmup: usize },
    Cosine { floor: f64 },
}

fn read(text: &str, sets: &[&str]) -> Result<Config> {
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    load(text, "config.toml", &sets)
}

fn check_error(text: &str, sets: &[&str], expected: &str) {
    assert_eq!(read(text, sets).unwrap_err().to_string(), expected, "for {text:?} with {sets:?}");
}

const RUN: &str = "name = 'demo'\n\n[rollout]\ngroup_size = 1_6\nstop = ['a', 'b']\n\n\
                   [[verifiers]]\nkind = 'math'\n\n[[verifiers]]\nkind = 'format'\nweight = 1\n";

#[test]
fn a_full_document_is_read() {
    let config = read(RUN, &[]).unwrap();
    assert_eq!(config.name.as_deref(), Some("demo"));
    assert_eq!((config.rollout.group_size, config.rollout.stop.len()), (16, 2));
    assert_eq!((config.verifiers[1].kind.as_str(), config.verifiers[1].weight), ("format", 1.0));
    let config = read("seed = 0xff\nadvantage = {clipped = {limit = 1_0.5}}\n", &[]).unwrap();
    assert_eq!((config.seed, config.advantage), (255, Advantage::Clipped { limit: 10.5 }));
    let config = read("schedule = {kind = 'cosine', floor = -1e-3}", &[]).unwrap();
    assert_eq!(config.schedule, Some(Schedule::Cosine { floor: -1e-3 }));
    assert_eq!(read("seed = 18446744073709551615", &[]).unwrap().seed, u64::MAX);
}

#[test]
fn an_unknown_key_names_its_path_its_line_and_the_nearest_key() {
    let near = |path: &str, line: usize, key: &str| {
        format!("unknown key {path:?} in config.toml line {line}: did you mean {key:?}?")
    };
    check_error("\n[rollout]\n\ngroup_sise = 1", &[], &near("rollout.group_sise", 4, "group_size"));
    check_error("rollout.group-size = 1", &[], &near("rollout.group-size", 1, "group_size"));
    check_error("rollout = {temprature = 1}", &[], &near("rollout.temprature", 1, "temperature"));
    check_error("seed = 1\n[rolout]\nx = 1", &[], &near("rolout", 2, "rollout"));
    check_error("[[verifiers]]\nkind = 'a'\nwieght = 1", &[], &near("verifiers.0.wieght", 3, "weight"));
    check_error(
        "[advantage.clipped]\nlimt = 1",
        &[],
        "unknown key \"advantage.clipped.limt\" in config.toml line 2: did you mean \"limit\"?",
    );
    check_error("[schedule]\nkind = 'constant'\nwarmpu = 1", &[], &near("schedule.warmpu", 3, "warmup"));
    check_error(
        "[rollout]\nzzz = 1",
        &[],
        "unknown key \"rollout.zzz\" in config.toml line 2: the known keys are group_size, temperature, stop, greedy",
    );
}

#[test]
fn an_unknown_choice_names_the_nearest_one() {
    check_error(
        "advantage = 'dr_grop'",
        &[],
        "unknown value \"dr_grop\" for \"advantage\" in config.toml line 1: did you mean \"dr_grpo\"?",
    );
    check_error(
        "[schedule]\nkind = 'cosin'",
        &[],
        "unknown value \"cosin\" for \"schedule.kind\" in config.toml line 2: did you mean \"cosine\"?",
    );
    check_error(
        "advantage = 3",
        &[],
        "wrong value for \"advantage\" in config.toml line 1: 3 where one of grpo, dr_grpo, clipped is wanted",
    );
}

#[test]
fn a_wrong_type_names_the_key_the_value_and_what_is_wanted() {
    let wrong = |rest: &str| format!("wrong value for {rest} is wanted");
    let whole = "where a whole number of at least 0";
    for (text, rest) in [
        (
            "[rollout]\ngroup_size = 'eight'",
            format!("\"rollout.group_size\" in config.toml line 2: the string \"eight\" {whole}"),
        ),
        ("seed = -1", format!("\"seed\" in config.toml line 1: -1 {whole}")),
        ("seed = 1.0", format!("\"seed\" in config.toml line 1: 1.0 {whole}")),
        ("rollout.greedy = 1", "\"rollout.greedy\" in config.toml line 1: 1 where true or false".to_owned()),
        ("rollout.stop = [\n'a',\n2]", "\"rollout.stop.1\" in config.toml line 3: 2 where a string".to_owned()),
        ("name = 7", "\"name\" in config.toml line 1: 7 where a string".to_owned()),
        ("rollout = 7", "\"rollout\" in config.toml line 1: 7 where a table".to_owned()),
        ("verifiers = 'a'", "\"verifiers\" in config.toml line 1: the string \"a\" where an array".to_owned()),
    ] {
        check_error(text, &[], &wrong(&rest));
    }
}

#[test]
fn a_missing_key_says_how_to_give_it() {
    check_error(
        "\n[[verifiers]]\nweight = 1",
        &[],
        "missing key \"verifiers.0.kind\" in config.toml line 2: add it, or pass --set verifiers.0.kind=...",
    );
}

#[test]
fn text_that_is_not_toml_names_its_line() {
    let message = read("seed = 1\nname = \n", &[]).unwrap_err().to_string();
    assert!(message.starts_with("config.toml line 2 is not TOML: "), "{message}");
    let message = read("seed = 1\nseed = 2\n", &[]).unwrap_err().to_string();
    assert!(message.starts_with("config.toml line 2 is not TOML: duplicate key"), "{message}");
}

#[test]
fn overrides_reach_tables_arrays_and_missing_keys() {
    let sets = [
        "rollout.group_size=4",
        "verifiers.0.weight = 0.5",
        "rollout.stop=['x']",
        "advantage=dr_grpo",
        "seed=1",
        "seed=2",
    ];
    let config = read(RUN, &sets).unwrap();
    assert_eq!((config.rollout.group_size, config.verifiers[0].weight, config.seed), (4, 0.5, 2));
    assert_eq!((config.rollout.stop, config.advantage), (vec!["x".to_owned()], Advantage::DrGrpo));
    assert_eq!(read("", &["rollout.temperature=1e-1"]).unwrap().rollout.temperature, 0.1);
    assert_eq!(read("", &["rollout.stop=[]"]).unwrap().rollout.stop.len(), 0);
}

#[test]
fn an_override_of_a_string_needs_no_quotes() {
    for (set, name) in [
        ("name=demo run", "demo run"),
        ("name='quoted'", "quoted"),
        ("name=7", "7"),
        ("name=1e3", "1e3"),
        ("name=true", "true"),
        ("name=", ""),
        ("name=a=b", "a=b"),
        ("name=./models/x", "./models/x"),
        ("name=2026-01-01", "2026-01-01"),
        ("name=1\nseed = 3", "1\nseed = 3"),
    ] {
        assert_eq!(read("", &[set]).unwrap().name.as_deref(), Some(name), "for {set:?}");
    }
}

#[test]
fn a_wrong_override_is_named() {
    let check = |set: &str, expected: &str| check_error(RUN, &[set], expected);
    check(
        "rollout.group_sise=4",
        "unknown key \"rollout.group_sise\" in --set rollout.group_sise=4: did you mean \"group_size\"?",
    );
    check(
        "seed=many",
        "wrong value for \"seed\" in --set seed=many: the string \"many\" where a whole number of at least 0 is wanted",
    );
    check("seed", "--set seed has no value: write it as --set key=value");
    check(".seed=1", "--set .seed=1 has an empty key: write it as --set table.key=value");
    check(
        "verifiers.2.weight=1",
        "--set verifiers.2.weight=1 cannot be applied: \"verifiers\" is an array with the entries 0 to 1, not \"2\"",
    );
    check(
        "name.x=1",
        "--set name.x=1 cannot be applied: \"name\" is a single value, not a table, so it has no key \"x\"",
    );
}
