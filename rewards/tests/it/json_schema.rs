//! Answers against schemas: what is JSON, what satisfies, and which schemas are refused.

use crate::common::{check, example, verifier};
use reckon_rewards::Outcome::{Fail, Pass, Unparsed};
use reckon_rewards::{JsonSchema, JsonSchemaOptions};
use serde_json::json;

const KIND: &str = "kind = 'json_schema'";

#[test]
fn an_answer_is_one_value_that_satisfies_the_rows_schema() {
    let schema = json!({
        "type": "object",
        "properties": {"name": {"type": "string", "pattern": "^[A-Z]"}, "age": {"type": "integer", "minimum": 0},
            "next": {"$ref": "#"}, "tags": {"type": "array", "uniqueItems": true, "maxItems": 3}},
        "required": ["name", "age"],
        "additionalProperties": false,
    });
    for schema in [schema.clone(), json!(schema.to_string())] {
        check(
            KIND,
            &example("", json!({"schema": schema})),
            &[
                (r#"{"name": "Ann", "age": 7}"#, Pass),
                ("```json\n{\"name\": \"Ann\", \"age\": 7}\n```", Pass),
                (r#"{"name": "Ann", "age": 7.0}"#, Pass),
                (r#"{"name": "Ann", "age": 7, "next": {"name": "Bob", "age": 1}}"#, Pass),
                (r#"{"name": "Ann", "age": 7, "next": {"name": "Bob"}}"#, Fail),
                (r#"{"name": "ann", "age": 7}"#, Fail),
                (r#"{"name": "Ann", "age": -7}"#, Fail),
                (r#"{"name": "Ann", "age": "7"}"#, Fail),
                (r#"{"name": "Ann"}"#, Fail),
                (r#"{"name": "Ann", "age": 7, "more": 1}"#, Fail),
                (r#"{"name": "Ann", "age": 7, "tags": [1, 1]}"#, Fail),
                ("[]", Fail),
                ("null", Fail),
                (r#"{"name": "Ann", "age": -7, "age": 7}"#, Unparsed),
                (r#"{"name": "Ann", "age": NaN}"#, Unparsed),
                (r#"{"name": "Ann", "age": 7} {}"#, Unparsed),
                (r#"Here: {"name": "Ann", "age": 7}"#, Unparsed),
                (r#"{'name': 'Ann', 'age': 7}"#, Unparsed),
                ("```\n{\"name\": \"Ann\", \"age\": 7}\n```\n```\n{}\n```", Unparsed),
                ("", Unparsed),
            ],
        );
    }
}

#[test]
fn one_schema_can_serve_every_row() {
    let config = "kind = 'json_schema'\nmax_depth = 2\nmax_bytes = 30\nschema = {type = 'array', minItems = 1}\n\
                  extract = {from = 'after_thoughts'}";
    check(
        config,
        &example("", json!({})),
        &[
            ("<think>[</think>\n[1]\n", Pass),
            ("<think>[</think>The list:\n```json\n[1]\n```", Pass),
            ("<think>[</think>[]", Fail),
            ("<think>[</think>[[[1]]]", Unparsed),
            ("<think>[</think>[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]", Unparsed),
            ("<think>[1]", Unparsed),
        ],
    );
}

#[test]
fn rows_with_schemas_of_their_own_do_not_share_them() {
    let verifier = verifier(KIND);
    let (number, text) = (example("", json!({"schema": {"type": "number"}})), json!({"schema": {"type": "string"}}));
    let text = example("", text);
    for _ in 0..2 {
        assert!(verifier.verify(&number, "<answer>1</answer>").unwrap().passed());
        assert!(!verifier.verify(&text, "<answer>1</answer>").unwrap().passed());
    }
}

#[test]
fn schemas_that_cannot_be_used_are_errors() {
    for (info, expected) in [
        (json!({}), "no `info.schema`"),
        (json!({"schema": "{"}), "not JSON"),
        (json!({"schema": {"type": "objekt"}}), "cannot be compiled"),
        (json!({"schema": {"$ref": "https://example.com/schema.json"}}), "only lead to the schema itself"),
        (json!({"schema": {"$ref": "file:///etc/passwd"}}), "only lead to the schema itself"),
        (json!({"schema": {"pattern": "(a)\\1"}}), "cannot be compiled"),
    ] {
        let error = verifier(KIND).verify(&example("", info), "<answer>1</answer>").unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("`row-9`"), "{error}");
    }
    for options in [
        JsonSchemaOptions { schema: Some(json!({"minimum": "x"})), ..Default::default() },
        JsonSchemaOptions { max_depth: 1000, ..Default::default() },
        JsonSchemaOptions { max_bytes: 0, ..Default::default() },
    ] {
        assert!(JsonSchema::new("shape", &options).unwrap_err().to_string().contains("shape"));
    }
}

#[test]
fn patterns_run_in_linear_time() {
    let evil = example("", json!({"schema": {"pattern": "^(a+)+$"}}));
    let start = std::time::Instant::now();
    let text = format!("<answer>\"{}!\"</answer>", "a".repeat(60_000));
    assert!(!verifier(KIND).verify(&evil, &text).unwrap().passed());
    assert!(start.elapsed().as_millis() < 1000);
}
