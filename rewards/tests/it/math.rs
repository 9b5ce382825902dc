//! Kind `math` on pairs of reference and completion. `math/pairs.jsonl` and, by kind of answer, `math/kinds.jsonl` are
//! our own; `math/math_verify_pairs.jsonl`
//! holds cases and labels of the test suite of Math-Verify 0.9.0 (Apache-2.0); `math/adversarial.jsonl` answers that
//! fooled it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use reckon_datasets::Example;
use reckon_rewards::{Math, MathExtract, MathFrom, MathOptions, Outcome, Verdict, Verifier};
use serde::Deserialize;

/// Lines of `math_verify_pairs.jsonl` on which we differ; `rewards/README.md` gives the reason of each.
const DEVIATIONS: [usize; 4] = [71, 103, 141, 143];

#[derive(Deserialize)]
struct Pair {
    reference: String,
    completion: String,
    equal: bool,
}

#[derive(Deserialize)]
struct Answers {
    /// What is read, such as `intervals`; none in `pairs.jsonl`.
    #[serde(default)]
    kind: String,
    reference: String,
    right: Vec<String>,
    wrong: Vec<String>,
}

fn lines<T: for<'a> Deserialize<'a>>(text: &str) -> Vec<T> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn own_pairs() -> Vec<Answers> {
    let mut pairs = lines(include_str!("math/pairs.jsonl"));
    pairs.extend(lines::<Answers>(include_str!("math/kinds.jsonl")));
    pairs
}

fn example(reference: &str) -> Example {
    Example {
        id: "1".into(),
        question: "?".into(),
        answer: reference.into(),
        messages: Vec::new(),
        info: Default::default(),
    }
}

fn judge_with(options: &MathOptions, reference: &str, completion: &str) -> Verdict {
    Math::new("math", options).unwrap().verify(&example(reference), completion).unwrap()
}

fn judge(reference: &str, completion: &str) -> Verdict {
    judge_with(&MathOptions::default(), reference, completion)
}

