//! `reckon traces`: who teaches, what is asked, and where the work stands; the work itself is [`crate::traces`].

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, bail, ensure};
use reckon_datasets::Example;
use reckon_rewards::{Registry, Rubric};
use serde_json::json;

use super::{config_text, policies, signals};
use crate::config::{PromptConfig, SourceView, TeacherPlace, TracesConfig};
use crate::judge::Judge;
use crate::model::Companions;
use crate::output::{note, say};
use crate::progress::Bar;
use crate::prompt::{Prompt, PromptSource, Source, Window};
use crate::strict;
pub(super) use crate::traces::progress_file;
use crate::traces::{Collector, Counts, Fates, Name, Progress, Question, Service, Teacher, gather, step_of, write};

/// Arguments of `reckon traces`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// TOML config of `reckon traces`.
    config: PathBuf,
    /// Override a key, such as `--set samples=8`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// File of the traces: Parquet where its name ends in `.parquet`, JSON Lines else. Work that was interrupted goes on.
    #[arg(long)]
    out: PathBuf,
}

pub(super) fn run(args: Args, registry: &Registry) -> Result<()> {
    let text = config_text(&args.config)?;
    let config: TracesConfig = strict::load(&text, &args.config.display().to_string(), &args.sets)?;
    let counts = collect(&config, &args.out, registry, &*signals::stop_flag()?)?;
    counts.lines().iter().try_for_each(|line| say!("{line}"))
}

/// Asks what is left to ask, and writes the traces when all is done. A signal ends it between two batches.
pub(super) fn collect(config: &TracesConfig, out: &Path, registry: &Registry, stop: &AtomicBool) -> Result<Counts> {
    config.validate()?;
    let mut progress = Progress::open(out, config)?;
    let rubrics = config.sources()?.into_iter().map(|view| Ok(Rubric::from_config_with(view.rubric, registry)?));
    let judge = Judge::new(rubrics.collect::<Result<_>>()?)?;
    let (teacher, name, questions) = teacher(config)?;
    let collector = Collector { config, teacher: &teacher, name, judge: &judge };
    let left: Vec<&Question> = questions.iter().filter(|q| progress.get(&q.example.id).is_none()).collect();
    if !progress.is_empty() {
        note!("{} problems are done already", progress.len());
    }
    let (bar, mut done) = (Bar::new(questions.len() as u64, "traces"), questions.len() - left.len());
    // Enough completions at a time to keep the sampler filled, few enough to lose little when the work is killed.
    let at_a_time = match config.teacher.place()? {
        TeacherPlace::Path(_) => 4 * config.rollout.capacity,
        TeacherPlace::Url(..) => 4 * config.teacher.concurrency,
    };
    for some in left.chunks((at_a_time / config.samples).max(1)) {
        if stop.load(Ordering::Relaxed) {
            bail!("{done} of {} problems are done; the same command goes on", questions.len());
        }
        progress.add(collector.ask(some.iter().map(|&question| question.clone()).collect())?)?;
        done += some.len();
        bar.tick(done as u64, &format!("{} traces", progress.kept()), "");
    }
    let all: Vec<Fates> = questions.iter().filter_map(|q| progress.get(&q.example.id).cloned()).collect();
    let (traces, counts) = gather(all, config);
    ensure!(!traces.is_empty(), "no completion was kept: {}", counts.lines().join("; "));
    write(out, &traces)?;
    progress.finish()?;
    bar.finish(&format!("traces in {}", out.display()));
    Ok(counts)
}

