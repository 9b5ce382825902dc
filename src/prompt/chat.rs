//! Prompts as a model's own chat template writes them: the example's conversation with the user's words, and the
//! beginning of the assistant's turn.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use minijinja::value::Value;
use reckon_datasets::{Example, Plain};

use super::jinja::{ChatTemplate, Conversation, Message};
use super::messages::Messages;
use super::rendered::Rendered;
use crate::config::PromptConfig;
use crate::model::Companions;

/// A chat template with what a config tells it.
#[derive(Debug)]
pub(super) struct Chat {
    template: ChatTemplate,
    system: Option<String>,
    variables: BTreeMap<String, Value>,
}

impl Chat {
    /// The template of the model with these files.
    pub(super) fn new(config: &PromptConfig, companions: &Companions) -> Result<Self> {
        let template = ChatTemplate::of(companions)?.context(
            "prompt.template = \"chat\", but the model has no chat template (chat_template.jinja, or one in \
             tokenizer_config.json): take plain or a text of your own",
        )?;
        let template = match &config.date {
            Some(date) => template.dated(date.parse().with_context(|| format!("prompt.date = {date:?}"))?),
            None => template,
        };
        let variables =
            config.variables.iter().map(|(name, value)| (name.clone(), Value::from_serialize(Plain(value))));
        Ok(Self { template, system: config.system.clone(), variables: variables.collect() })
    }

    /// The conversation of an example, in which the user's last words are `user`. The column `tools` describes functions.
    pub(super) fn render(&self, example: &Example, messages: Messages, user: &str) -> Result<Rendered> {
        let opening = messages.opening().to_owned();
        let Messages { asked, begun } = messages;
        let mut turns = self.told(asked, user);
        turns.extend(begun);
        let text = match opening.as_str() {
            "" => self.written(example, &turns, true)?,
            _ => self.template.render_unfinished(&self.conversation(example, &turns, false))?,
        };
        Rendered::new(text, &opening)
    }

    /// Messages with `user` as the user's last words, and the system's words of the config.
    pub(super) fn told(&self, mut turns: Vec<Message>, user: &str) -> Vec<Message> {
        match turns.iter_mut().rfind(|turn| turn.role == "user") {
            Some(last) => last.content = user.into(),
            None => turns.push(Message::new("user", user)),
        }
        if let Some(system) = &self.system {
            let told = usize::from(turns[0].role == "system");
            turns.splice(..told, [Message::new("system", system)]);
        }
        turns
    }

    /// What the template writes of these messages, up to the beginning of the assistant's next turn if it is `asked` to.
    pub(super) fn written(&self, example: &Example, turns: &[Message], asked: bool) -> Result<String> {
        self.template.render(&self.conversation(example, turns, asked))
    }

    fn conversation(&self, example: &Example, turns: &[Message], asked: bool) -> Conversation {
        Conversation {
            messages: turns.to_vec(),
            tools: example.info.get("tools").and_then(tools),
            add_generation_prompt: asked,
            variables: self.variables.clone(),
        }
    }

    /// What the template puts around an answer of a tool, from behind the text `end`, by which the assistant ends its turn, to
    /// the beginning of its next one; `None` where it has no place for one.
    pub(super) fn around_an_answer(&self, end: &str) -> Option<[String; 2]> {
        const WORDS: &str = "reckon-words";
        const ANSWER: &str = "reckon-answer";
        let roles = [("user", "?"), ("assistant", WORDS), ("tool", ANSWER)];
        let messages = roles.map(|(role, content)| Message::new(role, content)).to_vec();
        let variables = self.variables.clone();
        let conversation = Conversation { messages, variables, add_generation_prompt: true, ..Conversation::default() };
        let text = self.template.render(&conversation).ok()?;
        let (_, behind) = text.split_once(WORDS)?;
        let (before, after) = behind.split_once(ANSWER)?;
        Some([before.split_once(end)?.1.to_owned(), after.to_owned()])
    }

    /// What the template writes behind the words of an assistant who has spoken last; `None` where it refuses to.
    pub(super) fn behind_a_turn(&self) -> Option<String> {
        const WORDS: &str = "reckon-words";
        let messages = vec![Message::new("user", "?"), Message::new("assistant", WORDS)];
        let variables = self.variables.clone();
        let text = self.template.render(&Conversation { messages, variables, ..Conversation::default() }).ok()?;
        text.rsplit_once(WORDS).map(|(_, behind)| behind.to_owned())
    }
}

