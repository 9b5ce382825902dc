//! What each verifier says, as tables: config, reference, then completions with their outcomes.

use crate::common::verifier;
use reckon_datasets::Example;
use reckon_rewards::Outcome;
use serde_json::json;

fn example(answer: &str) -> Example {
    crate::common::example(answer, json!({"numbers": [3, 4, 7, 2], "target": 47}))
}

fn check(config: &str, reference: &str, rows: &[(&str, Outcome)]) {
    crate::common::check(config, &example(reference), rows);
}

use Outcome::{Fail, Pass, Unparsed};

#[test]
fn the_answer_is_the_only_block_after_the_thoughts() {
    check(
        "kind = 'exact'",
        "4",
        &[
            ("<think>a</think><answer> 4\n</answer>", Pass),
            ("<think><answer>5</answer></think><answer>4</answer>", Pass),
            ("a</think>b</think><answer>4</answer>", Pass),
            ("<answer>4</answer><answer>4</answer>", Unparsed),
            ("<answer>5</answer><answer>4</answer>", Unparsed),
            ("<answer>4", Unparsed),
            ("4</answer>", Unparsed),
            ("<answer><answer>4</answer></answer>", Unparsed),
            ("<answer>4</answer></answer>", Unparsed),
            ("</answer><answer>4</answer>", Unparsed),
            ("<think><answer>4</answer>", Unparsed),
            ("<think>a</think><answer>4</answer><think>", Unparsed),
            ("<answer>4</answer><think>a</think>", Unparsed),
            ("<Answer>4</Answer>", Unparsed),
            ("<answer >4</answer>", Unparsed),
            ("<answer>٤</answer>", Fail),
            ("<answer></answer>", Fail),
            ("", Fail),
        ],
    );
    check(
        "kind = 'exact'\nextract = {from = 'last_line'}",
        "4",
        &[("<think>\n5</think>x\n 4 \n\n", Pass), ("<b>", Fail)],
    );
    check(
        "kind = 'exact'\nextract = {tag = 'final'}",
        "4",
        &[("<final>4</final>", Pass), ("<answer>4</answer>", Unparsed)],
    );
}

#[test]
fn format_wants_each_block_once_in_order_and_closed() {
    let rows = [
        ("<think>a</think><answer>b</answer>", Pass),
        (" \n<think>a < b</think>\n\n<answer>b</answer>\n", Pass),
        ("<think>a</think><answer>b</answer> junk", Fail),
        ("junk <think>a</think><answer>b</answer>", Fail),
        ("<think>a</think> junk <answer>b</answer>", Fail),
        ("<think> </think><answer>b</answer>", Fail),
        ("<think>a</think><answer></answer>", Fail),
        ("<answer>b</answer><think>a</think>", Fail),
        ("<think>a</think><think>a</think><answer>b</answer>", Fail),
        ("<think>a</think><answer>b</answer><answer>b</answer>", Fail),
        ("<think>a<think>b</think></think><answer>b</answer>", Fail),
        ("<think>a<answer>b</answer></think><answer>b</answer>", Fail),
        ("<think>a</think></think><answer>b</answer>", Fail),
        ("<think>a<answer>b</answer>", Fail),
        ("<think>a</think><answer>b", Fail),
        ("a</think><answer>b</answer>", Fail),
        ("<>", Fail),
    ];
    check("kind = 'format'", "", &rows);
    let loose = "kind = 'format'\nprefilled = true\nmay_be_empty = ['think']\ntext_between = true\ntext_after = true";
    check(
        loose,
        "",
        &[
            ("</think> so <answer>b</answer> done", Pass),
            ("a</think><answer>b</answer>", Pass),
            ("<think>a</think><answer>b</answer>", Pass),
            ("<think><think>a</think><answer>b</answer>", Fail),
            ("a</think><answer>b</answer><think>", Fail),
        ],
    );
}

#[test]
fn exact_compares_what_the_options_leave() {
    check("kind = 'exact'", "New York", &[("New York", Pass), ("new york", Fail), ("New  York", Fail)]);
    let loose = "kind = 'exact'\nignore_case = true\ncollapse_whitespace = true";
    check(loose, "New York", &[("NEW \n york", Pass), ("NewYork", Fail), ("New York.", Fail)]);
}

