//! A whole conversation as a chat template writes it, with the words of the assistant marked: what supervised training
//! learns from rows of several turns. Prompts, whose last turn is still to come, are left to [`Template::render`].

use anyhow::{Context, Result, ensure};
use reckon_datasets::Example;
use serde_json::{Value, json};

use super::chat::Chat;
use super::jinja::Message;
use super::messages;
use super::rendered::Rendered;
use super::template::Template;
use super::tokens::EndOfTurn;

/// A part of a conversation's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// As the template writes it.
    pub text: String,
    /// Whether the assistant says it, the end of the turn included.
    pub spoken: bool,
}

/// The messages of a row from the end of its prompt on, where they are more than one text: several turns, or one with
/// thoughts or calls of functions apart.
fn behind_the_prompt(example: &Example, completion: &str) -> Option<Vec<Value>> {
    let column = |name: &str| example.info.get(name).and_then(Value::as_array);
    let said = |messages: &[Value]| messages.last().is_some_and(|last| last["role"] == "assistant");
    let prompt = !example.messages.is_empty();
    let whole = column("messages").filter(|all| prompt && said(all)).and_then(|all| all.get(example.messages.len()..));
    let behind = whole.or_else(|| column("completion").map(Vec::as_slice).filter(|all| said(all)));
    let apart = |message: &Value| {
        let keys = ["tool_calls", "reasoning_content", "thinking", "reasoning"];
        keys.iter().any(|key| message.get(*key).is_some_and(|value| !value.is_null()))
    };
    let several = example.messages.iter().any(|message| message["role"] == "assistant");
    match behind {
        Some(behind) if several || behind.len() > 1 || behind.iter().any(apart) => Some(behind.to_vec()),
        None if several => Some(vec![json!({ "role": "assistant", "content": completion })]),
        _ => None,
    }
}

impl Template {
    /// The conversation of a row whose last word is `completion`, for every sample that is to be made of it: one, or one for
    /// each turn of the assistant where the template does not write a turn again as it wrote it when it was last, as those
    /// do that leave earlier thoughts out. `None` for a row that is a prompt and a text.
    pub fn turns(
        &self,
        example: &Example,
        completion: &str,
        end: Option<&EndOfTurn>,
    ) -> Result<Option<Vec<Vec<Piece>>>> {
        let Some(chat) = self.chat() else { return Ok(None) };
        let Some(behind) = behind_the_prompt(example, completion) else { return Ok(None) };
        let asked = messages::read(example, &example.messages)?;
        let mut turns = chat.told(asked, &self.user_words(example)?);
        turns.extend(messages::read(example, &behind)?);
        let written = Written { chat, example, turns: &turns, end };
        written.samples().map(Some).with_context(|| format!("the conversation of example {}", example.id))
    }
}

/// A conversation and what writes it.
struct Written<'a> {
    chat: &'a Chat,
    example: &'a Example,
    turns: &'a [Message],
    end: Option<&'a EndOfTurn>,
}

impl Written<'_> {
    fn samples(&self) -> Result<Vec<Vec<Piece>>> {
        let spoken = (0..self.turns.len()).filter(|&turn| self.turns[turn].role == "assistant");
        let turns = spoken.map(|turn| self.turn(turn)).collect::<Result<Vec<_>>>()?;
        let Some((last_before, last_words)) = turns.last() else { return Ok(Vec::new()) };
        let whole = [last_before.as_str(), last_words].concat();
        let again = |(before, words): &(String, String)| {
            whole.strip_prefix(before.as_str()).is_some_and(|rest| rest.starts_with(words.as_str()))
        };
        let samples = if turns.iter().all(again) {
            vec![together(&whole, turns.iter().map(|(before, words)| before.len()..before.len() + words.len()))]
        } else {
            let alone = |(before, words): &(String, String)| {
                let range = before.len()..before.len() + words.len();
                together(&[before.as_str(), words].concat(), [range].into_iter())
            };
            turns.iter().map(alone).collect()
        };
        Ok(samples)
    }

    /// What stands before the words of a turn, and the words with what ends them.
    fn turn(&self, turn: usize) -> Result<(String, String)> {
        let before = self.chat.written(self.example, &self.turns[..turn], true)?;
        let through = self.chat.written(self.example, &self.turns[..=turn], false)?;
        let rendered = Rendered::new(before, "")?;
        // A template that opens a thought when it asks for one may write another one when it is there.
        let before = [rendered.text.as_str(), rendered.without_opening()].into_iter().find(|b| through.starts_with(b));
        ensure!(
            before.is_some(),
            "the template does not write the assistant's turn {turn} behind what it asks for one with: take rows of \
             single turns, or another template"
        );
        let (before, words) = through.split_at(before.unwrap_or_default().len());
        let end = self.end.and_then(|end| Some(words.rfind(&end.text)? + end.text.len()));
        Ok((before.to_owned(), words[..end.unwrap_or(words.len())].to_owned()))
    }
}

