//! The table of all metrics, one record of them a step, and the file that keeps the records.
//!
//! A metric exists once: in [`METRICS`], from which `reckon metrics` and `docs/metrics.md` are printed, and without which
//! a [`Record`] takes no number. How a number is computed is left to the module that computes it.
//!
//! Records of the same config, seed and device are equal, byte for byte, less the names under [`TIMING_PREFIXES`].

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use serde::de::{self, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::disk;

/// Metrics whose names begin so measure time, and differ from run to run.
pub const TIMING_PREFIXES: [&str; 2] = ["time/", "speed/"];

/// A number that a record can hold.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name; from the first `<` on, it stands for many.
    pub name: &'static str,
    /// What the number is.
    pub meaning: &'static str,
}

const fn metric(name: &'static str, meaning: &'static str) -> Metric {
    Metric { name, meaning }
}

/// All metrics, in the order in which a step makes them.
pub const METRICS: &[Metric] = &[
    metric("reward/mean", "mean reward of the step's judged rollouts, those of groups without signal included"),
    metric("reward/std", "standard deviation of those rewards, over all groups"),
    metric(
        "reward/not_judged_frac",
        "rollouts that no verifier judged, or over which one failed that may fail (on_error = \"skip\"), so that they are \
         in no mean and teach nothing / all rollouts",
    ),
    metric(
        "penalty/overlong_mean",
        "mean of what the length of the step's judged rollouts adds to their rewards before advantages are taken, 0 or \
         less; with grpo.truncated = \"soft_overlong\" alone",
    ),
    metric(
        "penalty/kl_mean",
        "mean over the completions trained on of what their KL terms take from their rewards; with grpo.kl_place = \
         \"reward\" alone",
    ),
    metric("reward/greedy_mean", "mean reward of the most likely completions; with grpo.advantage = \"greedy\" alone"),
    metric("reward/<verifier>", "mean of the reward that this verifier gave where it judged, before weights"),
    metric(
        "verdict/<verifier>/<outcome>",
        "rollouts to which this verifier gave this outcome (pass, fail, unparsed, truncated, timeout, crash, and without a \
         reward skipped, error) / all rollouts that it was given",
    ),
    metric("completion/len_mean", "mean number of sampled tokens in a completion, the end token included"),
    metric("completion/len_max", "number of tokens of the longest completion"),
    metric("completion/truncated_frac", "completions that reached the token limit / all completions"),
    metric("completion/len_right", "mean tokens of the completions that ended by themselves and pass"),
    metric("completion/len_wrong", "mean tokens of the completions that ended by themselves and do not pass"),
    metric(
        "completion/pass_frac",
        "completions that ended by themselves and pass, whatever a control makes of rewards / judged completions",
    ),
    metric(
        "behaviour/<name>",
        "what completions do, as their task's reader of traces sees it: the names and what each counts are below; the mean \
         over completions unless said",
    ),
    metric(
        "words/<list>/<rate>",
        "how often the key words of a list of `behaviours` occur: `mean`, in a completion; `per_1k`, in a thousand tokens; \
         `any`, completions that hold one / all completions",
    ),
    metric("tools/calls_mean", "answered calls of a completion; all under tools/ with an [environment] alone"),
    metric("tools/calling_frac", "completions with such a call / all completions"),
    metric("tools/failed_frac", "calls whose answer says that they failed / calls that were answered"),
    metric("tools/turns_mean", "turns of a completion: 1, and one more behind each answer"),
    metric(
        "tools/tokens_mean",
        "tokens of answers in a completion: in no other length, and nothing is learned from them",
    ),
    metric(
        "group/zero_signal_frac",
        "groups whose judged rollouts' rewards are all equal before any length penalty, so that they teach nothing / all \
         sampled groups",
    ),
    metric(
        "group/pass_rate/<share>",
        "groups of which none, up to 25, 50, 75%, fewer than all, or all pass / judged groups",
    ),
    metric("group/resampled", "groups sampled beyond rollout.prompts_per_step, in place of groups without signal"),
    metric("group/stopped_frac", "groups that rollout.probe made smaller / all sampled groups; with a probe alone"),
    metric("group/kept", "groups trained on: those left when groups without signal are dropped"),
    metric(
        "curriculum/passed_over",
        "prompts of the run's order that were left for another pass, because they rest or others of the pool were chosen; \
         this and the next four with a [curriculum] alone",
    ),
    metric("curriculum/seen", "rows that have been asked in the run so far"),
    metric("curriculum/resting", "of these, rows that rest in the next step"),
    metric("curriculum/easy_frac", "rows of which 9 of 10 completions or more were right / rows that have been asked"),
    metric("curriculum/hard_frac", "rows of which 1 of 10 completions or fewer were right / rows that have been asked"),
    metric("loss/total", "the objective that is minimised, KL term included, mean over the updates of the step"),
    metric("policy/entropy", "mean over trained tokens of −Σ_v p(v) ln p(v) at the sampling temperature, in nats"),
    metric(
        "policy/kl_ref",
        "mean over trained tokens of the estimate of KL(policy ‖ reference) that grpo.kl_estimator names (k1, k2 or k3), \
         in nats; with a KL term alone",
    ),
    metric(
        "teacher/kl_sampled",
        "mean over trained tokens of the step's first update of log-probability at sampling less the teacher's, in nats: \
         the estimate k1 of KL(policy ‖ teacher); with teacher.objective = \"sampled\" alone",
    ),
    metric(
        "teacher/divergence",
        "mean over trained tokens of the step's first update of the divergence between policy and teacher over the \
         vocabulary that teacher.beta names, in nats; with teacher.objective = \"full\" alone",
    ),
    metric(
        "policy/clip_frac",
        "trained tokens that some bound of the objective holds / trained tokens: low, high and dual clip together",
    ),
    metric(
        "policy/clip_low_frac",
        "tokens that the lower bound holds, of clip those with ratio < 1 − clip_low and a negative advantage / trained tokens",
    ),
    metric(
        "policy/clip_high_frac",
        "tokens that the upper bound holds, of clip those with ratio > 1 + clip_high and a positive advantage / trained tokens",
    ),
    metric(
        "policy/selected_frac",
        "tokens that the objective treats apart for their covariance / trained tokens; with clip_cov and kl_cov alone",
    ),
    metric("policy/entropy_coef", "weight of the entropy bonus in the step's last update; with a bonus alone"),
    metric(
        "policy/mismatch_kl",
        "mean over trained tokens of the step's first update of exp(d) − d − 1, d = log-probability now less that at \
         sampling: trainer against sampler, 0 on a CPU",
    ),
    metric(
        "policy/kl_age/<updates>",
        "policy/mismatch_kl of a later update of the step: how far the policy is from the one that sampled, so many \
         updates before",
    ),
    metric(
        "router/entropy",
        "mean over the inputs of the step's updates and layers of the entropy of a router's scores, as shares of their \
         sum, in nats; all under router/ for a model with experts alone",
    ),
    metric(
        "router/load_max",
        "rows of a layer's busiest expert / the mean of its experts, mean over layers: 1 is even",
    ),
    metric("router/load_min", "the same of the expert with the fewest rows"),
    metric(
        "router/load/<layer>/<expert>",
        "rows of an expert / the mean of its layer's; where there are at most 256 experts in all layers together",
    ),
    metric(
        "router/aux_loss",
        "the auxiliary loss of routers over an update's samples, before its weight, mean over the updates: the experts of \
         a token where loads are even, and more where they are not; in no other loss, and with \
         optim.router_aux_loss_coef alone",
    ),
    metric(
        "router/differ_frac",
        "inputs of the step's updates that went to other experts in some layer than when they were sampled / inputs: 0 in \
         a step of one update on a CPU, and with grpo.router_replay",
    ),
    metric(
        "router/replayed_frac",
        "inputs that would have gone to other experts in some layer than those that were replayed / inputs; with \
         grpo.router_replay = \"rollout\" alone",
    ),
    metric(
        "correction/kl",
        "mean over the step's tokens of w − ln w − 1, w = probability by the policy before the step's first update / at \
         sampling; this and the next four with grpo.correction alone",
    ),
    metric("correction/weight_mean", "mean weight of the step's tokens, that of completions that are left out being 0"),
    metric(
        "correction/effective_frac",
        "(Σ weight)² / (tokens · Σ weight²): the share of tokens that would weigh as much if all weighed the same",
    ),
    metric("correction/masked_frac", "tokens whose weight is 0, left-out completions apart / the step's tokens"),
    metric("correction/rejected_frac", "completions left out by grpo.reject / the step's completions"),
    metric("optim/grad_norm", "L2 norm of the whole gradient before clipping, mean over the updates that were applied"),
    metric("optim/lr", "learning rate of the step"),
    metric("optim/updates", "updates that moved the weights"),
    metric("optim/skipped", "updates left out because loss or gradient was not finite"),
    metric("time/sample_s", "seconds spent in sampling completions"),
    metric("time/tools_s", "seconds from calls to their answers, summed over completions, while others are sampled"),
    metric("time/verify_s", "seconds spent waiting for verifiers after the last completion"),
    metric("time/forward_backward_s", "seconds in forward and backward passes, the reference's included"),
    metric("time/update_s", "seconds in the optimizer"),
    metric("time/step_s", "seconds of the whole step"),
    metric(
        "time/rank_busy_s/<rank>",
        "seconds of the step in which this rank did not wait for others: a late one has more than they; with several ranks \
         alone",
    ),
    metric("speed/sample_tokens_per_s", "sampled tokens / time/sample_s"),
    metric(
        "speed/rank_sent_mb/<rank>",
        "megabytes that this rank sent to others in the step; with several ranks alone",
    ),
    metric(
        "speed/update_tokens_per_s",
        "completion tokens trained on / (time/forward_backward_s + time/update_s); prompts are computed and not counted",
    ),
    metric(
        "sft/loss",
        "mean negative log-likelihood of the step's trained tokens before its update, in nats; this and the other sft \
         metrics are of `reckon sft`",
    ),
    metric("sft/held_out_loss", "the same of the trained tokens of held-out rows, after the step"),
    metric("sft/trained_tokens", "tokens of the step's samples that are trained on"),
    metric("sft/samples", "samples of the step"),
    metric("sft/epochs", "rows used so far / rows to train on; of files alone"),
    metric("speed/sft_tokens_per_s", "tokens of the step's samples, prompts included / time/step_s"),
    metric("eval/pass@1", "held-out completions that are correct / held-out completions that were judged"),
    metric(
        "eval/pass@<k>",
        "chance that one of k completions of a held-out problem is correct, unbiased; with eval.samples above 1, for 2, 4, \
         8 and so on and all of them",
    ),
    metric(
        "eval/maj@<k>",
        "held-out problems whose most frequent answer among k = eval.samples completions is correct / held-out problems; \
         answers with as many votes count their share",
    ),
    metric("eval/not_judged_frac", "as reward/not_judged_frac, on held-out prompts"),
    metric("eval/len_mean", "as completion/len_mean, on held-out prompts"),
    metric("eval/len_max", "as completion/len_max, on held-out prompts"),
    metric("eval/len_right", "as completion/len_right, on held-out prompts"),
    metric("eval/len_wrong", "as completion/len_wrong, on held-out prompts"),
    metric("eval/truncated_frac", "as completion/truncated_frac, on held-out prompts"),
    metric(
        "eval/entropy",
        "mean over the sampled tokens of held-out completions of −ln of their probability, which at temperature 1 estimates \
         the entropy, in nats",
    ),
    metric("eval/behaviour/<name>", "as behaviour/<name>, on held-out prompts"),
    metric("eval/tools/<number>", "as tools/<number>, on held-out prompts"),
    metric("eval/words/<list>/<rate>", "as words/<list>/<rate>, on held-out prompts"),
    metric("eval/<set>/<number>", "eval/<number> on the further held-out set of eval.sets with this name"),
];

