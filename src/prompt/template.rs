//! From an example to the text of a prompt: the named templates, those of a config, and the model's own for chats.
//! Tokens are left to the caller.

use anyhow::{Context, Result, bail, ensure};
use reckon_datasets::Example;
use serde_json::{Value, json};
use tokenizers::Tokenizer;

use super::chat::Chat;
use super::messages::Messages;
use super::rendered::Rendered;
use super::tokens::{Beginning, EndOfTurn};
use crate::config::PromptConfig;
use crate::model::Companions;

/// A template that goes by a name: frame, the user's words, the start of the completion, and what ends it.
struct Named {
    name: &'static str,
    frame: &'static str,
    user: &'static str,
    system: &'static str,
    prefill: &'static str,
    end: &'static str,
}

const NAMED: [Named; 4] = [
    Named { name: "plain", frame: "{question}", user: "{question}", system: "", prefill: "", end: "" },
    // Table 1 of DeepSeek-R1 (arXiv:2501.12948).
    Named {
        name: "r1",
        frame: "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The \
                assistant first thinks about the reasoning process in the mind and then provides the user with the \
                answer. The reasoning process and answer are enclosed within <think> </think> and <answer> </answer> \
                tags, respectively, i.e., <think> reasoning process here </think> <answer> answer here </answer>. \
                User: {question}. Assistant:",
        user: "{question}",
        system: "",
        prefill: "",
        end: "",
    },
    // The structure of TinyZero's prompt for base models, in words that say what the verifier checks: every number once.
    Named {
        name: "tinyzero",
        frame: "A conversation between User and Assistant. The User asks a question, and the Assistant solves it. The \
                Assistant first thinks about it and then gives the User the answer.\nUser: {question}\nAssistant: ",
        user: "Combine the numbers {numbers} into an expression that equals {target}. Use the operations +, -, * and / \
               and each number exactly once. Think in <think> </think> tags, then give the expression in <answer> \
               </answer> tags, for example <answer>(1 + 2) / 3</answer>.",
        system: "",
        prefill: "Let me solve this step by step.\n<think>",
        end: "",
    },
    // The system line that the model card of Qwen2.5-Math gives, in Qwen's chat format.
    Named {
        name: "qwen-math",
        frame: "<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{question}<|im_end|>\n\
                <|im_start|>assistant\n",
        user: "{question}",
        system: "Please reason step by step, and put your final answer within \\boxed{}.",
        prefill: "",
        end: "<|im_end|>",
    },
];

/// What stands around the user's words.
#[derive(Debug)]
enum Frame {
    /// A text with `{question}`.
    Text(String),
    /// The model's chat template.
    Chat(Box<Chat>),
}

/// What turns examples into prompts.
#[derive(Debug)]
pub struct Template {
    frame: Frame,
    user: String,
    system: Option<String>,
    /// Of a named template, where neither config nor example has one.
    default_system: &'static str,
    prefill: String,
    /// What a named template writes behind the assistant's words.
    end: &'static str,
    beginning: Beginning,
}

impl Template {
    /// The template that a config describes; refuses one that would lose what it is given. A chat template is looked
    /// for in the model's `companions`.
    pub fn new(config: &PromptConfig, companions: &Companions) -> Result<Self> {
        let wanted = config.template.as_deref().unwrap_or("plain");
        let named = NAMED.iter().find(|named| named.name == wanted);
        let frame = match named {
            _ if config.is_chat() => Frame::Chat(Box::new(Chat::new(config, companions)?)),
            Some(named) => Frame::Text(named.frame.to_owned()),
            None if wanted.contains("{question}") => Frame::Text(wanted.to_owned()),
            None => {
                let names: Vec<&str> = NAMED.iter().map(|named| named.name).collect();
                bail!(
                    "prompt.template = \"{wanted}\" is neither {}, one of {} nor a text with {{question}} in it",
                    PromptConfig::CHAT,
                    names.join(", ")
                )
            }
        };
        if let Frame::Text(frame) = &frame {
            ensure!(
                config.system.is_none() || frame.contains("{system}"),
                "prompt.system is set, but template \"{wanted}\" has no place for it: put {{system}} into a template of \
                 your own"
            );
            ensure!(config.variables.is_empty(), "prompt.variables are read by prompt.template = \"chat\" alone");
        }
        let or_default = |given: &Option<String>, default: fn(&Named) -> &'static str, other: &'static str| {
            given.clone().unwrap_or_else(|| named.map_or(other, default).to_owned())
        };
        Ok(Self {
            frame,
            user: or_default(&config.user, |named| named.user, "{question}"),
            system: config.system.clone(),
            default_system: named.map_or("", |named| named.system),
            prefill: or_default(&config.prefill, |named| named.prefill, ""),
            end: named.map_or("", |named| named.end),
            beginning: Beginning::of(companions)?,
        })
    }

