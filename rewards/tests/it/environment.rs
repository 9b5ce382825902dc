//! The rewards that tools gave, as a part of a rubric.

use crate::common::{example, verifier};
use reckon_rewards::Outcome::{Fail, Pass, Unparsed};
use reckon_rewards::{Audit, Outcome, Rubric, RubricConfig, Submission, VerifierConfig};
use serde_json::json;

/// Rows are the rewards of a completion, with the reward and the outcome that come of them.
fn check(config: &str, rows: &[(&[f64], f32, Outcome)]) {
    let verifier = verifier(&format!("kind = 'environment'\n{config}"));
    let example = example("", json!({}));
    for (rewards, reward, outcome) in rows {
        let batch = [Submission { rewards, ..Submission::new(&example, "any text") }];
        let verdict = verifier.verify_batch(&batch).unwrap().remove(0);
        assert_eq!((verdict.reward, verdict.outcome), (*reward, *outcome), "{config}: {rewards:?}: {verdict:?}");
        assert!(verdict.reward.is_sign_positive() && !verdict.reason.is_empty(), "{verdict:?}");
    }
}

#[test]
fn the_last_the_sum_or_the_largest_reward_counts() {
    let some: &[f64] = &[0.25, 1.0, 0.5];
    check("", &[(some, 0.5, Fail), (&[0.0, 1.0], 1.0, Pass), (&[1.0, 0.0], 0.0, Fail), (&[], 0.0, Unparsed)]);
    check("of = 'last'", &[(some, 0.5, Fail)]);
    check("of = 'sum'\nrange = [0, 2]", &[(some, 0.875, Fail), (&[1.0, 1.0], 1.0, Pass), (&[], 0.0, Unparsed)]);
    check("of = 'largest'", &[(some, 1.0, Pass), (&[-1.0, -2.0], 0.0, Fail), (&[], 0.0, Unparsed)]);
}

#[test]
fn a_range_becomes_0_to_1_and_what_is_outside_its_ends() {
    let rows: [(&[f64], f32, Outcome); 6] = [
        (&[-1.0], 0.0, Fail),
        (&[0.0], 0.5, Fail),
        (&[0.5], 0.75, Pass),
        (&[1.0], 1.0, Pass),
        (&[1e300], 1.0, Pass),
        (&[-7.0], 0.0, Fail),
    ];
    check("range = [-1, 1]\npass_at = 0.75", &rows);
    // Ten times 0.1 is less than 1 as a double.
    check("of = 'sum'", &[(&[0.1; 10], 1.0, Pass), (&[-0.0], 0.0, Fail), (&[f64::MAX, f64::MAX], 1.0, Pass)]);
}

#[test]
fn a_reward_that_is_no_finite_number_is_none_and_says_so() {
    check("", &[(&[1.0, f64::NAN], 0.0, Unparsed), (&[f64::INFINITY, 1.0], 0.0, Unparsed)]);
    let example = example("", json!({}));
    let verifier = verifier("kind = 'environment'");
    for (rewards, expected) in [(&[f64::NAN][..], "a tool gave NaN, which is"), (&[], "no tool gave a reward")] {
        let verdict =
            verifier.verify_batch(&[Submission { rewards, ..Submission::new(&example, "") }]).unwrap().remove(0);
        assert!(verdict.reason.starts_with(expected), "{verdict:?}");
    }
    assert_eq!(verifier.verify(&example, "a text alone").unwrap().outcome, Unparsed);
}

#[test]
fn numbers_that_make_no_sense_are_refused_by_name() {
    for (keys, expected) in [
        ("range = [1, 0]", "`range = [1.0, 0.0]` must be two finite numbers, the lower one first"),
        ("range = [1, 1]", "`range = [1.0, 1.0]`"),
        ("range = [0, inf]", "`range = [0.0, inf]`"),
        ("range = [nan, 1]", "`range = [NaN, 1.0]`"),
        ("range = [-1e308, 1e308]", "`range = ["),
        ("pass_at = 0.0", "`pass_at = 0` must be above 0 and at most 1"),
        ("pass_at = 1.5", "`pass_at = 1.5`"),
        ("pass_at = nan", "`pass_at = NaN`"),
        ("of = 'first'", "unknown variant `first`"),
        ("extract = {from = 'whole'}", "unknown field `extract`"),
    ] {
        let config = toml::from_str::<VerifierConfig>(&format!("kind = 'environment'\n{keys}"));
        let error = match config {
            Err(error) => error.to_string(),
            Ok(config) => config.build().err().expect(keys).to_string(),
        };
        assert!(error.contains(expected), "{keys}: {error}");
    }
}

