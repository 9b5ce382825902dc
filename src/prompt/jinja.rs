//! Chat templates: a conversation to the text that a model was trained on, by the Jinja template beside its tokenizer.
//!
//! Rendered as transformers renders: Jinja's blocks trimmed, Python's string methods, Python's spelling of values, and
//! the functions `raise_exception`, `strftime_now` and `tojson`. Which conversation to render is left to the caller.

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use minijinja::value::Value;
use minijinja::{Environment, Error, ErrorKind};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::model::Companions;

/// A turn of a conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant` or `tool`.
    pub role: String,
    /// What is said: a text, parts, or `null` where functions are called.
    #[serde(default, skip_serializing_if = "Value::is_undefined")]
    pub content: Value,
    /// Whatever else a template may look at, such as `tool_calls` or `reasoning_content`.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

impl Message {
    /// A turn of plain text.
    pub fn new(role: &str, content: &str) -> Self {
        Self { role: role.to_owned(), content: content.into(), other: BTreeMap::new() }
    }

    /// As templates read it: thoughts under every name that they go by.
    fn with_thoughts(&self) -> Self {
        let mut message = self.clone();
        let thoughts = ["reasoning_content", "thinking", "reasoning"];
        let given = thoughts.iter().filter_map(|name| self.other.get(*name)).find(|thought| !thought.is_none());
        if let Some(thought) = given {
            message.other.entry("thinking".to_owned()).or_insert_with(|| thought.clone());
            message.other.insert("reasoning_content".to_owned(), thought.clone());
        }
        message
    }

    /// What is said, where it is a text.
    pub fn text(&self) -> Option<&str> {
        self.content.as_str()
    }
}

/// What a template is rendered with. Objects keep their keys in the order in which they were read.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Conversation {
    /// The turns so far.
    pub messages: Vec<Message>,
    /// Descriptions of functions that the model may call.
    pub tools: Option<Value>,
    /// Whether the beginning of the assistant's next turn is appended.
    pub add_generation_prompt: bool,
    /// Variables of a model's own, such as `enable_thinking`.
    pub variables: BTreeMap<String, Value>,
}

/// A compiled chat template with the special tokens that it may write.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    special_tokens: BTreeMap<String, Value>,
}

const NAME: &str = "chat template";

impl ChatTemplate {
    /// The template of a model folder, from `chat_template.jinja` or `tokenizer_config.json`; `None` if it has none.
    pub fn of(companions: &Companions) -> Result<Option<Self>> {
        let config: serde_json::Map<String, Json> = match companions.file("tokenizer_config.json") {
            Some(bytes) => serde_json::from_slice(bytes).context("tokenizer_config.json")?,
            None => Default::default(),
        };
        let source = match companions.file("chat_template.jinja") {
            Some(bytes) => Some(String::from_utf8(bytes.to_vec()).context("chat_template.jinja")?),
            None => config.get("chat_template").and_then(named_default),
        };
        source.map(|source| Self::new(&source, special_tokens(&config))).transpose()
    }

    /// Compiles a template. `special_tokens` become variables, such as `bos_token`.
    ///
    /// ```
    /// use reckon::prompt::jinja::{ChatTemplate, Conversation, Message};
    /// let template = "{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}\n{% endfor %}";
    /// let template = ChatTemplate::new(template, Default::default())?;
    /// let messages = vec![Message::new("user", " hello ")];
    /// assert_eq!(template.render(&Conversation { messages, ..Default::default() })?, "<user>hello\n");
    /// # anyhow::Ok(())
    /// ```
    pub fn new(source: &str, special_tokens: BTreeMap<String, Value>) -> Result<Self> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_filter("tojson", super::json::to_json);
        super::python::spell_values(&mut environment);
        environment.add_function("raise_exception", |message: String| -> Result<String, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_template_owned(NAME, plain_blocks(source)).map_err(explain)?;
        Ok(Self { environment, special_tokens }.dated(jiff::Zoned::now().date()))
    }

    /// The same template on another day than today, for `strftime_now`.
    pub fn dated(mut self, date: Date) -> Self {
        self.environment.add_function("strftime_now", move |format: String| {
            let midnight = date.to_zoned(TimeZone::UTC).map_err(|error| failure(&error))?;
            jiff::fmt::strtime::format(format, &midnight).map_err(|error| failure(&error))
        });
        self
    }

    /// The text of a conversation up to the last word of its last message, whose turn does not end: as transformers
    /// renders with `continue_final_message`.
    pub fn render_unfinished(&self, conversation: &Conversation) -> Result<String> {
        let mut marked = conversation.clone();
        let last = marked.messages.last_mut().context("there is no message to go on from")?;
        let words = last.text().context("the last message has no text to go on from")?.to_owned();
        last.content = (words.clone() + MARK).into();
        marked.add_generation_prompt = false;
        let mut text = self.render(&marked)?;
        let end = text.rfind(MARK.trim_end()).filter(|_| text.contains(words.trim())).with_context(|| {
            format!("the chat template does not write the words of the last message, {words:?}, as they are")
        })?;
        // A template that trims what is said would have trimmed the words too.
        let kept = text[end..].starts_with(MARK);
        text.truncate(if kept { end } else { text[..end].trim_end().len() });
        Ok(text)
    }

