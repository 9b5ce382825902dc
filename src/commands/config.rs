//! `reckon config`: every key of a config with its default, its values and its meaning, as Markdown. All of it comes from
//! the tables in `crate::config` as the parser has them; `docs/config.md` is this output.

use anyhow::Result;
use reckon_datasets::{
    ArithmeticConfig, Columns, CountdownConfig, Key, KnightsConfig, MultiplicationConfig, ParityConfig, Table,
    ThreeSumConfig, TraceConfig,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::Value;

use crate::config::{
    ArmConfig, AuditConfig, BaseConfig, ComputeConfig, CriterionConfig, CurriculumConfig, DistilConfig,
    EnvironmentConfig, EvalConfig, EvalSet, ExperimentConfig, FileConfig, FilterConfig, GrpoConfig, LogConfig,
    LoraConfig, ModelSource, OptimConfig, PRESETS, PipelineConfig, PromptConfig, RolloutConfig, SaveConfig,
    ServersConfig, SftAccuracy, SftConfig, SftEval, SftModel, SourceConfig, StageConfig, TeacherConfig, TracesConfig,
    TrainConfig,
};
use crate::output::print;
use crate::strict;

#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_: Args) -> Result<()> {
    print(format_args!("{}", reference()?))
}

const INTRO: &str = "# Configuration

Every key of a config, as `reckon config` prints it. `--set table.key=value` overrides a key, `reckon train --dry-run`
prints a config with all its values, and a run keeps that as `config.toml` in its folder. An unknown key is an error.
";

const DATA: &str = "
## `[data]`

`dataset` is one of those below: rows from files, problems that are generated, or a mixture of these.
";

const RUBRIC: &str = "
## `[rubric]`

`mode` is `binary` (the default) or `sum`; each `[[rubric.verifiers]]` has a `kind` and that kind's keys. All kinds with
their keys are in [rewards/README.md](../rewards/README.md). A run stops where a verifier with `on_error = \"skip\"` fails
over more than `max_error_share` (0.5) of the completions of a step or of an evaluation.
";

fn reference() -> Result<String> {
    let run = "steps = 1\nmodel = {path = ''}\ndata = {dataset = 'parity'}\nrubric = {verifiers = []}";
    let base = "model = {}\ndata = {dataset = 'parity'}";
    let asked = "data = {dataset = 'parity'}\nrubric = {verifiers = []}";
    let sections = [
        INTRO.to_owned(),
        section::<TrainConfig>("A config of `reckon train`", run)?,
        section::<ModelSource>("`[model]`", "path = ''")?,
        DATA.to_owned(),
        section::<FileConfig>("`[data]` with `dataset = \"file\"`", "path = ''")?,
        section::<Columns>("`[data.columns]` with `dataset = \"file\"`", "")?,
        section::<CountdownConfig>("`[data.problems]` with `dataset = \"countdown\"`", "")?,
        section::<ArithmeticConfig>("`[data.problems]` with `dataset = \"arithmetic\"`", "")?,
        section::<KnightsConfig>("`[data.problems]` with `dataset = \"knights_and_knaves\"`", "")?,
        section::<ThreeSumConfig>("`[data.problems]` with `dataset = \"three_sum\"`", "")?,
        section::<ParityConfig>("`[data.problems]` with `dataset = \"parity\"`", "")?,
        section::<MultiplicationConfig>("`[data.problems]` with `dataset = \"multiplication\"`", "")?,
        section::<SourceConfig>("`[[data.sources]]` with `dataset = \"mixture\"`", "from = {dataset = 'parity'}")?,
        section::<PromptConfig>("`[prompt]`", "")?,
        section::<CurriculumConfig>("`[curriculum]`", "")?,
        section::<RolloutConfig>("`[rollout]`", "")?,
        section::<EnvironmentConfig>("`[environment]`", "tools = []")?,
        RUBRIC.to_owned(),
        section::<GrpoConfig>("`[grpo]`", "")?,
        presets()?,
        section::<OptimConfig>("`[optim]`", "")?,
        section::<LoraConfig>("`[lora]`", "")?,
        section::<DistilConfig>("`[teacher]`", "path = ''")?,
        section::<ComputeConfig>("`[compute]`", "")?,
        section::<EvalConfig>("`[eval]`", "")?,
        section::<EvalSet>("`[[eval.sets]]`", "name = ''\ndata = {dataset = 'parity'}")?,
        section::<SaveConfig>("`[save]`", "")?,
        section::<LogConfig>("`[log]`", "")?,
        section::<AuditConfig>("`[audit]`", "")?,
        section::<ServersConfig>("`[servers]`", "engine = 'vllm'\nurls = []\nweights = ''")?,
        section::<SftConfig>("A config of `reckon sft`", base)?,
        section::<SftModel>("`[model]` of `reckon sft`", "")?,
        section::<SftEval>("`[eval]` of `reckon sft`", "")?,
        section::<SftAccuracy>("`[accuracy]` of `reckon sft`", asked)?,
        section::<TraceConfig>("`[traces]` of `reckon sft`", "")?,
        section::<ExperimentConfig>("A file of `reckon experiment`", "train = ''\nseeds = []\narms = []")?,
        section::<BaseConfig>("`[[bases]]` of `reckon experiment`", "name = ''\nsft = ''")?,
        section::<ArmConfig>("`[[arms]]` of `reckon experiment`", "name = ''")?,
        section::<CriterionConfig>("`[[criteria]]` of `reckon experiment`", "says = ''\narm = ''\nmeasure = ''")?,
        section::<TracesConfig>("A config of `reckon traces`", &format!("teacher = {{}}\n{asked}"))?,
        section::<TeacherConfig>("`[teacher]` of `reckon traces`", "")?,
        section::<FilterConfig>("`[filter]` of `reckon traces`", "")?,
        section::<PipelineConfig>("A file of `reckon pipeline`", "stages = []")?,
        section::<StageConfig>("`[[stages]]` of `reckon pipeline`", "name = ''\nkind = 'sft'\nconfig = ''")?,
    ];
    Ok(sections.concat())
}