impl Metric {
    /// The metric whose name or pattern `name` is.
    pub fn of(name: &str) -> Option<&'static Self> {
        let stands_for = |metric: &&Self| match metric.name.split_once('<') {
            Some((start, _)) => {
                let parts = |name: &str| name.matches('/').count();
                name.len() > start.len() && name.starts_with(start) && parts(name) >= parts(metric.name)
            }
            None => name == metric.name,
        };
        METRICS.iter().find(stands_for)
    }
}

/// [`METRICS`] as a table of Markdown: what `reckon metrics --markdown` prints, and `docs/metrics.md` holds.
pub fn table() -> String {
    let rows = METRICS.iter().map(|Metric { name, meaning }| format!("| `{name}` | {meaning} |\n"));
    rows.fold("| name | meaning |\n|---|---|\n".into(), |table: String, row| table + &row)
}

/// The numbers of one step, by name. As JSON: one flat object with `step` first and the names in alphabetical order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// The step that was measured, counted from 1; 0 is the state before training.
    pub step: u64,
    values: BTreeMap<String, f64>,
}

impl Record {
    /// An empty record.
    pub fn new(step: u64) -> Self {
        Self { step, values: BTreeMap::new() }
    }

    /// Puts `value` under `name`, in place of an earlier one. The name is one of [`METRICS`].
    pub fn set(&mut self, name: impl Into<String>, value: f64) {
        let name = name.into();
        assert!(Metric::of(&name).is_some(), "{name} is not in the table of metrics");
        // −0.0 equals 0.0 but would be printed otherwise.
        self.values.insert(name, value + 0.0);
    }

