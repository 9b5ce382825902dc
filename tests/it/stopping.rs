//! A broken verifier stops a run with a checkpoint, from which the run goes on as if nothing had happened.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::Parser;
use reckon::commands::Cli;
use reckon_datasets::Example;
use reckon_rewards::{Registry, Scope, Submission, Verdict, Verifier, VerifierError};

const GROUP: usize = 3;
const PROMPTS: usize = 2;

/// Rewards completions of even length, a whole group at a time, until it has judged `good` groups.
struct Breaks {
    good: usize,
    judged: Arc<AtomicUsize>,
}

impl Verifier for Breaks {
    fn name(&self) -> &str {
        "even"
    }

    fn scope(&self) -> Scope {
        Scope::Group
    }

    fn verify(&self, _: &Example, completion: &str) -> Result<Verdict, VerifierError> {
        Ok(match completion.len() % 2 {
            0 => Verdict::pass(completion, "even"),
            _ => Verdict::fail(completion, "odd"),
        })
    }

    fn verify_batch(&self, batch: &[Submission]) -> Result<Vec<Verdict>, VerifierError> {
        assert_eq!(batch.len(), GROUP, "a whole group");
        assert!(batch.iter().all(|s| s.example.id == batch[0].example.id && !s.tokens.is_empty()));
        if self.judged.fetch_add(1, Ordering::Relaxed) >= self.good {
            return Err(VerifierError::infra(self.name(), batch[0].example, "the disk is full"));
        }
        batch.iter().map(|s| self.verify(s.example, s.completion)).collect()
    }
}

fn train(arguments: &[&str], good_steps: usize) -> anyhow::Result<()> {
    let registry = Registry::default()
        .with("even", move |_, _| Ok(Box::new(Breaks { good: good_steps * PROMPTS, judged: Arc::default() })));
    Cli::try_parse_from(["reckon", "train"].iter().chain(arguments))?.run(&registry)
}

fn metrics(run: &Path) -> Vec<reckon::metrics::Record> {
    let records = reckon::metrics::read(&run.join("metrics.jsonl")).unwrap();
    records.iter().map(reckon::metrics::Record::without_timings).collect()
}

#[test]
fn a_broken_verifier_stops_the_run_with_a_checkpoint_that_resumes_exactly() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.toml");
    let text = format!(
        "steps = 3\nmodel = {{path = 'builtin:countdown'}}\ndata = {{dataset = 'countdown'}}\nprompt = {{template = '{{question}} '}}
        rollout = {{prompts_per_step = {PROMPTS}, group_size = {GROUP}, max_new_tokens = 24}}
        eval = {{problems = 0}}\n[[rubric.verifiers]]\nkind = 'rust'\nverifier = 'even'\nname = 'even'\n"
    );
    std::fs::write(&config, text).unwrap();
    let (straight, broken) = (folder.path().join("straight"), folder.path().join("broken"));
    let [config, straight_name, broken_name] = [&config, &straight, &broken].map(|path| path.to_str().unwrap());
    train(&[config, "--out", straight_name], usize::MAX / PROMPTS).unwrap();

    let error = format!("{:#}", train(&[config, "--out", broken_name], 1).unwrap_err());
    assert!(error.contains("its last state is saved") && error.contains("the disk is full"), "{error}");
    assert!(broken.join("checkpoints/step-000001").is_dir(), "the state after step 1 is saved");
    assert_eq!(metrics(&broken).len(), 2);

    train(&["--resume", broken_name], usize::MAX / PROMPTS).unwrap();
    assert_eq!(metrics(&broken), metrics(&straight));
    let shares: f64 =
        ["pass", "fail"].map(|of| metrics(&broken)[2].get(&format!("verdict/even/{of}")).unwrap()).iter().sum();
    assert!((shares - 1.0).abs() < 1e-9, "every verdict is counted under its outcome");
}