#[test]
fn right_answers_pass_and_wrong_ones_do_not() {
    let mut failures = Vec::new();
    for Answers { kind, reference, right, wrong } in own_pairs() {
        for (answers, expected) in [(right, true), (wrong, false)] {
            for answer in answers {
                let verdict = judge(&reference, &answer);
                if verdict.passed() != expected {
                    failures.push(format!("{kind}: {reference} and {answer}: {verdict:?}"));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn math_verify_agrees_but_for_the_documented_lines_and_no_pair_it_calls_different_passes() {
    let pairs: Vec<Pair> = lines(include_str!("math/math_verify_pairs.jsonl"));
    let differs = |pair: &Pair| judge(&pair.reference, &pair.completion).passed() != pair.equal;
    let found: Vec<usize> = (1..).zip(&pairs).filter(|(_, pair)| differs(pair)).map(|(line, _)| line).collect();
    assert_eq!(found, DEVIATIONS);
    assert!(found.iter().all(|line| pairs[line - 1].equal), "a pair that is labelled different passes");
}

#[test]
fn answers_that_fool_others_are_judged_right() {
    for Pair { reference, completion, equal } in lines(include_str!("math/adversarial.jsonl")) {
        let verdict = judge(&reference, &completion);
        assert_eq!(verdict.passed(), equal, "{reference} and {completion}: {verdict:?}");
    }
}

#[test]
fn every_reference_scores_1_against_itself() {
    let all = own_pairs();
    let pairs: Vec<Pair> = lines(include_str!("math/math_verify_pairs.jsonl"));
    let own = all.into_iter().map(|answers| answers.reference);
    let references: BTreeSet<String> = own.chain(pairs.into_iter().map(|pair| pair.reference)).collect();
    for reference in references {
        assert!(judge(&reference, &reference).passed(), "{reference}");
    }
}

#[test]
fn from_decides_what_counts_as_an_answer() {
    let rows = [
        ("\\boxed{7}", [true, true, true]),
        ("<answer>7</answer>", [true, true, false]),
        ("#### 7", [true, true, false]),
        ("The answer is 7.", [true, false, false]),
        ("so $x = 7$", [true, false, false]),
    ];
    for (completion, expected) in rows {
        for (from, expected) in [MathFrom::Any, MathFrom::Marked, MathFrom::Boxed].into_iter().zip(expected) {
            let options =
                MathOptions { extract: MathExtract { from, ..MathExtract::default() }, ..MathOptions::default() };
            assert_eq!(judge_with(&options, "7", completion).passed(), expected, "{completion} from {from:?}");
        }
    }
    assert_eq!(judge("7", "<think>\\boxed{7}").outcome, Outcome::Unparsed);
}

#[test]
fn decimal_places_decide_how_far_a_decimal_may_round() {
    let options = MathOptions { decimal_places: 2, ..MathOptions::default() };
    assert!(judge_with(&options, "$\\frac13$", "\\boxed{0.33}").passed());
    assert!(!judge_with(&options, "$\\frac13$", "\\boxed{0.34}").passed());
    assert!(!judge_with(&options, "$\\frac13$", "\\boxed{0.3}").passed());
    assert!(!judge_with(&options, "$1$", "\\boxed{1.004}").passed(), "1 fits two places and must be written exactly");
}

#[test]
fn decimals_round_inside_intervals_and_tuples_as_they_do_alone() {
    let rows = [
        ("(\\frac35, \\frac83]", "(0.6, 2.6667]", true),
        ("(\\frac35, \\frac83]", "(0.6,2.6667]", true),
        ("(\\frac35, \\frac83]", "(0.6, 2.67]", false),
        ("(\\frac35, \\frac83]", "(0.6, 2.6666]", false),
        ("(\\frac35, \\frac83]", "[0.6, 2.6667]", false),
        ("(\\frac13,\\frac23)", "(0.3333,0.6667)", true),
        ("\\frac13 < x \\le \\frac23", "(0.3333,0.6667]", true),
        ("(-\\infty,\\frac13)\\cup(\\frac23,\\infty)", "(-\\infty,0.3333)\\cup(0.6667,\\infty)", true),
        ("x=\\frac13,y=\\frac23", "(0.3333,0.6667)", true),
    ];
    let options = MathOptions { decimal_places: 4, ..MathOptions::default() };
    for (reference, answer, expected) in rows {
        let completion = format!("\\boxed{{{answer}}}");
        assert_eq!(judge_with(&options, reference, &completion).passed(), expected, "{reference} and {answer}");
        assert!(!judge(reference, &completion).passed(), "by default {answer} has too few places for {reference}");
    }
}

#[test]
fn a_reference_without_an_answer_is_an_error() {
    let verifier = Math::new("math", &MathOptions::default()).unwrap();
    let error = verifier.verify(&example(" "), "\\boxed{1}").unwrap_err().to_string();
    assert!(error.contains("its `answer` \" \" cannot be read"), "{error}");
}

#[test]
fn huge_and_deep_answers_get_a_verdict_at_once() {
    let deep = |open: &str, close: &str| format!("\\boxed{{{}1{}}}", open.repeat(5000), close.repeat(5000));
    let completions = [
        "\\boxed{5^{(5^{(5^{(5^5)})})}}".to_string(),
        "\\boxed{9^{9^{9^{9}}}}".into(),
        "\\boxed{(10^{10^{10}})!}".into(),
        format!("\\boxed{{{}}}", "9".repeat(100_000)),
        format!("\\boxed{{{}}}", "x+".repeat(50_000)),
        format!("\\boxed{{{}}}", "(x+y+z+w+1)^{9}".repeat(200)),
        format!("\\boxed{{{}}}", "\\{\\pm".repeat(400)),
        format!("\\boxed{{(x+y+z+u+v+w)^{{60}}+{}}}", "\\sin(\\sin(x))+".repeat(100)),
        format!("\\boxed{{{}}}", (0..400).map(|n| format!("{n}!,")).collect::<String>()),
        "\\boxed{".repeat(20_000),
        "$".repeat(100_000),
        "\\[".repeat(50_000),
        deep("(", ")"),
        deep("\\sqrt{", "}"),
        deep("|", "|"),
        deep("2^", ""),
        deep("-", ""),
    ];
    for completion in completions {
        for reference in ["$\\sqrt{x^2+1}$", "2", "\\{1,2\\}", &completion] {
            let start = Instant::now();
            // A reference that cannot be read is an error, which must come at once too.
            let _ = Math::new("math", &MathOptions::default()).unwrap().verify(&example(reference), &completion);
            // Ten times what it takes on an idle machine.
            let head: String = completion.chars().take(40).collect();
            assert!(start.elapsed() < Duration::from_millis(500), "{head} took {:?}", start.elapsed());
        }
    }
}

/// Signs of the language, numbers that grow, brackets that nest.
const PIECES: &str = include_str!("math/pieces.txt");

proptest! {
    #[test]
    fn any_two_strings_get_a_verdict(reference in "\\PC*", completion in any::<String>()) {
        let _ = Math::new("math", &MathOptions::default()).unwrap().verify(&example(&reference), &completion);
    }

    #[test]
    fn any_mixture_of_signs_gets_a_verdict_and_equals_itself(
        pieces in prop::collection::vec(prop::sample::select(PIECES.lines().collect::<Vec<_>>()), 1..40),
    ) {
        let text = format!("\\boxed{{{}}}", pieces.concat());
        if let Ok(verdict) = Math::new("math", &MathOptions::default()).unwrap().verify(&example(&text), &text) {
            prop_assert!(verdict.passed() || verdict.outcome == Outcome::Unparsed, "{}: {:?}", text, verdict);
        }
    }
}
