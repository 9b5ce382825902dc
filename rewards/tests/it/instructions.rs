//! IFEval's instructions: each row is an id, its arguments, texts that follow and texts that do not.

use crate::common::{example, verifier};
use serde_json::{Value, json};

const KIND: &str = "kind = 'instructions'";

/// The reward of `text` under instructions with arguments.
fn reward(config: &str, instructions: &[(&str, Value)], text: &str) -> f32 {
    let ids: Vec<&str> = instructions.iter().map(|(id, _)| *id).collect();
    let kwargs: Vec<&Value> = instructions.iter().map(|(_, kwargs)| kwargs).collect();
    let example = example("", json!({"instruction_id_list": ids, "kwargs": kwargs}));
    verifier(config).verify(&example, text).unwrap().reward
}

fn check(id: &str, kwargs: Value, followed: &[&str], broken: &[&str]) {
    for (texts, expected) in [(followed, 1.0), (broken, 0.0)] {
        for text in texts {
            assert_eq!(reward(KIND, &[(id, kwargs.clone())], text), expected, "{id} {kwargs}: {text:?}");
        }
    }
}

#[test]
fn keywords_are_found_in_any_case_and_within_words() {
    let id = "keywords:existence";
    check(id, json!({"keywords": ["cat", "c++"]}), &["Concatenate in C++"], &["cat", "c++", "ca t c+"]);
    let id = "keywords:frequency";
    let twice = json!({"keyword": "cat", "frequency": 2, "relation": "at least"});
    check(id, twice, &["cat Cats", "catcat"], &["cat", "dog"]);
    let rarely = json!({"keyword": "cat", "frequency": 2.0, "relation": "less than"});
    check(id, rarely, &["cat", "dog"], &["cat cat", "concatenated cats"]);
    let id = "keywords:forbidden_words";
    let words = json!({"forbidden_words": ["cat", "c++", "ab ab"]});
    check(id, words, &["concatenate", "cats", "xab ab x", "cat_1"], &["A Cat.", "(cat)", "cat", "xab ab ab"]);
    let id = "keywords:letter_frequency";
    let two = json!({"letter": "a", "let_frequency": 2, "let_relation": "at least"});
    check(id, two, &["Aa", "banana"], &["a", "xyz"]);
    check(id, json!({"letter": "#", "let_frequency": 1, "let_relation": "less than"}), &["a"], &["#"]);
}

#[test]
fn lengths_are_counted_in_words_sentences_and_paragraphs() {
    let id = "length_constraints:number_words";
    check(id, json!({"num_words": 3, "relation": "at least"}), &["one two three", "it's so"], &["one two", "..."]);
    check(id, json!({"num_words": 3, "relation": "less than"}), &["one two"], &["one two three", "1 2 3"]);
    let id = "length_constraints:number_sentences";
    check(
        id,
        json!({"num_sentences": 2, "relation": "at least"}),
        &["One. Two!", "A? B"],
        &["Dr. Who paid 3.50.", "a"],
    );
    check(id, json!({"num_sentences": 2, "relation": "less than"}), &["One, e.g. this."], &["One. Two."]);
    let id = "length_constraints:number_paragraphs";
    check(
        id,
        json!({"num_paragraphs": 2}),
        &["a\n***\nb", "***\na\n***\nb\n***"],
        &["a\n\nb", "a***b***c", "a***\n***b"],
    );
    let id = "length_constraints:nth_paragraph_first_word";
    let second = json!({"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Then"});
    check(id, second, &["a\n\nthen b", "a\n\n\"Then, b"], &["then\n\nb", "a\n\nthen\n\nc", "a\nthen", "a\n\nthence b"]);
}

