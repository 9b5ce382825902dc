//! Assignments: lenient about how they are written, strict about what they say.

use crate::common::{check, example, verifier};
use reckon_rewards::Outcome::{self, Fail, Pass, Unparsed};
use serde_json::json;

const KIND: &str = "kind = 'logic'";
const REFERENCE: &str = "(1) Zoey is a knave\n(2) Owen is a knight\n(3) Ann is a knight";

#[test]
fn the_usual_ways_to_write_an_assignment_are_read() {
    let rows: Vec<(&str, Outcome)> = [
        REFERENCE,
        "Zoey is a knave, Owen is a knight, and Ann is a knight.",
        "Zoey: knave\nOwen: knight\nAnn: knight",
        "zoey = KNAVE; owen = Knight; ann = Knight",
        "- **Zoey** is a *knave*\n- **Owen** is a *knight*\n- **Ann** is a *knight*",
        "1. Ann: knight\n2. Owen: knight\n3. Zoey: knave",
        "1) Ann -> knight 2) Owen -> knight 3) Zoey → knave",
        "Zoey is a knave. Owen and Ann are knights.",
        "Owen & Ann are both knights, Zoey is the knave",
        "Knights: Owen, Ann\nKnaves: Zoey",
        "knaves: Zoey; knights: Owen and Ann",
        "Zoey (knave), Owen (knight), Ann (knight)",
        "| Zoey | knave |\n| Owen | knight |\n| Ann | knight |",
        "| Zoey | knave |\n|---|---|\n| Owen | knight |\n| Ann | knight |",
        "The answer is: Zoey is a knave, Owen is a knight and Ann is a knight",
        "Therefore, Zoey must be a knave, Owen must be a knight, Ann must be a knight.",
        "{\"Zoey\": \"knave\", \"Owen\": \"knight\", \"Ann\": \"Knight\"}",
        "```json\n{\"Zoey\": \"knave\", \"Owen\": \"knight\", \"Ann\": \"knight\"}\n```",
        "Zoey is: a knave\nOwen is: a knight\nAnn is: a knight",
        "$Zoey$ = knave, $Owen$ = knight, $Ann$ = knight",
    ]
    .map(|answer| (answer, Pass))
    .to_vec();
    check(KIND, &example(REFERENCE, json!({})), &rows);
}

#[test]
fn contradictions_gaps_strangers_and_hedges_are_wrong() {
    check(
        KIND,
        &example(REFERENCE, json!({})),
        &[
            ("Zoey is a knight, Owen is a knight, Ann is a knight", Fail),
            ("Zoey, Owen and Ann are knights", Fail),
            ("Zoey is a knave, Owen is a knight", Fail),
            ("Owen and Ann are knights", Fail),
            ("Zoey is a knave, Owen is a knight, Ann is a knight, Zoey is a knight", Fail),
            ("Zoey is a knight, Zoey is a knave, Owen is a knight, Ann is a knight", Fail),
            ("Zoey is a knave, Owen is a knight, Ann is a knight, Ann is a knight", Fail),
            ("{\"Zoey\": \"knave\", \"Owen\": \"knight\"}", Fail),
            ("{\"Zoey\": \"knave\", \"Owen\": \"knight\", \"Ann\": \"knight\", \"Bob\": \"knight\"}", Fail),
            ("{\"Zoey\": \"spy\", \"Owen\": \"knight\", \"Ann\": \"knight\"}", Fail),
            ("{\"Zoey\": \"knave\", \"Zoey\": \"knight\", \"Owen\": \"knight\", \"Ann\": \"knight\"}", Unparsed),
            ("Zoey is a knave, Owen is a knight, Ann is a knight, Bob is a knight", Unparsed),
            ("Zoey is a knave or a knight, Owen is a knight, Ann is a knight", Unparsed),
            ("Zoey is not a knight, Owen is a knight, Ann is a knight", Unparsed),
            ("Zoey is probably a knave, Owen is a knight, Ann is a knight", Unparsed),
            ("Zoey is a knave, Owen is a knight, Ann is a knight, or Zoey is a knight", Unparsed),
            ("Zoey is a knave, Owen is a knight, Ann is a knight. I am not sure.", Unparsed),
            ("Zoey is a knave/knight, Owen is a knight, Ann is a knight", Unparsed),
            ("Zoey is a knavery, Owen is a knight, Ann is a knight", Unparsed),
            ("Zoey's a knave, Owen is a knight, Ann is a knight", Unparsed),
            ("Anna is a knight, Zoey is a knave, Owen is a knight", Unparsed),
            ("knave, knight, knight", Unparsed),
            ("Zoey Owen Ann knave knight knight", Unparsed),
            ("Zoey is", Unparsed),
            ("Zoey (knave, Owen (knight), Ann (knight)", Unparsed),
            ("the answer is", Unparsed),
            ("", Unparsed),
            ("{}", Unparsed),
        ],
    );
}

#[test]
fn any_names_and_values_can_be_assigned() {
    let houses = json!({"solution": {"House 1": "red", "House 2": "dark blue", "3": 7, "open": true}});
    check(
        KIND,
        &example("", houses),
        &[
            ("House 1: red, House 2: dark blue, 3: 7, open: true", Pass),
            ("1. House 1 is red\n2. House 2 is the dark blue\n3. 3 = 7\n4. open = true", Pass),
            ("house_1 = red\nhouse_2 = dark blue\n3 = 7\nopen = true", Pass),
            ("House 1: dark blue, House 2: red, 3: 7, open: true", Fail),
            ("House 1: red, House 2: blue, 3: 7, open: true", Unparsed),
        ],
    );
    let sages = example("Zoey is a sage, and Riley is a fool.", json!({"solution": [true, false]}));
    check(KIND, &sages, &[("Riley: fool, Zoey: sage", Pass), ("Riley: sage, Zoey: sage", Fail)]);
    check(KIND, &example("{\"a\": \"x\"}", json!({})), &[("a=x", Pass), ("a=y", Unparsed)]);
    let known = "kind = 'logic'\nvalues = ['y']";
    check(known, &example("{\"a\": \"x\"}", json!({})), &[("a=x", Pass), ("a=y", Fail)]);
}

#[test]
fn a_reference_that_assigns_nothing_is_an_error() {
    for answer in ["", "42", "Zoey is a knave, Zoey is a knight", "is a knave"] {
        let error = verifier(KIND).verify(&example(answer, json!({})), "").unwrap_err().to_string();
        assert!(error.contains("`row-9`") && error.contains("reference") || error.contains("answer"), "{error}");
    }
}

#[test]
fn long_answers_are_read_at_once() {
    let long = "kind = 'logic'\nmax_bytes = 1000000";
    for piece in ["zoey and ", "- ", "(1) ", "zoey is a knave, ", "zoey ", "x", "|---", "\n1. "] {
        let start = std::time::Instant::now();
        let text = format!("<answer>{}</answer>", piece.repeat(900_000 / piece.len()));
        assert!(!verifier(long).verify(&example(REFERENCE, json!({})), &text).unwrap().passed());
        assert!(start.elapsed().as_millis() < 1000, "{piece:?}");
    }
}