    /// The start of every completion.
    pub fn prefill(&self) -> &str {
        &self.prefill
    }

    /// A rendered prompt to tokens, with the one that every text of this model begins with, once.
    pub fn encode(&self, tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
        self.beginning.encode(tokenizer, text)
    }

    /// How the assistant's turn ends, where the template ends it with a special token.
    pub fn end_of_turn(&self, tokenizer: &Tokenizer) -> Option<EndOfTurn> {
        match &self.frame {
            Frame::Text(_) => EndOfTurn::of(tokenizer, self.end),
            Frame::Chat(chat) => EndOfTurn::of(tokenizer, &chat.behind_a_turn()?),
        }
    }

    /// What the model's chat template puts around an answer of a tool.
    pub fn around_an_answer(&self, tokenizer: &Tokenizer) -> Result<[String; 2]> {
        let chat = self.chat().context("environment.format = \"chat\" needs prompt.template = \"chat\"")?;
        let end = self.end_of_turn(tokenizer);
        let around = end.and_then(|end| chat.around_an_answer(&end.text));
        around.context(
            "environment.format = \"chat\", but the model's template does not write answers of tools: take \"tags\"",
        )
    }

    /// The prompt of an example, without the prefilled start.
    pub fn render(&self, example: &Example) -> Result<Rendered> {
        let user = self.user_words(example)?;
        let messages = Messages::of(example).with_context(|| format!("the prompt of example {}", example.id))?;
        let opening = messages.opening();
        ensure!(
            opening.is_empty() || self.prefill.is_empty(),
            "example {} begins the assistant's turn with {opening:?}, and the prompt's prefill with {:?}: only one of \
             them can (prompt.prefill = \"\" takes the row's)",
            example.id,
            self.prefill
        );
        match &self.frame {
            Frame::Text(frame) => self.render_text(frame, example, &user, &messages),
            Frame::Chat(chat) => {
                chat.render(example, messages, &user).with_context(|| format!("the prompt of example {}", example.id))
            }
        }
    }

    /// The model's chat template, if it is the one that writes the prompts.
    pub(super) fn chat(&self) -> Option<&Chat> {
        match &self.frame {
            Frame::Text(_) => None,
            Frame::Chat(chat) => Some(chat),
        }
    }

    /// What the user says in the prompt of an example.
    pub(super) fn user_words(&self, example: &Example) -> Result<String> {
        fill(&self.user, &example.id, &|name| match name {
            "question" => Some(example.question.clone()),
            "answer" => None,
            _ => example.info.get(name).map(shown),
        })
    }

    /// The example as the model is asked it: with the system line of the config in place of its own.
    pub(super) fn told(&self, mut example: Example) -> Example {
        if let Some(system) = &self.system {
            let own = usize::from(example.messages.first().is_some_and(|first| first["role"] == "system"));
            example.messages.splice(..own, [json!({ "role": "system", "content": system })]);
        }
        example
    }

    fn render_text(&self, frame: &str, example: &Example, user: &str, messages: &Messages) -> Result<Rendered> {
        let told = match &messages.asked[..] {
            [first, _] if first.role == "system" => first.text(),
            [] | [_] => None,
            more => bail!(
                "example {} is a conversation of {} messages: this template has room for a system line and one question",
                example.id,
                more.len()
            ),
        };
        let system = self.system.as_deref().or(told).unwrap_or(self.default_system);
        let text = fill(frame, &example.id, &|name| match name {
            "question" => Some(user.to_owned()),
            "system" => Some(system.to_owned()),
            "answer" => None,
            _ => example.info.get(name).map(shown),
        })?;
        Rendered::new(text + messages.opening(), messages.opening())
    }
}

/// A value in a sentence: texts as they are, lists as `[1, 2]`.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

/// Puts values in place of `{name}`. Doubled braces are single ones; braces around no name, as in `\boxed{}`, stay.
fn fill(template: &str, id: &str, value: &dyn Fn(&str) -> Option<String>) -> Result<String> {
    let mut text = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(at) = rest.find(['{', '}']) {
        text += &rest[..at];
        rest = &rest[at..];
        let name = rest.strip_prefix('{').and_then(|inner| inner.split_once('}')).map(|(name, _)| name);
        if let Some(brace) = ["{{", "}}"].iter().find(|brace| rest.starts_with(**brace)) {
            text += &brace[..1];
            rest = &rest[2..];
        } else if let Some(name) = name.filter(|name| is_name(name)) {
            let Some(value) = value(name) else {
                bail!("the prompt names {{{name}}}, which example {id} does not have: write {{{{{name}}}}} for braces");
            };
            text += &value;
            rest = &rest[name.len() + 2..];
        } else {
            text += &rest[..1];
            rest = &rest[1..];
        }
    }
    Ok(text + rest)
}

