//! The `[environment]` table: what completions may call between their turns, and how calls are written.

use anyhow::{Error, Result, bail, ensure};
use reckon_datasets::Range::AtLeast;
use reckon_datasets::{Table, table};
use reckon_rewards::{RubricConfig, ToolOptions, VerifierConfig};
use serde::{Deserialize, Serialize};

/// The words of the key `format`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolFormat {
    /// Between the texts of `call` and `answer`.
    #[default]
    Tags,
    /// As the model's chat template writes the answers of tools.
    Chat,
}

table! {
    /// What completions may call between their turns, which makes several of one; `docs/tools.md` has examples.
    pub struct EnvironmentConfig {
        /// The tools, each a table with a `kind` (`calculator`, `python`, `command`, `function`, `openenv`) and that kind's keys,
        /// which are in `rewards/README.md`.
        pub tools: Vec<ToolOptions>,
        /// Whether calls stand between the texts of `call` and are answered between those of `answer` at once (`tags`), or
        /// the assistant ends its turn behind them and the model's chat template writes the answer (`chat`).
        #[serde(default)]
        pub format: ToolFormat,
        /// What a call stands between; `<tool>` and `</tool>` when absent, `<tool_call>` and `</tool_call>` for chats.
        pub call: Option<[String; 2]>,
        /// What an answer is put between; `<result>` and `</result>` when absent. A chat template has its own.
        pub answer: Option<[String; 2]>,
        /// Most calls of a completion; one more ends it, as the limit of tokens does.
        #[serde(default = "max_calls")]
        pub max_calls: usize => AtLeast(1.0),
        /// Most tokens of an answer; the rest is cut off. All of a completion, its answers included, has room in
        /// `rollout.max_new_tokens`.
        #[serde(default = "max_answer_tokens")]
        pub max_answer_tokens: usize => AtLeast(1.0),
        /// Calls answered at a time; 0 for one a core.
        #[serde(default)]
        pub workers: usize,
    }
}

fn max_calls() -> usize {
    8
}

fn max_answer_tokens() -> usize {
    256
}

impl EnvironmentConfig {
    /// Refuses a value out of its range, and texts by which nothing can be told apart.
    pub fn validate(&self) -> Result<()> {
        self.check("environment.").map_err(Error::msg)?;
        ensure!(!self.tools.is_empty(), "environment.tools is empty: give [[environment.tools]], or remove the table");
        ensure!(
            self.format == ToolFormat::Tags || self.answer.is_none(),
            "environment.answer is set beside format = \"chat\", whose template writes the answers: remove one of them"
        );
        let call = self.call();
        ensure!(
            call.iter().all(|text| !text.is_empty()) && call[0] != call[1],
            "environment.call = {call:?}: a call stands between two different texts"
        );
        Ok(())
    }

    /// What a call stands between.
    pub fn call(&self) -> [String; 2] {
        let default = match self.format {
            ToolFormat::Tags => ["<tool>", "</tool>"],
            ToolFormat::Chat => ["<tool_call>", "</tool_call>"],
        };
        self.call.clone().unwrap_or_else(|| default.map(String::from))
    }
}

/// Refuses a rubric that counts on rewards of tools where none gives any: it would be 0 throughout.
pub(super) fn check_rewards(rubric: &RubricConfig, environment: Option<&EnvironmentConfig>) -> Result<()> {
    let tools = environment.map_or(&[][..], |environment| &environment.tools);
    let wants = rubric.wanting_rewards().filter(|_| !tools.iter().any(ToolOptions::may_reward));
    let Some(verifier) = wants else { return Ok(()) };
    let names: Vec<&str> = tools.iter().map(ToolOptions::name).collect();
    let none = if names.is_empty() { "there are none".into() } else { format!("{} give none", names.join(", ")) };
    bail!(
        "verifier `{}` judges by the rewards of tools, and {none}: give [[environment.tools]] of kind \"openenv\", \
         \"command\" or \"function\", or take another verifier",
        verifier.shown_name()
    )
}

/// The same where completions have one turn and call nothing.
pub(super) fn refuse_rewards(rubric: &RubricConfig) -> Result<()> {
    let name = rubric.wanting_rewards().map(VerifierConfig::shown_name);
    ensure!(
        name.is_none(),
        "verifier `{}` judges by the rewards of tools, and completions call none here: take another verifier",
        name.unwrap_or_default()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_that_cannot_work_is_refused() {
        for (text, expected) in [
            ("tools = []", "environment.tools is empty"),
            ("tools = [{kind = 'calculator'}]\nmax_calls = 0", "environment.max_calls = 0"),
            ("tools = [{kind = 'calculator'}]\ncall = ['$', '$']", "two different texts"),
            ("tools = [{kind = 'calculator'}]\nformat = 'chat'\nanswer = ['a', 'b']", "beside format = \"chat\""),
        ] {
            let config: EnvironmentConfig = toml::from_str(text).unwrap();
            let message = config.validate().unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
        let config: EnvironmentConfig = toml::from_str("tools = [{kind = 'calculator'}]").unwrap();
        assert!(config.validate().is_ok());
        assert_eq!(config.call(), ["<tool>", "</tool>"]);
    }

    #[test]
    fn a_rubric_that_waits_for_rewards_wants_a_tool_that_gives_some() {
        let (calculator, python) = ("{kind = 'calculator', name = 'sums'}", "{kind = 'python'}");
        let game = "{kind = 'command', command = ['game']}";
        let kind = "kind = 'environment'";
        let cosine = "kind = 'length', rule = 'cosine', max = 9, of = {kind = 'environment'}";
        for (part, tools, expected) in [
            ("kind = 'exact'", None, None),
            (kind, None, Some("verifier `environment` judges by the rewards of tools, and there are none: give")),
            ("kind = 'environment', name = 'won'", None, Some("verifier `won` judges")),
            (cosine, None, Some("verifier `length` judges")),
            (kind, Some(vec![calculator, python]), Some("and sums, python give none: give [[environment.tools]]")),
            (kind, Some(vec![calculator, game]), None),
            (kind, Some(vec!["{kind = 'function', entry = 'game.py:Game'}"]), None),
            (kind, Some(vec!["{kind = 'openenv', urls = ['ws://localhost:1']}"]), None),
        ] {
            let rubric: RubricConfig = toml::from_str(&format!("verifiers = [{{{part}}}]")).unwrap();
            let environment = |tools: Vec<&str>| toml::from_str(&format!("tools = [{}]", tools.join(", "))).unwrap();
            let environment: Option<EnvironmentConfig> = tools.map(environment);
            let found = check_rewards(&rubric, environment.as_ref()).map_err(|error| error.to_string());
            match expected {
                None => assert_eq!(found, Ok(()), "{part}"),
                Some(expected) => assert!(found.as_ref().is_err_and(|found| found.contains(expected)), "{found:?}"),
            }
        }
    }
}