    /// The number under `name`.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.values.get(name).copied()
    }

    /// All numbers with their names, in alphabetical order.
    pub fn values(&self) -> impl Iterator<Item = (&str, f64)> {
        self.values.iter().map(|(name, value)| (name.as_str(), *value))
    }

    /// The record without the numbers that depend on the clock: what two equal runs agree on.
    pub fn without_timings(&self) -> Self {
        let mut record = self.clone();
        record.values.retain(|name, _| !TIMING_PREFIXES.iter().any(|prefix| name.starts_with(prefix)));
        record
    }
}

impl Serialize for Record {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1 + self.values.len()))?;
        map.serialize_entry("step", &self.step)?;
        for (name, value) in &self.values {
            map.serialize_entry(name, &value.is_finite().then_some(*value))?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Record {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(RecordVisitor)
    }
}

struct RecordVisitor;

impl<'de> Visitor<'de> for RecordVisitor {
    type Value = Record;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with a step and numbers")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Record, A::Error> {
        let (mut step, mut values) = (None, BTreeMap::new());
        while let Some(name) = map.next_key::<String>()? {
            if name == "step" {
                step = Some(map.next_value()?);
            } else {
                // JSON has no word for what is not finite.
                values.insert(name, map.next_value::<Option<f64>>()?.unwrap_or(f64::NAN));
            }
        }
        Ok(Record { step: step.ok_or_else(|| de::Error::missing_field("step"))?, values })
    }
}