/// A table of keys. `required` has those that a config cannot leave out, with any values.
fn section<T: Table + Serialize + DeserializeOwned>(title: &str, required: &str) -> Result<String> {
    let with_defaults: T = strict::read_as(&strict::Tree::parse(required, title, &[])?, title)?;
    let defaults = toml::Table::try_from(with_defaults)?;
    let required: toml::Table = required.parse()?;
    let about = T::ABOUT.trim();
    let mut text = format!("\n## {title}\n\n{about}\n\n| key | default | values | meaning |\n|---|---|---|---|\n");
    for key in T::keys() {
        let default = match defaults.get(key.name) {
            _ if required.contains_key(key.name) => "required".into(),
            Some(Value::Table(_)) => "its own".into(),
            Some(value) => format!("`{value}`"),
            None => "none".into(),
        };
        text += &format!("| `{}` | {default} | {} | {} |\n", key.name, values(&key), key.doc.replace('|', "\\|"));
    }
    Ok(text)
}

/// The range or the words of a key.
fn values(key: &Key) -> String {
    let words: Vec<String> = key.choices.iter().map(|word| format!("`{word}`")).collect();
    key.range.map_or_else(|| words.join(", "), |range| range.to_string())
}

/// What each preset sets, with the comments of the file: a paragraph, and an item for each.
fn presets() -> Result<String> {
    let presets: toml::Table = PRESETS.parse()?;
    let (mut text, mut comment) = ("\n### Presets\n\n".to_owned(), Vec::new());
    for line in PRESETS.lines() {
        if let Some(words) = line.strip_prefix("# ") {
            comment.push(words);
        } else if let Some(name) = line.strip_prefix('[') {
            let name = name.trim_end_matches(']');
            let keys = presets.get(name).and_then(Value::as_table).into_iter().flatten();
            let keys: Vec<String> = keys.map(|(key, value)| format!("`{key} = {value}`")).collect();
            text += &format!("- `{name}`: {}\n", std::mem::take(&mut comment).join("\n  "));
            text += &format!("  <br>{}\n", keys.join(", "));
        } else if !comment.is_empty() {
            text += &format!("{}\n\n", std::mem::take(&mut comment).join("\n"));
        }
    }
    Ok(text)
}