    /// The text of a conversation.
    pub fn render(&self, conversation: &Conversation) -> Result<String> {
        let mut variables = self.special_tokens.clone();
        let messages: Vec<Message> = conversation.messages.iter().map(Message::with_thoughts).collect();
        variables.insert("messages".into(), Value::from_serialize(&messages));
        variables.insert("tools".into(), Value::from_serialize(&conversation.tools));
        variables.insert("documents".into(), Value::from(()));
        variables.insert("add_generation_prompt".into(), conversation.add_generation_prompt.into());
        variables.extend(conversation.variables.clone());
        self.environment.get_template(NAME).and_then(|template| template.render(variables)).map_err(explain)
    }
}

/// Stands behind the words that a completion goes on from; no text of a conversation holds it.
const MARK: &str = "\u{e000}\u{e001} ";

/// Blocks `generation` mark the assistant's words and print what is in them: a condition that always holds does the
/// same, and keeps what the tags say about white space.
fn plain_blocks(source: &str) -> String {
    let mut text = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let Some(end) = rest[at..].find("%}").map(|end| at + end) else { break };
        let tag = &rest[at..end];
        let word = tag[2..].trim_matches(['-', '+', ' ', '\n', '\t']);
        text.push_str(&rest[..at]);
        match word {
            "generation" => text.push_str(&tag.replace("generation", "if true")),
            "endgeneration" => text.push_str(&tag.replace("endgeneration", "endif")),
            _ => text.push_str(tag),
        }
        rest = &rest[end..];
    }
    text + rest
}

/// The template itself, or the one called `default` of a list of named ones.
fn named_default(template: &Json) -> Option<String> {
    match template {
        Json::String(source) => Some(source.clone()),
        Json::Array(named) => {
            let default = named.iter().find(|entry| entry["name"] == "default")?;
            default["template"].as_str().map(str::to_owned)
        }
        _ => None,
    }
}

/// `bos_token`, `eos_token` and the like: plain text, or an object with the text as its content.
fn special_tokens(config: &serde_json::Map<String, Json>) -> BTreeMap<String, Value> {
    let text = |value: &Json| value.as_str().or_else(|| value["content"].as_str()).map(str::to_owned);
    let tokens = config.iter().filter(|(name, _)| name.ends_with("_token"));
    tokens.filter_map(|(name, value)| Some((name.clone(), text(value)?.into()))).collect()
}

fn failure(error: &jiff::Error) -> Error {
    Error::new(ErrorKind::InvalidOperation, error.to_string())
}

fn explain(error: Error) -> anyhow::Error {
    let line = error.line().map_or(String::new(), |line| format!(", line {line}"));
    let detail = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    anyhow!("the chat template{line}: {}", detail.lines().collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str) -> Result<String> {
        let messages = vec![Message::new("user", "a"), Message::new("assistant", "b")];
        ChatTemplate::new(source, BTreeMap::new())?.render(&Conversation { messages, ..Conversation::default() })
    }

    #[test]
    fn generation_blocks_print_what_they_mark() {
        let source =
            "{% for m in messages %}\n  {%- generation -%}\n {{ m.content }} {% endgeneration %}\n|{% endfor %}";
        assert_eq!(render(source).unwrap(), "a |b |");
    }

    #[test]
    fn what_fails_names_the_line_and_the_reason() {
        for (source, words) in [
            ("x\n{{ raise_exception('roles must alternate') }}", "line 2: roles must alternate"),
            ("{% for m in messages %}", "line 1"),
            ("\n\n{{ messages[7].content.strip() }}", "line 3"),
            ("{{ no_such_function() }}", "no_such_function"),
        ] {
            let message = render(source).unwrap_err().to_string();
            assert!(message.contains(words) && !message.contains('\n'), "{message}");
        }
    }

    #[test]
    fn a_folder_without_a_template_has_none() {
        assert!(ChatTemplate::of(&Companions::default()).unwrap().is_none());
        let config = br#"{"bos_token": {"content": "<s>"}, "chat_template": [{"name": "default", "template": "{{ bos_token }}"}]}"#;
        let files = vec![("tokenizer_config.json".to_owned(), config.to_vec())];
        let template = ChatTemplate::of(&Companions { files, ..Companions::default() }).unwrap().unwrap();
        assert_eq!(template.render(&Conversation::default()).unwrap(), "<s>");
    }
}