#[test]
fn numeric_reads_one_number_exactly() {
    check(
        "kind = 'numeric'",
        "He has 2 left.\n#### 1,234.5",
        &[
            ("1234.5", Pass),
            ("1,234.50", Pass),
            ("$1,234.50", Pass),
            ("\\$1234.5", Pass),
            ("1234.5 €", Pass),
            ("+1234.5.", Pass),
            ("1.2345e3", Pass),
            ("12345E-1", Pass),
            ("2469/2", Pass),
            ("2,469 / 2", Pass),
            ("123450%", Pass),
            ("1234.5000000000000000000000000000000000000000000000000", Pass),
            ("-1234.5", Fail),
            ("−1234.5", Fail),
            ("1,234", Fail),
            ("12,34.5", Unparsed),
            ("1,2345", Unparsed),
            (",123", Unparsed),
            ("1234.5 1234.5", Unparsed),
            ("1234.5 apples", Unparsed),
            ("1234..5", Unparsed),
            ("$1234.5$", Unparsed),
            ("--5", Unparsed),
            ("1e999999999", Unparsed),
            ("9**9**9", Unparsed),
            ("1/0", Unparsed),
            ("1/2/3", Unparsed),
            ("99999999999999999999999999999999999999999999", Unparsed),
            ("NaN", Unparsed),
            ("inf", Unparsed),
            ("0x10", Unparsed),
            ("１２", Unparsed),
            (".", Unparsed),
            ("e5", Unparsed),
            ("%", Unparsed),
            ("", Unparsed),
        ],
    );
    check(
        "kind = 'numeric'",
        "-0.5",
        &[("-50%", Pass), ("−1/2", Pass), ("-.5", Pass), ("$-0.5", Pass), ("-$0.5", Pass)],
    );
    check("kind = 'numeric'\npercent = 'number'", "50", &[("50%", Pass), ("50 %.", Pass), ("0.5", Fail)]);
    check("kind = 'numeric'\nunits = ['km']", "7", &[("7 km", Pass), ("7km.", Pass), ("7 m", Unparsed)]);
    check("kind = 'numeric'\ntolerance = 0.01", "3.14", &[("3.15", Pass), ("3.1501", Fail), ("22/7", Pass)]);
}

#[test]
fn choice_takes_one_letter_and_no_prose() {
    check(
        "kind = 'choice'",
        "B",
        &[
            ("B", Pass),
            ("b", Pass),
            ("(B)", Pass),
            ("[b]", Pass),
            ("B.", Pass),
            ("B)", Pass),
            ("**B**", Pass),
            ("**B**.", Pass),
            ("answer: B", Pass),
            ("The answer is (B).", Pass),
            ("Answer: **B**", Pass),
            ("\\boxed{\\text{B}}", Pass),
            ("B. because I say so", Pass),
            ("(B) a dog", Pass),
            ("C", Fail),
            ("(E) none", Fail),
            ("F", Unparsed),
            ("B or C", Unparsed),
            ("B) or C)", Unparsed),
            ("(B) (C)", Unparsed),
            ("b) or c)", Unparsed),
            ("Both are plausible", Unparsed),
            ("Answer: Both", Unparsed),
            ("answerB", Unparsed),
            ("A dog", Unparsed),
            ("(B", Unparsed),
            ("B.C", Unparsed),
            ("Ｂ", Unparsed),
            ("", Unparsed),
        ],
    );
    check("kind = 'choice'\nchoices = 10", "J", &[("(J)", Pass), ("K", Unparsed)]);
}

#[test]
fn regex_matches_all_or_part_as_the_config_says() {
    check("kind = 'regex'\npattern = 'a|ab'", "", &[("ab", Pass), ("abc", Fail), ("xa", Fail), ("", Fail)]);
    check("kind = 'regex'\npattern = 'b+'\nmatch = 'search'", "", &[("abc", Pass), ("ac", Fail)]);
    let whole = "kind = 'regex'\npattern = '(?s)<b>.*'\nextract = {from = 'whole'}";
    check(whole, "", &[("<b>\n", Pass), (" <b>", Fail)]);
}