/// Who answers, what it is called, and what it is asked.
fn teacher(config: &TracesConfig) -> Result<(Teacher, Name, Vec<Question>)> {
    match config.teacher.place()? {
        TeacherPlace::Path(path) => {
            let mut policy = policies::sampled(path, &config.compute)?;
            let max_position = policy.config.max_position_embeddings;
            let window = Window { max_position, max_new_tokens: config.rollout.max_new_tokens };
            let (tokenizer, views) = (policy.tokenizer.clone(), config.sources()?);
            let prompts = PromptSource::open(&views, tokenizer, &policy.companions, config.seed, window)?;
            policy.end_with(prompts.end_tokens())?;
            prompts.dropped().iter().for_each(|line| note!("{line}"));
            let sampling = config.rollout.sampling(policy.config.eos_token_id.clone())?;
            let questions = rows(prompts.sources(), config.problems, &|source, example, index| {
                prompts.prompt(source, example, index)
            })?;
            let name = Name { teacher: path.to_owned(), step: step_of(Path::new(path))? };
            let teacher = Teacher::Local { policy: Box::new(policy), sampling, capacity: config.rollout.capacity };
            Ok((teacher, name, questions))
        }
        TeacherPlace::Url(_, model) => {
            let key = std::env::var(&config.teacher.key_env).ok().filter(|key| !key.is_empty());
            let service = Service::new(&config.teacher, &config.rollout, key, config.seed)?;
            let questions = asked_in_words(config)?;
            Ok((Teacher::Service(Box::new(service)), Name { teacher: model.to_owned(), step: None }, questions))
        }
    }
}

/// The rows of all sources, each as a question.
fn rows(
    sources: &[Source],
    problems: Option<usize>,
    ask: &dyn Fn(usize, Example, u64) -> Result<Prompt>,
) -> Result<Vec<Question>> {
    let (mut all, mut ids) = (Vec::new(), std::collections::HashSet::new());
    for (index, source) in sources.iter().enumerate() {
        let count = match (source.shuffled, problems) {
            (true, None) => source.train.len(),
            (_, Some(problems)) => problems.min(source.train.len()),
            (false, None) => {
                bail!("data source \"{}\" makes its rows, and there is no end to them: give problems", source.name)
            }
        };
        for row in 0..count {
            let example = source.train.get(row);
            ensure!(
                ids.insert(example.id.clone()),
                "two rows are called {:?}: name a column of ids with data.columns.id",
                example.id
            );
            let prompt = ask(index, example.clone(), all.len() as u64)?;
            all.push(Question { example, prompt });
        }
    }
    Ok(all)
}

/// The questions of a teacher that is spoken to in messages: its template is its own.
fn asked_in_words(config: &TracesConfig) -> Result<Vec<Question>> {
    let views = config.sources()?;
    // What the user says is a text; the system's words and earlier turns are messages.
    let plain = |prompt: &PromptConfig| PromptConfig {
        template: prompt.template.clone().filter(|_| !prompt.is_chat()),
        user: prompt.user.clone(),
        prefill: prompt.prefill.clone(),
        ..PromptConfig::default()
    };
    let prompts: Vec<PromptConfig> = views.iter().map(|view| plain(view.prompt)).collect();
    let open = |(index, (view, prompt)): (usize, (&SourceView, &_))| {
        Source::open(&SourceView { prompt, ..*view }, index, &Companions::default(), config.seed)
    };
    let sources = views.iter().zip(&prompts).enumerate().map(open).collect::<Result<Vec<_>>>()?;
    for source in &sources {
        ensure!(
            source.template.prefill().is_empty(),
            "data source \"{}\": the completion of a teacher behind a URL cannot be begun: take another \
             prompt.template, or prompt.prefill = \"\"",
            source.name
        );
    }
    rows(&sources, config.problems, &|source, example, index| {
        let alone = Example { messages: Vec::new(), ..example.clone() };
        let words = sources[source].template.render(&alone)?.text;
        let mut messages = example.messages.clone();
        match messages.iter_mut().rfind(|message| message["role"] == "user") {
            Some(last) => last["content"] = json!(words),
            None => messages.push(json!({ "role": "user", "content": words })),
        }
        if let Some(system) = &views[source].prompt.system {
            let told = usize::from(messages[0]["role"] == "system");
            messages.splice(..told, [json!({ "role": "system", "content": system })]);
        }
        let asked = Example { messages, ..example };
        Ok(Prompt { source, ..Prompt::new(Arc::new(asked), index, Vec::new()) })
    })
}