#[test]
fn content_and_format_are_detected() {
    let id = "detectable_content:number_placeholders";
    check(id, json!({"num_placeholders": 2}), &["[a] and [b c]", "[][]"], &["[a]", "[a\n] [b]", "[[a]"]);
    let id = "detectable_content:postscript";
    check(id, json!({"postscript_marker": "P.S."}), &["x\nP.S. y", "p. s. y"], &["PS y", "P.S y"]);
    check(id, json!({"postscript_marker": "P.P.S"}), &["P.P.S y", "p. p. s"], &["P.S. y"]);
    check(id, json!({"postscript_marker": "Note:"}), &["x\nNOTE: y"], &["note y"]);
    let id = "detectable_format:number_bullet_lists";
    check(
        id,
        json!({"num_bullets": 2}),
        &["* a\n- b", " * a\n * b"],
        &["* a", "* a\n* b\n* c", "**a**\n* b", "+ a\n+ b"],
    );
    let id = "detectable_format:constrained_response";
    check(id, json!({}), &["My answer is yes.", "I say: My answer is maybe. So"], &["yes", "my answer is no."]);
    let id = "detectable_format:number_highlighted_sections";
    check(id, json!({"num_highlights": 2}), &["*a* *b*", "**a** *b*"], &["*a*", "* * *a*", "*a\nb* *c*"]);
    let id = "detectable_format:multiple_sections";
    let two = json!({"section_spliter": "Section", "num_sections": 2});
    check(
        id,
        two,
        &["Section 1 a\nSection 2 b", "Section1Section2"],
        &["Section 1", "SECTION 1 SECTION 2", "Section  1 Section 2"],
    );
    let id = "detectable_format:json_format";
    check(
        id,
        json!({}),
        &["{\"a\": 1}", "```json\n[1]\n```", "3"],
        &["{a: 1}", "Here: {}", "NaN", "{\"a\": 1, \"a\": 2}"],
    );
    let id = "detectable_format:title";
    check(id, json!({}), &["<<A title>>\nx", "x <<<<t>>>>"], &["<A title>", "<< >>", "<<a\nb>>"]);
}

#[test]
fn responses_start_end_and_are_repeated_as_told() {
    let id = "combination:two_responses";
    check(
        id,
        json!({}),
        &["a\n******\nb", "******a******b******"],
        &["a", "a******a", "a******b******c", "a************b"],
    );
    let id = "combination:repeat_prompt";
    check(id, json!({"prompt_to_repeat": " Say hi. "}), &["say hi. Hi", "Say hi."], &["Hi. Say hi.", "Say h"]);
    let id = "startend:end_checker";
    check(
        id,
        json!({"end_phrase": "Any questions?"}),
        &["a ANY QUESTIONS?\n", "\"Any questions?\""],
        &["Any questions? No"],
    );
    let id = "startend:quotation";
    check(id, json!({}), &["\"a\"", " \"\" "], &["a", "\"", "\"a\".", "“a”"]);
    check("punctuation:no_comma", json!({}), &["a; b"], &["a, b"]);
}

#[test]
fn cases_and_languages_are_told() {
    let id = "change_case:capital_word_frequency";
    let two = json!({"capital_frequency": 2, "capital_relation": "at least"});
    check(id, two, &["NASA and ESA", "A-B, C", "NASA's ESA"], &["NASA", "Nasa Esa", "A-B"]);
    check(id, json!({"capital_frequency": 1, "capital_relation": "less than"}), &["none", "1 2"], &["ONE"]);
    let english = "this is a plain little sentence about the weather and what we had for dinner";
    let french = "ceci est une phrase tout à fait ordinaire sur le temps et sur notre dîner d'hier soir";
    let id = "change_case:english_lowercase";
    check(id, json!({}), &[english, "yes and no"], &["Yes", french, "123", "привет как дела у вас сегодня"]);
    let id = "change_case:english_capital";
    check(id, json!({}), &[&english.to_uppercase(), "YES 1"], &["YEs", &french.to_uppercase(), "123"]);
    let id = "language:response_language";
    check(id, json!({"language": "en"}), &[english, "Yes."], &[french, "Да.", "42"]);
    check(id, json!({"language": "fr"}), &[french], &[english, "I think that this is right.", "12"]);
    let german = "Das ist ein ganz gewöhnlicher Satz über das Wetter und das Essen von gestern Abend.";
    check(id, json!({"language": "de"}), &[german], &[english, french, "My answer is yes."]);
    check(id, json!({"language": "hi"}), &["यह मौसम के बारे में एक साधारण वाक्य है और हम खुश हैं"], &[english, "42"]);
    check(
        id,
        json!({"language": "sw"}),
        &["Hii ni sentensi ya kawaida kuhusu hali ya hewa na chakula cha jana"],
        &[english, german],
    );
    check(id, json!({"language": "ru"}), &["Это обычное предложение о погоде и о том, что мы ели вчера."], &[english]);
}