#[test]
fn countdown_uses_each_number_once_and_hits_the_target() {
    check(
        "kind = 'countdown'",
        "",
        &[
            ("(3 + 4) * 7 - 2", Pass),
            ("(3+4)×7−2", Pass),
            ("((((3+4))))·7-2", Pass),
            ("7*(4+3)\n-2", Pass),
            ("47", Fail),
            ("(3 + 4) * 7", Fail),
            ("(3 + 4) * 7 - 2 - 2 + 2", Fail),
            ("3 + 4 + 7 + 2", Fail),
            ("(3 + 4) * (3 + 4) - 2", Fail),
            ("3 / (4 - 4) + 7 - 2", Fail),
            ("1/0", Fail),
            ("3.0 + 4 * 7 + 2", Unparsed),
            ("3 ** 4 - 7 * 2", Unparsed),
            ("9**9**9", Unparsed),
            ("7 // 2 + 3 + 4", Unparsed),
            ("7 ^ 2 - 3 + 4", Unparsed),
            ("-2 + (3 + 4) * 7", Unparsed),
            ("(3 + 4)7 - 2", Unparsed),
            ("(3 + 4) * 7 - 2 = 47", Unparsed),
            ("(3 + 4) * 7 - 02", Unparsed),
            ("(3 + 4) * 7 - 2)", Unparsed),
            ("((3 + 4) * 7 - 2", Unparsed),
            ("()", Unparsed),
            ("1e999999999", Unparsed),
            ("99999999999999999999999", Unparsed),
            ("３ + 4", Unparsed),
            ("x", Unparsed),
            ("", Unparsed),
        ],
    );
    let equals = "kind = 'countdown'\nequals_target = true\nunary_minus = true";
    check(
        equals,
        "",
        &[
            ("(3 + 4) * 7 - 2 = 47", Pass),
            ("-2 + (3 + 4) * 7", Pass),
            ("(3 + 4) * 7 - 2 = 48", Fail),
            ("47 = (3 + 4) * 7 - 2", Unparsed),
            ("(3 + 4) * 7 - 2 = 47 = 47", Unparsed),
            ("--2 + (3 + 4) * 7", Unparsed),
        ],
    );
    check("kind = 'countdown'\nmax_depth = 1", "", &[("(3+4)*7-2", Pass), ("((3+4))*7-2", Unparsed)]);
    check("kind = 'countdown'\nmax_bytes = 9", "", &[("(3+4)*7-2", Pass), ("(3+4)*7 -2", Unparsed)]);
}

#[test]
fn a_million_characters_are_judged_at_once() {
    let million = 1_000_000;
    let texts: Vec<String> = ["(", "<", "<think>", "<answer>", "</answer>", "</think>", "9", "1,", "-", "é", "A ", " "]
        .iter()
        .flat_map(|piece| {
            [piece.repeat(million / piece.len()), format!("<answer>{}</answer>", piece.repeat(million / piece.len()))]
        })
        .collect();
    let kinds = ["format", "exact", "numeric", "choice", "countdown", "regex'\npattern='(a*)*b"];
    for (kind, reference) in kinds.iter().zip(["", "4", "4", "B", "", ""]) {
        let (verifier, example) = (verifier(&format!("kind = '{kind}'")), example(reference));
        for text in &texts {
            let start = std::time::Instant::now();
            assert_eq!(verifier.verify(&example, text).unwrap().reward, 0.0);
            assert!(start.elapsed().as_millis() < 2000, "{kind} on {:?}...", &text[..9]);
        }
    }
}

#[test]
fn a_broken_example_is_an_error_that_names_it() {
    let broken = Example { info: Default::default(), ..example("no number at all") };
    for kind in ["numeric", "choice", "countdown"] {
        let error = verifier(&format!("kind = '{kind}'")).verify(&broken, "").unwrap_err().to_string();
        assert!(error.contains("`row-9`") && error.contains(kind), "{error}");
    }
    for info in [json!({"numbers": [1, -2], "target": 3}), json!({"numbers": [], "target": 3}), json!({"nums": [1]})] {
        let example = Example { info: info.as_object().unwrap().clone(), ..example("") };
        assert!(verifier("kind = 'countdown'").verify(&example, "").is_err(), "{info}");
    }
}