#[test]
fn a_rubric_adds_what_an_environment_gave_to_what_a_text_says() {
    let example = example("4", json!({}));
    let played = |rewards| Submission { rewards, ..Submission::new(&example, "<answer>4</answer>") };
    let total = |mode: &str, rewards| {
        let config = format!("mode = '{mode}'\n[[verifiers]]\nkind = 'exact'\n[[verifiers]]\nkind = 'environment'");
        let rubric = Rubric::from_config(&toml::from_str::<RubricConfig>(&config).unwrap()).unwrap();
        rubric.score_batch(&[played(rewards)]).unwrap()[0].total
    };
    for (rewards, binary, sum) in [(&[1.0][..], 1.0, 2.0), (&[0.5], 0.0, 1.5), (&[], 0.0, 1.0)] {
        assert_eq!((total("binary", rewards), total("sum", rewards)), (Some(binary), Some(sum)), "{rewards:?}");
    }
    // What stands in another's place judges by the same rewards.
    let cosine = verifier("kind = 'length'\nrule = 'cosine'\nmax = 9\nof = {kind = 'environment'}");
    let verdicts = cosine.verify_batch(&[played(&[1.0]), played(&[0.0])]).unwrap();
    assert_eq!([verdicts[0].passed(), verdicts[1].passed()], [true, false]);
}

#[test]
fn an_audit_holds_answers_to_their_rows_as_if_a_tool_had_rewarded_them() {
    let rows: Vec<_> = ["41", "42", "43"].map(|answer| (example(answer, json!({})), format!("say {answer}"))).into();
    let audit = |verifiers: &str| {
        let config: RubricConfig = toml::from_str(&format!("verifiers = [{verifiers}]")).unwrap();
        Audit::of(&Rubric::from_config(&config).unwrap(), &rows).unwrap()
    };
    let both = audit("{kind = 'numeric'}, {kind = 'environment', range = [-5, 3]}");
    assert!(both.is_clean() && both.without_reference == 0, "{both}");
    let alone = audit("{kind = 'environment'}");
    assert!(alone.is_clean() && alone.without_reference == 3, "nothing is rewarded for nothing: {alone}");
}

#[test]
fn functions_and_programs_of_ones_own_see_the_rewards() {
    let example = example("", json!({}));
    let played = [&[0.5, -2.0][..], &[]].map(|rewards| Submission { rewards, ..Submission::new(&example, "x") });
    let entry = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/plugins/mine.py");
    let python = verifier(&format!("kind = 'python'\nentry = '{entry}:earned'\npool = {{workers = 1}}"));
    let rewards = |verdicts: Vec<reckon_rewards::Verdict>| verdicts.iter().map(|v| v.reward).collect::<Vec<_>>();
    assert_eq!(rewards(python.verify_batch(&played).unwrap()), [-1.5, 0.0]);
    let group =
        verifier(&format!("kind = 'python'\nentry = '{entry}:most_earned'\nscope = 'group'\npool = {{workers = 1}}"));
    assert_eq!(rewards(group.verify_batch(&played).unwrap()), [0.0, 1.0]);
    let script = r#"echo '{"ready": true}'
        while IFS= read -r call; do
            id=${call#*\"id\":}; id=${id%%,*}
            case $call in *'"rewards":[0.5,-2.0]'*) reward=1 ;; *'"rewards":[]'*) reward=0 ;; *) reward=9 ;; esac
            echo "{\"id\": $id, \"reward\": $reward}"
        done"#;
    let command =
        verifier(&format!("kind = 'command'\ncommand = ['sh', '-c', '''{script}''']\npool = {{workers = 1}}"));
    assert_eq!(rewards(command.verify_batch(&played).unwrap()), [1.0, 0.0]);
}

#[test]
fn functions_of_trl_and_verl_are_told_what_tools_gave_and_each_finds_it_where_it_would_look() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/plugins");
    let rows = [json!({}), json!({"tool_rewards": [9], "extra_info": {"index": 3}})];
    for (kind, entry, keys, expected) in [
        ("python_trl", "trl.py:what_tools_gave", "", [[-1.5, 0.0]; 2]),
        ("python_trl", "trl.py:what_tools_gave", "scope = 'completion'", [[-1.5, 0.0]; 2]),
        ("python_trl", "trl.py:what_tools_gave_among_others", "", [[-1.5, 0.0]; 2]),
        ("python_verl", "verl.py:what_tools_gave", "", [[-1.5, 0.0], [1.5, 3.0]]),
        ("python_verl", "verl.py:what_tools_gave_batched", "", [[-1.5, 0.0]; 2]),
    ] {
        let verifier = verifier(&format!("kind = '{kind}'\nentry = '{folder}/{entry}'\n{keys}"));
        for (row, expected) in rows.iter().zip(expected) {
            let example = example("4", row.clone());
            let played =
                [&[0.5, -2.0][..], &[]].map(|rewards| Submission { rewards, ..Submission::new(&example, "x") });
            let verdicts = verifier.verify_batch(&played).unwrap();
            assert_eq!(verdicts.iter().map(|v| v.reward).collect::<Vec<_>>(), expected, "{entry} {keys}: {row}");
        }
    }
}
