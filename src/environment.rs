//! The tools of a run, opened, and how their answers stand in a completion: what [`crate::rollout`] asks while it samples
//! is answered for the example of the prompt that it is about.

use anyhow::{Result, bail, ensure};
use reckon_rewards::{ToolAnswer, Toolbox};

use crate::config::{ToolFormat, TrainConfig};
use crate::judge::{Group, Rollout};
use crate::parallel::default_threads;
use crate::prompt::{Prompt, PromptSource};
use crate::rollout::{Answer, Memory, Tools, Turns};

/// What completions may call, and by which rules.
#[derive(Debug)]
pub struct Environment {
    toolbox: Toolbox,
    /// The rules.
    pub turns: Turns,
}

impl Environment {
    /// The tools that a config asks for, if any. Their workers are started.
    pub fn of(config: &TrainConfig, prompts: &PromptSource) -> Result<Option<Self>> {
        let Some(config) = &config.environment else { return Ok(None) };
        let [call, answer] =
            [config.call(), config.answer.clone().unwrap_or(["<result>", "</result>"].map(String::from))];
        let whole_turns = config.format == ToolFormat::Chat;
        let answer = if whole_turns { prompts.around_answers()? } else { answer };
        let workers = if config.workers == 0 { default_threads() } else { config.workers };
        let (max_calls, max_answer_tokens) = (config.max_calls, config.max_answer_tokens);
        let turns = Turns { call, answer, whole_turns, max_calls, max_answer_tokens, workers };
        Ok(Some(Self { toolbox: Toolbox::new(&config.tools)?, turns }))
    }

    /// The tools for completions of these prompts.
    pub fn asked_by<'a>(&'a self, prompts: &'a [Prompt]) -> Asked<'a> {
        Asked { environment: self, prompts }
    }
}

/// The tools as completions of some prompts see them.
pub struct Asked<'a> {
    environment: &'a Environment,
    prompts: &'a [Prompt],
}

impl Tools for Asked<'_> {
    fn answer(&self, prompt: usize, memory: &mut Memory, call: &str) -> Result<Answer> {
        let memory = memory.get_or_insert_with(|| Box::<reckon_rewards::Memory>::default());
        let Some(memory) = memory.downcast_mut() else { bail!("another kind of tools remembers this completion") };
        let example = &self.prompts[prompt].example;
        let ToolAnswer { text, failed, reward } = self.environment.toolbox.answer(example, memory, call)?;
        Ok(Answer { text, failed, reward })
    }
}

/// What completions did with tools, by the names of metrics.
pub fn tool_use(groups: &[Group]) -> Vec<(&'static str, f64)> {
    let rollouts: Vec<&Rollout> = groups.iter().flat_map(|group| &group.rollouts).collect();
    let sum = |of: fn(&Rollout) -> usize| rollouts.iter().map(|rollout| of(rollout)).sum::<usize>() as f64;
    let completions = rollouts.len().max(1) as f64;
    let calls = sum(|rollout| rollout.completion.tools.calls);
    vec![
        ("tools/calls_mean", calls / completions),
        ("tools/calling_frac", sum(|rollout| usize::from(rollout.completion.tools.calls > 0)) / completions),
        ("tools/failed_frac", sum(|rollout| rollout.completion.tools.failed) / calls.max(1.0)),
        ("tools/turns_mean", 1.0 + sum(|rollout| rollout.completion.tools.observed.len()) / completions),
        ("tools/tokens_mean", sum(|rollout| rollout.completion.tools.observed_len()) / completions),
    ]
}

impl PromptSource {
    /// What the templates of the sources put around an answer of a tool: from the end of the assistant's turn to the
    /// beginning of its next one.
    fn around_answers(&self) -> Result<[String; 2]> {
        let mut found: Option<[String; 2]> = None;
        for source in self.sources() {
            let around = source.template.around_an_answer(self.tokenizer())?;
            ensure!(
                found.as_ref().is_none_or(|found| *found == around),
                "environment.format = \"chat\": the templates of two data sources write answers of tools in different ways"
            );
            found = Some(around);
        }
        Ok(found.unwrap_or_default())
    }
}