/// A text cut at the words of the assistant.
fn together(text: &str, spoken: impl Iterator<Item = std::ops::Range<usize>>) -> Vec<Piece> {
    let (mut pieces, mut at) = (Vec::new(), 0);
    for range in spoken {
        pieces.push(Piece { text: text[at..range.start].to_owned(), spoken: false });
        pieces.push(Piece { text: text[range.clone()].to_owned(), spoken: true });
        at = range.end;
    }
    pieces.retain(|piece| !piece.text.is_empty());
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PromptConfig;
    use crate::model::Companions;

    fn turns(template: &str, info: Value, kept: usize) -> Result<Option<Vec<Vec<Piece>>>> {
        let files = vec![("chat_template.jinja".to_owned(), template.as_bytes().to_vec())];
        let companions = Companions { files, ..Companions::default() };
        let config = PromptConfig { template: Some("chat".into()), ..PromptConfig::default() };
        let messages = info["messages"].as_array().unwrap()[..kept].to_vec();
        let question = messages.iter().rfind(|m| m["role"] == "user").unwrap()["content"].as_str().unwrap().to_owned();
        let info = info.as_object().cloned().unwrap();
        let example = Example { id: "e".into(), question, answer: "b".into(), messages, info };
        let end = EndOfTurn { text: "</s>".into(), token: 1 };
        Template::new(&config, &companions)?.turns(&example, "b", Some(&end))
    }

    fn told(samples: &[Vec<Piece>]) -> Vec<String> {
        let mark = |piece: &Piece| if piece.spoken { format!("[{}]", piece.text) } else { piece.text.clone() };
        samples.iter().map(|pieces| pieces.iter().map(mark).collect()).collect()
    }

    const PLAIN: &str = "{% for m in messages %}<{{ m.role }}>{{ m.reasoning_content or '' }}{{ m.content }}</s>\n\
        {% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";
    const FORGETS: &str = "{% for m in messages %}<{{ m.role }}>{{ m.content.split('</think>')[-1] if not loop.last \
        else m.content }}</s>\n{% endfor %}{% if add_generation_prompt %}<assistant><think>\n{% endif %}";

    #[test]
    fn every_turn_of_the_assistant_is_marked_with_its_end() {
        let turn = |role: &str, content: &str| json!({ "role": role, "content": content });
        let two = json!({ "messages": [turn("user", "1"), turn("assistant", "a"), turn("user", "2"),
            turn("assistant", "b")] });
        let thoughtful = json!({ "messages": [turn("user", "1"),
            { "role": "assistant", "content": "b", "reasoning_content": "so " }] });
        let thoughts = json!({ "messages": [turn("user", "1"), turn("assistant", "<think>\nx</think>a"),
            turn("user", "2"), turn("assistant", "<think>\ny</think>b")] });
        for (template, info, kept, expected) in [
            (PLAIN, &two, 3, vec!["<user>1</s>\n<assistant>[a</s>]\n<user>2</s>\n<assistant>[b</s>]"]),
            (PLAIN, &thoughtful, 1, vec!["<user>1</s>\n<assistant>[so b</s>]"]),
            (
                FORGETS,
                &thoughts,
                3,
                vec![
                    "<user>1</s>\n<assistant><think>\n[x</think>a</s>]",
                    "<user>1</s>\n<assistant>a</s>\n<user>2</s>\n<assistant><think>\n[y</think>b</s>]",
                ],
            ),
        ] {
            assert_eq!(told(&turns(template, info.clone(), kept).unwrap().unwrap()), expected);
        }
        let one = json!({ "messages": [turn("user", "1"), turn("assistant", "b")] });
        assert_eq!(turns(PLAIN, one, 1).unwrap(), None, "a prompt and a text");
    }

    #[test]
    fn a_template_that_goes_back_on_what_it_asked_with_is_refused() {
        let backwards = "{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}?{% endif %}";
        let turn = |role: &str, content: &str| json!({ "role": role, "content": content });
        let two = json!({ "messages": [turn("user", "1"), turn("assistant", "a"), turn("user", "2"),
            turn("assistant", "b")] });
        let message = format!("{:#}", turns(backwards, two, 3).unwrap_err());
        assert!(message.contains("example e") && message.contains("turn 1"), "{message}");
    }
}
