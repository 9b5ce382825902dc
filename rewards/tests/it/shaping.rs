//! Shaping terms: what they measure, and that they count only when asked to.

use crate::common::{example, verifier};
use reckon_rewards::{Outcome, Rubric, RubricConfig, Submission, VerifierConfig, soft_overlong};
use serde_json::json;

/// Rows are completions with their reward and whether they pass.
fn check(config: &str, rows: &[(&str, f32, bool)]) {
    let verifier = verifier(config);
    for (text, reward, passes) in rows {
        let verdict = verifier.verify(&example("4", json!({})), text).unwrap();
        assert!((verdict.reward - reward).abs() < 1e-6, "{config}: {text:?}: {verdict:?}");
        assert_eq!(verdict.passed(), *passes, "{config}: {text:?}: {verdict:?}");
    }
}

#[test]
fn language_is_the_share_of_letters_in_the_scripts() {
    check(
        "kind = 'language'\nmin_letters = 4",
        &[
            ("four and five", 1.0, true),
            ("<think>four, été, ª 123 + 4 = 127</think>", 1.0, true),
            ("abcабв!", 0.5, false),
            ("абвг", 0.0, false),
            ("123 + 456", 0.0, false),
            ("", 0.0, false),
        ],
    );
    let japanese = "kind = 'language'\nscripts = ['Han', 'Hiragana', 'Katakana']\nmin_letters = 1\nmin_share = 0.5";
    check(japanese, &[("コンピューターは速い", 1.0, true), ("速いab", 0.5, true), ("fast", 0.0, false)]);
}

#[test]
fn repetition_is_the_share_of_n_grams_said_before() {
    check(
        "kind = 'repetition'\nn = 2\nmax_share = 0.5",
        &[
            ("", 0.0, true),
            ("one", 0.0, true),
            ("one two three", 0.0, true),
            ("one, ONE: one", -0.5, true),
            ("no no no no no", -0.75, false),
            ("哈哈哈哈哈", -0.75, false),
        ],
    );
}

#[test]
fn soft_overlong_falls_from_the_cache_to_the_limit() {
    let words = "kind = 'length'\nrule = 'soft_overlong'\nmax = 4\ncache = 2";
    check(words, &[("", 0.0, true), ("a b", 0.0, true), ("a b c", -0.5, false), ("a b c d", -1.0, false)]);
    check(words, &[("a b c d e f g h", -1.0, false)]);
    let step = "kind = 'length'\nrule = 'soft_overlong'\nmax = 3\ncache = 0\nunit = 'characters'";
    check(step, &[("äöü", 0.0, true), ("äöü.", -1.0, false)]);
}

#[test]
fn tokens_count_where_they_are_known() {
    let verifier = verifier("kind = 'length'\nrule = 'soft_overlong'\nmax = 4\ncache = 2\nunit = 'tokens'");
    let example = example("4", json!({}));
    let known = Submission { tokens: &[7, 8, 9], ..Submission::new(&example, "a") };
    let verdicts = verifier.verify_batch(&[known, Submission::new(&example, "a")]).unwrap();
    assert_eq!((verdicts[0].reward, verdicts[1].outcome), (-0.5, Outcome::Skipped));
}

#[test]
fn cosine_prefers_short_when_right_and_long_when_wrong() {
    let config = "kind = 'length'\nrule = 'cosine'\nmax = 4\nof = {kind = 'exact', extract = {from = 'last_line'}}";
    let half = (std::f32::consts::FRAC_PI_4).cos();
    check(
        config,
        &[
            ("4", 1.5 + 0.5 * half, true),
            ("a\n4", 1.5, true),
            ("a b\n4", 1.5 - 0.5 * half, true),
            ("5", -5.0 - 5.0 * half, false),
            ("a b\n5", -5.0 + 5.0 * half, false),
            ("", -10.0, false),
            ("a b c\n4", -10.0, true),
            ("a b c d e f g h i\n5", -10.0, false),
        ],
    );
}

#[test]
fn shaping_terms_are_logged_and_count_only_with_a_weight() {
    let terms = "[[verifiers]]\nkind = 'exact'\n[[verifiers]]\nkind = 'repetition'\nn = 1\n[[verifiers]]\n\
                 kind = 'language'\n[[verifiers]]\nkind = 'length'\nrule = 'soft_overlong'\nmax = 1\ncache = 1";
    let total = |config: &str| {
        let rubric = Rubric::from_config(&toml::from_str::<RubricConfig>(config).unwrap()).unwrap();
        rubric.score(&example("4", json!({})), "4 4 4 <answer>4</answer>").unwrap()
    };
    let score = total(terms);
    assert_eq!(score.total, Some(1.0));
    assert_eq!(score.parts.iter().map(|part| part.passed()).collect::<Vec<_>>(), [true, false, false, false]);
    assert_eq!(total(&format!("mode = 'sum'\n{terms}\nweight = 0.5")).total, Some(0.5));
    assert_eq!(total(&format!("{terms}\nweight = 0.5")).total, Some(0.0));
    let alone = "[[verifiers]]\nkind = 'repetition'";
    let refused = Rubric::from_config(&toml::from_str::<RubricConfig>(alone).unwrap()).err().unwrap().to_string();
    assert!(refused.contains("no verifier counts"), "{refused}");
}

#[test]
fn numbers_that_make_no_sense_are_refused_by_name() {
    for (config, expected) in [
        ("kind = 'language'\nscripts = []", "`scripts`"),
        ("kind = 'language'\nscripts = ['English']", "`English`, which is no Unicode script"),
        ("kind = 'language'\nscripts = ['Latin}a{']", "which is no Unicode script"),
        ("kind = 'language'\nmin_share = 2.0", "`min_share = 2`"),
        ("kind = 'repetition'\nn = 0", "`n = 0`"),
        ("kind = 'repetition'\nmax_share = -1.0", "`max_share = -1`"),
        ("kind = 'length'\nmax = 5", "missing field `rule`"),
        ("kind = 'length'\nrule = 'soft_overlong'\nmax = 5\ncache = 6", "`cache = 6`"),
        ("kind = 'length'\nrule = 'soft_overlong'\nmax = 0\ncache = 0", "`max = 0`"),
        ("kind = 'length'\nrule = 'soft_overlong'\nmax = 5\ncache = 1\nof = 1", "unknown field `of`"),
        ("kind = 'length'\nrule = 'cosine'\nmax = 5", "missing field `of`"),
        ("kind = 'length'\nrule = 'cosine'\nmax = 5\nof = {kind = 'exct'}", "unknown variant `exct`"),
    ] {
        let error = match toml::from_str::<VerifierConfig>(config) {
            Err(error) => error.to_string(),
            Ok(config) => config.build().err().expect("it is refused").to_string(),
        };
        assert!(error.contains(expected), "{config}: {error}");
    }
}

#[test]
fn the_overlong_punishment_grows_over_the_last_tokens_before_the_limit() {
    let check = |length, expected| assert_eq!(soft_overlong(length, 100, 20), expected, "{length}");
    check(0, 0.0);
    check(80, 0.0);
    check(85, -0.25);
    check(100, -1.0);
    check(101, -1.0);
    assert_eq!((soft_overlong(10, 10, 0), soft_overlong(11, 10, 0)), (0.0, -1.0));
}