fn is_name(text: &str) -> bool {
    let mut letters = text.chars();
    letters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && letters.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn example(info: Value) -> Example {
        let messages = info["messages"].as_array().cloned().unwrap_or_default();
        let info = info.as_object().cloned().unwrap_or_default();
        Example { id: "e".into(), question: "1+{1}?".into(), answer: "2".into(), messages, info }
    }

    fn config(template: &str) -> PromptConfig {
        PromptConfig { template: Some(template.into()), ..PromptConfig::default() }
    }

    fn render(config: &PromptConfig, info: Value) -> Result<String> {
        Template::new(config, &Companions::default())?.render(&example(info)).map(|rendered| rendered.text)
    }

    #[test]
    fn the_named_templates_frame_the_question() {
        let numbers = json!({"numbers": [3, 4, 5], "target": 17});
        for (name, parts, prefill) in [
            ("plain", vec!["1+{1}?"], ""),
            ("r1", vec!["<think> reasoning process here </think>", "User: 1+{1}?. Assistant:"], ""),
            (
                "tinyzero",
                vec!["numbers [3, 4, 5] into", "equals 17.", "\nAssistant: "],
                "Let me solve this step by step.\n<think>",
            ),
            (
                "qwen-math",
                vec!["within \\boxed{}.<|im_end|>\n<|im_start|>user\n1+{1}?<|im_end|>\n<|im_start|>assistant\n"],
                "",
            ),
        ] {
            let text = render(&config(name), numbers.clone()).unwrap();
            assert!(parts.iter().all(|part| text.contains(part)), "{name}: {text}");
            assert_eq!(Template::new(&config(name), &Companions::default()).unwrap().prefill(), prefill);
        }
    }

    #[test]
    fn values_are_put_in_once_and_other_braces_stay() {
        for (template, expected) in [
            ("{question} ", "1+{1}? "),
            ("{{question}} {question} \\boxed{}{ x } {a", "{question} 1+{1}? \\boxed{}{ x } {a"),
            ("{level}: {question}", "{question}: 1+{1}?"),
        ] {
            assert_eq!(render(&config(template), json!({"level": "{question}"})).unwrap(), expected);
        }
    }

    #[test]
    fn a_system_line_comes_from_config_data_or_template_in_this_order() {
        let told = json!({"messages": [{"role": "system", "content": "Data."}, {"role": "user", "content": "x"}]});
        let own = PromptConfig { system: Some("Own.".into()), ..config("qwen-math") };
        assert!(render(&own, told.clone()).unwrap().contains("system\nOwn.<"));
        assert!(render(&config("qwen-math"), told).unwrap().contains("system\nData.<"));
        assert!(render(&config("qwen-math"), json!({})).unwrap().contains("system\nPlease reason"));
    }

    #[test]
    fn verifiers_are_told_the_system_line_of_the_config() {
        let turn = |role: &str, content: &str| json!({"role": role, "content": content});
        let own = PromptConfig { system: Some("Own.".into()), ..config("qwen-math") };
        let template = |config: &PromptConfig| Template::new(config, &Companions::default()).unwrap();
        let data = json!({"messages": [turn("system", "Data."), turn("user", "x")]});
        for (template, info, expected) in [
            (template(&own), data.clone(), vec![turn("system", "Own."), turn("user", "x")]),
            (template(&own), json!({"messages": [turn("user", "x")]}), vec![turn("system", "Own."), turn("user", "x")]),
            (template(&own), json!({}), vec![turn("system", "Own.")]),
            (template(&config("qwen-math")), data, vec![turn("system", "Data."), turn("user", "x")]),
            (template(&config("qwen-math")), json!({}), vec![]),
        ] {
            assert_eq!(template.told(example(info)).messages, expected);
        }
    }

    #[test]
    fn what_would_be_lost_is_refused() {
        let turn = |role: &str| json!({"role": role, "content": "x"});
        let long = json!({"messages": [turn("user"), turn("assistant"), turn("user")]});
        let system = PromptConfig { system: Some("x".into()), ..config("r1") };
        let answer = PromptConfig { user: Some("{answer}".into()), ..config("r1") };
        for (config, info, expected) in [
            (config("r2"), json!({}), "\"r2\" is neither chat, one of plain, r1, tinyzero, qwen-math nor a text"),
            (system, json!({}), "has no place for it"),
            (config("{question}{levle}"), json!({"level": 1}), "names {levle}, which example e does not have"),
            (config("plain"), long, "conversation of 3 messages"),
            (answer, json!({}), "names {answer}"),
        ] {
            let message = render(&config, info).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
