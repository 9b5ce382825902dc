//! The conversation of an example: what was said so far, and the words that the assistant's turn begins with, if the
//! last message is the assistant's. How it is written is left to the templates.

use anyhow::{Context, Result};
use minijinja::value::Value;
use reckon_datasets::{Example, Plain};
use serde::Deserialize;

use super::jinja::Message;

/// The messages of a prompt.
#[derive(Debug)]
pub(super) struct Messages {
    /// Up to the assistant's turn.
    pub(super) asked: Vec<Message>,
    /// The last message, where it is the assistant's and says something: the completion goes on from it.
    pub(super) begun: Option<Message>,
}

impl Messages {
    /// Those of an example; none where it is a question alone.
    pub(super) fn of(example: &Example) -> Result<Self> {
        let mut asked = read(example, &example.messages)?;
        let begun = asked.pop_if(|last| last.role == "assistant" && !last.other.contains_key("tool_calls"));
        Ok(Self { asked, begun: begun.filter(|message| message.text().is_some_and(|text| !text.trim().is_empty())) })
    }

    /// The words that the assistant's turn begins with.
    pub(super) fn opening(&self) -> &str {
        self.begun.as_ref().and_then(Message::text).unwrap_or_default()
    }
}

/// Messages of an example, as templates take them.
pub(super) fn read(example: &Example, messages: &[serde_json::Value]) -> Result<Vec<Message>> {
    let message = |message| Message::deserialize(Value::from_serialize(Plain(message)));
    let read = messages.iter().map(message).collect::<Result<_, _>>();
    read.with_context(|| format!("the messages of example {}", example.id))
}
