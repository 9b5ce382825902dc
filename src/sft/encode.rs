//! From a row with its completion to tokens, and which of them are learned.

use anyhow::Result;
use reckon_datasets::Example;
use tokenizers::Tokenizer;

use super::SftSample;
use crate::config::{Learn, PromptConfig};
use crate::model::ModelFolder;
use crate::prompt::{EndOfTurn, Piece, Template, encode_completion};

/// What turns the rows of a source into samples.
pub(super) struct Encoder {
    template: Template,
    tokenizer: Tokenizer,
    /// Ends each completion.
    end: End,
    learn: Learn,
}

/// What a completion is taught to end with.
enum End {
    /// What the template writes behind the assistant's words.
    Turn(EndOfTurn),
    /// The model's own end of a text, where the template has none.
    Text(Option<u32>),
}

impl Encoder {
    /// For prompts as `prompt` says, in the tokens of the model in `folder`.
    pub(super) fn new<W>(prompt: &PromptConfig, learn: Learn, folder: &ModelFolder<W>) -> Result<Self> {
        let template = Template::new(prompt, &folder.companions)?;
        let end = match template.end_of_turn(&folder.tokenizer) {
            Some(end) => End::Turn(end),
            None => End::Text(folder.config.eos_token_id.first().copied()),
        };
        Ok(Self { template, tokenizer: folder.tokenizer.clone(), end, learn })
    }

    /// The token that ends the assistant's turn, where the template has one.
    pub(super) fn end_token(&self) -> Option<u32> {
        self.end_of_turn().map(|end| end.token)
    }

    fn end_of_turn(&self) -> Option<&EndOfTurn> {
        match &self.end {
            End::Turn(end) => Some(end),
            End::Text(_) => None,
        }
    }

    /// The samples of a row: one, or one for each turn of a conversation that cannot be read in one piece.
    pub(super) fn encode(&self, example: &Example, completion: &str) -> Result<Vec<SftSample>> {
        let Some(mut samples) = self.template.turns(example, completion, self.end_of_turn())? else {
            return Ok(vec![self.pair(example, completion)?]);
        };
        if self.learn == Learn::Last {
            samples.drain(..samples.len().saturating_sub(1));
        }
        samples.iter().map(|pieces| self.conversation(pieces)).collect()
    }

    /// A prompt and a text. They are tokens apart, as they are in sampling.
    fn pair(&self, example: &Example, completion: &str) -> Result<SftSample> {
        let rendered = self.template.render(example)?;
        let mut tokens = self.template.encode(&self.tokenizer, rendered.before(completion))?;
        let trained_from = if self.learn == Learn::All { 1 } else { tokens.len() };
        match &self.end {
            End::Turn(end) => tokens.extend(encode_completion(&self.tokenizer, &(completion.to_owned() + &end.text))?),
            End::Text(end) => {
                tokens.extend(encode_completion(&self.tokenizer, completion)?);
                tokens.extend(end);
            }
        }
        Ok(SftSample::completion(tokens, trained_from))
    }

    fn conversation(&self, pieces: &[Piece]) -> Result<SftSample> {
        let (mut tokens, mut trained) = (Vec::new(), Vec::new());
        for piece in pieces {
            let start = tokens.len();
            tokens.extend(match start {
                0 => self.template.encode(&self.tokenizer, &piece.text)?,
                _ => encode_completion(&self.tokenizer, &piece.text)?,
            });
            if piece.spoken || self.learn == Learn::All {
                trained.push(start..tokens.len());
            }
        }
        if self.learn == Learn::Last {
            trained.drain(..trained.len().saturating_sub(1));
        }
        Ok(SftSample { tokens, trained })
    }
}