/// `metrics.jsonl`: one record in each line, in the order of the steps, readable while the run goes on.
#[derive(Debug)]
pub struct MetricsFile {
    path: PathBuf,
    file: File,
    /// Bytes of complete lines.
    len: u64,
}

impl MetricsFile {
    /// Opens the file to append to it, after dropping every record of a step after `resume_step` and a torn last line.
    ///
    /// The run will write those steps again. The lines that stay are kept as they are, byte for byte.
    pub fn open(path: impl Into<PathBuf>, resume_step: u64) -> Result<Self> {
        let path = path.into();
        let mut kept = String::new();
        if path.exists() {
            let text = read_text(&path)?;
            let lines = parse(&text, &path)?;
            for (line, _) in lines.iter().filter(|(_, record)| record.step <= resume_step) {
                kept.push_str(line);
                kept.push('\n');
            }
            if kept != text {
                disk::write_file(&path, kept.as_bytes())?;
            }
        }
        let file = File::options().append(true).create(true).open(&path);
        let file = file.with_context(|| format!("cannot open {path:?} to append to it"))?;
        Ok(Self { path, file, len: kept.len() as u64 })
    }

    /// Whether no record stands in it.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Writes one line.
    pub fn append(&mut self, record: &Record) -> Result<()> {
        let mut line = serde_json::to_string(record)?;
        line.push('\n');
        if let Err(error) = self.file.write_all(line.as_bytes()) {
            // A half-written line would spoil the next one. If this fails too, the next open drops the torn line.
            let _ = self.file.set_len(self.len);
            return Err(
                anyhow!(error).context(format!("cannot write the metrics of step {} to {:?}", record.step, self.path))
            );
        }
        self.len += line.len() as u64;
        Ok(())
    }

    /// Waits until all lines are on the disk: to be called before a checkpoint that counts on them.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_data().with_context(|| format!("cannot flush {:?}", self.path))
    }
}

/// All records of the file; a torn last line, as a killed process leaves it, is passed over.
pub fn read(path: &Path) -> Result<Vec<Record>> {
    let text = read_text(path)?;
    Ok(parse(&text, path)?.into_iter().map(|(_, record)| record).collect())
}

fn read_text(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {path:?}"))?;
    // A line may be torn within a character.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The complete lines of `text` with their records. Only the last line may be torn.
fn parse<'a>(text: &'a str, path: &Path) -> Result<Vec<(&'a str, Record)>> {
    let lines: Vec<&str> = text.lines().collect();
    let mut records = Vec::with_capacity(lines.len());
    for (i, line) in lines.iter().enumerate() {
        match serde_json::from_str(line) {
            Ok(record) => records.push((*line, record)),
            Err(_) if i + 1 == lines.len() => {}
            Err(error) => {
                let hint = "is not a record: repair or remove that line";
                return Err(anyhow!(error).context(format!("{path:?} line {} {hint}", i + 1)));
            }
        }
    }
    Ok(records)
}

#[cfg(test)]
mod tests;