#[test]
fn a_blank_text_follows_nothing() {
    let none = json!({"forbidden_words": ["cat"]});
    for text in ["", " \n", "<think>done</think>", "<think>a", "<think>a</think>\n"] {
        assert_eq!(reward(KIND, &[("keywords:forbidden_words", none.clone())], text), 0.0, "{text:?}");
    }
    assert_eq!(reward(KIND, &[("keywords:forbidden_words", none)], "<think>cat</think>dog"), 1.0);
}

#[test]
fn loose_forgives_a_first_line_a_last_line_and_asterisks() {
    let loose = "kind = 'instructions'\nstrictness = 'loose'";
    let json = [("detectable_format:json_format", json!({}))];
    for text in ["Sure:\n{}", "{}\nDone.", "Sure:\n{}\nDone.", "**{}**", "Sure:\n*{}*"] {
        assert_eq!((reward(KIND, &json, text), reward(loose, &json, text)), (0.0, 1.0), "{text:?}");
    }
    for text in ["a\nb\n{}", "a {}", ""] {
        assert_eq!(reward(loose, &json, text), 0.0, "{text:?}");
    }
    // Each instruction may be followed by another of the texts.
    let both = [json[0].clone(), ("startend:end_checker", json!({"end_phrase": "Bye"}))];
    assert_eq!(reward(loose, &both, "{}\nBye"), 1.0);
}

#[test]
fn all_must_be_followed_unless_a_share_earns() {
    let two = [("punctuation:no_comma", json!({"language": null})), ("startend:quotation", json!({}))];
    let share = "kind = 'instructions'\ncredit = 'share'";
    for (text, all, part) in [("\"a\"", 1.0, 1.0), ("a", 0.0, 0.5), ("a, b", 0.0, 0.0)] {
        assert_eq!((reward(KIND, &two, text), reward(share, &two, text)), (all, part), "{text:?}");
    }
}

#[test]
fn rows_that_cannot_be_checked_are_errors_that_say_why() {
    for (info, expected) in [
        (json!({}), "`info.instruction_id_list` is not a list"),
        (json!({"instruction_id_list": [], "kwargs": []}), "`info.instruction_id_list` is not a list of at least one"),
        (json!({"instruction_id_list": ["a"], "kwargs": [{}, {}]}), "1 instructions and 2 `info.kwargs`"),
        (json!({"instruction_id_list": [7], "kwargs": [{}]}), "instruction id 7 is not a text"),
        (json!({"instruction_id_list": ["punctuation:no_coma"], "kwargs": [{}]}), "unknown variant"),
        (
            json!({"instruction_id_list": ["length_constraints:number_words"], "kwargs": [{"num_words": 3}]}),
            "`relation`",
        ),
        (
            json!({"instruction_id_list": ["length_constraints:number_words"],
            "kwargs": [{"num_words": 3, "relation": "more than"}]}),
            "`more than`",
        ),
        (
            json!({"instruction_id_list": ["detectable_format:number_bullet_lists"], "kwargs": [{"num_bullets": 1.5}]}),
            "1.5",
        ),
        (
            json!({"instruction_id_list": ["detectable_format:number_bullet_lists"],
            "kwargs": [{"num_bullets": 1, "bullets": 2}]}),
            "unknown field `bullets`",
        ),
        (json!({"instruction_id_list": ["language:response_language"], "kwargs": [{"language": "tlh"}]}), "`tlh`"),
    ] {
        let error = verifier(KIND).verify(&example("", info.clone()), "a").unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("`row-9`"), "{info}: {error}");
    }
}
