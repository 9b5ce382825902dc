//! Which charts a study has: those that papers show of such runs, and whatever other numbers its runs wrote. A page and
//! the files of [`crate::svg`] have the same.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::arms::Study;
use crate::rollups::PREFIX;

/// What is drawn.
#[derive(Clone, Debug, Serialize)]
pub struct Chart {
    /// Names it in links and files.
    pub id: String,
    /// What it shows.
    pub title: String,
    /// How to read it, where that needs saying.
    pub note: &'static str,
    /// Metrics on the left axis; the one on the x axis of a path.
    pub left: Vec<String>,
    /// Metrics on the right axis; the one on the y axis of a path.
    pub right: Vec<String>,
    /// Against the step, or one metric against another.
    pub kind: Kind,
}

/// What the horizontal axis is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Steps.
    Curves,
    /// A metric: the way of a run through two of them.
    Path,
}

/// A chart whose metrics are known; a name that ends in `*` stands for all that begin so.
struct Known {
    id: &'static str,
    title: &'static str,
    note: &'static str,
    left: &'static [&'static str],
    right: &'static [&'static str],
    kind: Kind,
}

const fn curves(
    id: &'static str,
    title: &'static str,
    note: &'static str,
    left: &'static [&'static str],
    right: &'static [&'static str],
) -> Known {
    Known { id, title, note, left, right, kind: Kind::Curves }
}

/// In the order in which they are shown.
const KNOWN: &[Known] = &[
    curves(
        "accuracy",
        "Held-out accuracy and length",
        "accuracy on the left, tokens on the right, dashed",
        &["eval/pass@1"],
        &["eval/len_mean"],
    ),
    curves(
        "reward",
        "Reward and length in training",
        "reward on the left, tokens on the right, dashed",
        &["reward/mean"],
        &["completion/len_mean"],
    ),
    curves(
        "length-by-verdict",
        "Length of right, wrong and truncated completions",
        "where wrong ones alone grow, length is no sign of thought",
        &["completion/len_right*", "completion/len_wrong*", "completion/len_truncated*", "kept/len_*"],
        &[],
    ),
    curves("behaviours", "Behaviours", "as the task's own parser reads them", &["behaviour/*"], &[]),
    curves("held-out-behaviours", "Behaviours on held-out problems", "", &["eval/behaviour/*"], &[]),
    curves("words", "Words of reflection", "a word is no proof of what it says", &["words/*", "kept/words_*"], &[]),
    curves("held-out-words", "Words of reflection on held-out problems", "", &["eval/words/*"], &[]),
    Known {
        id: "reward-against-length",
        title: "Reward against length",
        note: "the way from the first step, a ring, to the last, a dot",
        left: &["completion/len_mean"],
        right: &["reward/mean"],
        kind: Kind::Path,
    },
    curves("verdicts", "Verdicts of the rollouts kept", "", &["kept/share_*"], &[]),
    curves("reward-parts", "Reward by verifier", "", &["reward/*"], &[]),
    curves(
        "entropy",
        "Entropy of the policy",
        "nats per token; a fall to 0 ends exploration",
        &["policy/entropy"],
        &[],
    ),
    curves("kl", "Divergence from the reference", "nats per token", &["policy/kl_ref"], &[]),
    curves("clip", "Clipped tokens", "share of trained tokens", &["policy/clip_*"], &[]),
    curves("truncated", "Truncated completions", "share of all", &["completion/truncated_frac"], &[]),
    curves("signal", "Groups without signal", "share of sampled groups", &["group/zero_signal_frac"], &[]),
    curves(
        "difficulty",
        "How hard prompts are",
        "share of groups, by how many of their completions are right",
        &["group/pass_rate/*"],
        &[],
    ),
    curves("mismatch", "Sampler against trainer", "0 where both are equal", &["policy/mismatch_kl"], &[]),
    curves(
        "router",
        "Loads of experts",
        "over the mean of their layer, 1 is even; entropy of the scores on the right, dashed",
        &["router/load_max", "router/load_min"],
        &["router/entropy"],
    ),
    curves("optim", "Norm of the gradient", "before clipping", &["optim/grad_norm"], &[]),
    curves("time", "Where a step's time goes", "seconds", &["time/*"], &[]),
    curves("speed", "Speed", "tokens per second", &["speed/*"], &[]),
];

/// The charts of a study, those without a number left out. Metrics that no known chart has are drawn after them, a chart
/// for each family.
pub fn of(study: &Study) -> Vec<Chart> {
    let all: BTreeSet<&String> = study.runs.iter().flat_map(|run| run.series.keys()).collect();
    let drawn = |name: &&&String| study.runs.iter().any(|run| run.points(name).next().is_some());
    let all: Vec<&String> = all.iter().filter(drawn).copied().collect();
    let mut shown: BTreeSet<&String> = BTreeSet::new();
    let mut charts = Vec::new();
    for known in KNOWN {
        let (left, right) = (matching(&all, known.left), matching(&all, known.right));
        // The mean and its spread have a chart already, or none.
        let left: Vec<&String> =
            left.into_iter().filter(|name| known.id != "reward-parts" || !NOT_PARTS.contains(&name.as_str())).collect();
        if left.is_empty() || known.kind == Kind::Path && right.is_empty() {
            continue;
        }
        shown.extend(left.iter().chain(&right));
        charts.push(Chart {
            id: known.id.into(),
            title: known.title.into(),
            note: known.note,
            left: left.into_iter().cloned().collect(),
            right: right.into_iter().cloned().collect(),
            kind: known.kind,
        });
    }
    let rest: Vec<&String> = all.into_iter().filter(|name| !shown.contains(name)).collect();
    for family in rest.chunk_by(|a, b| family(a) == family(b)) {
        let left = family.iter().map(|name| (*name).clone()).collect();
        let id = format!("more-{}", self::family(family[0]).replace('/', "-"));
        let title = format!("More of {}", self::family(family[0]));
        charts.push(Chart { id, title, note: "", left, right: Vec::new(), kind: Kind::Curves });
    }
    if study.arms.len() > 1 { charts.into_iter().flat_map(apart).collect() } else { charts }
}

/// Many metrics of several arms would be too many lines: a chart of more than two becomes one for each.
fn apart(chart: Chart) -> Vec<Chart> {
    if chart.left.len() <= 2 {
        return vec![chart];
    }
    let one = |name: &String| {
        let (id, title) = (format!("{}-{}", chart.id, name.replace('/', "-")), format!("{}: {name}", chart.title));
        Chart { id, title, left: vec![name.clone()], right: Vec::new(), ..chart.clone() }
    };
    chart.left.iter().map(one).collect()
}

/// Numbers under `reward/` that no verifier gave.
const NOT_PARTS: [&str; 3] = ["reward/mean", "reward/std", "reward/not_judged_frac"];

fn matching<'a>(all: &[&'a String], patterns: &[&str]) -> Vec<&'a String> {
    let fits = |name: &str| {
        patterns
            .iter()
            .any(|pattern| pattern.strip_suffix('*').map_or(name == *pattern, |start| name.starts_with(start)))
    };
    // What the run measured itself goes before what follows from the rollouts that it kept.
    let measured = all.iter().any(|name| fits(name) && !name.starts_with(PREFIX));
    all.iter().copied().filter(|name| fits(name) && (!measured || !name.starts_with(PREFIX))).collect()
}

/// What stands before the last `/`.
fn family(name: &str) -> &str {
    name.rsplit_once('/').map_or(name, |(family, _)| family)
}