/// A list of functions, as it is or as JSON text: files whose functions differ from row to row keep them so.
fn tools(column: &serde_json::Value) -> Option<Value> {
    let written = column.as_str().and_then(|text| serde_json::from_str(text).ok());
    let list = written.as_ref().unwrap_or(column);
    list.is_array().then(|| Value::from_serialize(Plain(list)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TEMPLATE: &str = "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}\
        {%- if loud is defined and loud %}!{% endif %}{{ tools | length if tools else '' }}\
        {%- if add_generation_prompt %}<assistant>{% endif %}";

    fn render(template: &str, config: PromptConfig, info: serde_json::Value) -> Result<String> {
        let tokens = json!({ "bos_token": "<s>", "chat_template": template }).to_string();
        let files = vec![("tokenizer_config.json".to_owned(), tokens.into_bytes())];
        let chat = Chat::new(&config, &Companions { files, ..Companions::default() })?;
        let messages = info["messages"].as_array().cloned().unwrap_or_default();
        let info = info.as_object().cloned().unwrap_or_default();
        let example = Example { id: "e".into(), question: "q".into(), answer: "a".into(), messages, info };
        chat.render(&example, Messages::of(&example)?, "words").map(|rendered| rendered.text)
    }

    #[test]
    fn the_users_words_stand_in_the_examples_conversation() {
        let turn = |role: &str, content: &str| json!({ "role": role, "content": content });
        let told = json!({ "messages": [turn("system", "data"), turn("user", "q")] });
        let long = json!({ "messages": [turn("user", "1"), turn("assistant", "2"), turn("user", "q")] });
        let begun = json!({ "messages": [turn("user", "q"), turn("assistant", "It is")] });
        let call = json!({ "role": "assistant", "content": null, "tool_calls": [{}] });
        let called = json!({ "messages": [turn("user", "q"), call, turn("tool", "2")] });
        let system = || PromptConfig { system: Some("own".into()), ..PromptConfig::default() };
        let loud = PromptConfig { variables: [("loud".to_owned(), json!(true))].into(), ..PromptConfig::default() };
        for (config, info, expected) in [
            (PromptConfig::default(), json!({}), "<s><user>words<assistant>"),
            (PromptConfig::default(), told.clone(), "<s><system>data<user>words<assistant>"),
            (PromptConfig::default(), long.clone(), "<s><user>1<assistant>2<user>words<assistant>"),
            (system(), told, "<s><system>own<user>words<assistant>"),
            (system(), long, "<s><system>own<user>1<assistant>2<user>words<assistant>"),
            (PromptConfig::default(), begun, "<s><user>words<assistant>It is"),
            (PromptConfig::default(), called, "<s><user>words<assistant>None<tool>2<assistant>"),
            (loud, json!({ "tools": [{}, {}] }), "<s><user>words!2<assistant>"),
            (PromptConfig::default(), json!({ "tools": "[{}, {}, {}]" }), "<s><user>words3<assistant>"),
            (PromptConfig::default(), json!({ "tools": "none" }), "<s><user>words<assistant>"),
        ] {
            assert_eq!(render(TEMPLATE, config, info).unwrap(), expected);
        }
    }

    #[test]
    fn an_answer_of_a_tool_stands_between_the_turns_of_the_assistant() {
        let around = |template: &str| {
            let files = vec![("chat_template.jinja".to_owned(), template.as_bytes().to_vec())];
            let companions = Companions { files, ..Companions::default() };
            Chat::new(&PromptConfig::default(), &companions).unwrap().around_an_answer("</s>")
        };
        let turns = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>\n{% endfor %}\
            {% if add_generation_prompt %}<assistant>{% endif %}";
        assert_eq!(around(turns), Some(["\n<tool>", "</s>\n<assistant>"].map(String::from)));
        // A template without a place for tools, one that refuses them, and one whose turns do not end.
        assert_eq!(around("{% for m in messages if m.role != 'tool' %}{{ m.content }}</s>{% endfor %}"), None);
        assert_eq!(around("{{ raise_exception('no tools') }}"), None);
        assert_eq!(around("{% for m in messages %}{{ m.content }}{% endfor %}"), None);
    }

    #[test]
    fn a_template_that_refuses_the_conversation_says_why_in_one_line() {
        let refusing = "{{ raise_exception('no system\\nplease') }}";
        let message = format!("{:#}", render(refusing, PromptConfig::default(), json!({})).unwrap_err());
        assert!(message.contains("line 1: no system please"), "{message}");
    }
}
