//! From prompts to judged groups: where sampler and judge meet. Training and evaluation both come here.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use anyhow::Result;
use reckon_rewards::Scope;
use serde::{Deserialize, Serialize};

use crate::behaviours::Behaviours;
use crate::environment::Environment;
use crate::judge::{Group, Judge, Judged, Watch};
use crate::parallel::lock;
use crate::policy::Policy;
use crate::prompt::Prompt;
use crate::ranks::Ranks;
use crate::rollout::{Calling, Due, Order, PromptTokens, Request, SampleKey, Sampler, Sampling};

/// What samples, and what judges.
#[derive(Clone, Copy)]
pub struct Rollouts<'a> {
    /// The model that is sampled from.
    pub policy: &'a Policy,
    /// What samples.
    pub sampler: &'a dyn Sampler,
    /// What judges.
    pub judge: &'a Judge,
    /// How completions are sampled.
    pub sampling: &'a Sampling,
    /// What is counted in them.
    pub behaviours: &'a Behaviours,
    /// What completions may call.
    pub environment: Option<&'a Environment>,
    /// Who shares the work: each rank samples and judges some of the prompts, and has all groups in the end.
    pub ranks: Option<&'a Ranks>,
    /// Whether completions come with the experts that their tokens went to.
    pub routed: bool,
}

/// Seconds of sampling and judging. They overlap: completions are judged while others are being sampled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct RolloutTimes {
    /// From the first prefill to the last token.
    pub sample_s: f64,
    /// From the last token to the last verdict: what judging adds.
    pub verify_s: f64,
}

impl RolloutTimes {
    /// Adds those of another call.
    pub fn add(&mut self, next: Self) {
        self.sample_s += next.sample_s;
        self.verify_s += next.verify_s;
    }
}

/// Which completions begin when, by what others were worth.
pub trait Ration: Order + Watch {}

impl<T: Order + Watch> Ration for T {}

impl Rollouts<'_> {
    /// `group_size` judged completions of every prompt.
    pub fn groups(
        &self,
        prompts: Vec<Prompt>,
        group_size: usize,
        key: SampleKey,
    ) -> Result<(Vec<Group>, RolloutTimes)> {
        self.rationed(prompts, group_size, key, None)
    }

    /// The same, or as many completions of as many prompts as `ration` has them.
    pub fn rationed(
        &self,
        prompts: Vec<Prompt>,
        group_size: usize,
        key: SampleKey,
        ration: Option<Arc<dyn Ration>>,
    ) -> Result<(Vec<Group>, RolloutTimes)> {
        if let Some(ranks) = self.ranks.filter(|ranks| ranks.size() > 1) {
            return self.shared(ranks, prompts, group_size, key, ration);
        }
        let sizes = ration.clone();
        let order = ration.as_deref().map(|ration| ration as &dyn Order);
        let watch = ration.clone().map(|ration| ration as Arc<dyn Watch>);
        let (prompts, judged, times) = self.judged(prompts, group_size, key, watch, order)?;
        let sizes = sizes.map_or_else(|| vec![group_size; prompts.len()], |ration| ration.sizes());
        Ok((self.judge.groups(prompts, sizes, judged)?, times))
    }

    /// Samples and judges what `order` has begin; all completions of every prompt without it.
    fn judged(
        &self,
        prompts: Vec<Prompt>,
        group_size: usize,
        key: SampleKey,
        watch: Option<Arc<dyn Watch>>,
        order: Option<&dyn Order>,
    ) -> Result<(Vec<Prompt>, Vec<Judged>, RolloutTimes)> {
        let start = Instant::now();
        let judging = self.judge.begin(prompts, group_size, watch);
        let prompts: Vec<PromptTokens> = judging.prompts().iter().map(PromptTokens::from).collect();
        let asked = self.environment.map(|environment| (environment, environment.asked_by(judging.prompts())));
        let calling = asked.as_ref().map(|(environment, tools)| Calling { turns: &environment.turns, tools });
        let request = Request {
            prompts: &prompts,
            group_size,
            sampling: self.sampling,
            key,
            calling,
            order,
            routed: self.routed,
        };
        self.sampler.sample(self.policy, &request, &|prompt, sample, completion| {
            judging.take(prompt, sample, completion);
        })?;
        let sampled = Instant::now();
        let (prompts, judged) = judging.verdicts()?;
        let (sample_s, verify_s) = ((sampled - start).as_secs_f64(), sampled.elapsed().as_secs_f64());
        Ok((prompts, judged, RolloutTimes { sample_s, verify_s }))
    }

    /// The same by several ranks, in rounds: whatever is due now is shared out, and what is due next is known once all of
    /// it is judged. So all ranks have the same groups, and those of one process.
    fn shared(
        &self,
        ranks: &Ranks,
        prompts: Vec<Prompt>,
        group_size: usize,
        key: SampleKey,
        ration: Option<Arc<dyn Ration>>,
    ) -> Result<(Vec<Group>, RolloutTimes)> {
        let (mut all, mut times) = (Vec::new(), RolloutTimes::default());
        let every = (0..prompts.len()).flat_map(|prompt| (0..group_size).map(move |sample| (prompt, sample)));
        let mut due = ration.as_deref().map_or_else(|| every.collect(), due_now);
        while !due.is_empty() {
            let start = Instant::now();
            let own = Listed::new(self.own(ranks, &due));
            let made = self.judged(prompts.clone(), group_size, key, None, Some(&own));
            let verify_s = made.as_ref().map_or(0.0, |(.., times)| times.verify_s);
            let mut round: Vec<Judged> = ranks.agree(made.map(|(_, judged, _)| judged))?.concat();
            times.add(RolloutTimes { sample_s: start.elapsed().as_secs_f64() - verify_s, verify_s });
            round.sort_by_key(|(prompt, sample, _)| (*prompt, *sample));
            for (prompt, sample, rollout) in &round {
                ration.iter().for_each(|ration| ration.judged(*prompt, *sample, rollout));
            }
            all.append(&mut round);
            due = ration.as_deref().map_or_else(Vec::new, due_now);
        }
        let sizes = ration.map_or_else(|| vec![group_size; prompts.len()], |ration| ration.sizes());
        Ok((self.judge.groups(prompts, sizes, all)?, times))
    }

    /// Which of the completions that are due are this rank's: whole prompts in turn, or where there are fewer than ranks,
    /// and no verifier wants whole groups, completions in turn.
    fn own(&self, ranks: &Ranks, due: &[(usize, usize)]) -> Vec<(usize, usize)> {
        let prompts: Vec<usize> = due.iter().map(|(prompt, _)| *prompt).collect::<BTreeSet<_>>().into_iter().collect();
        let grouped = self.judge.rubrics().iter().any(|rubric| rubric.scope() == Scope::Group);
        let whole = grouped || prompts.len() >= ranks.size();
        let owner = |index: usize, prompt: usize| match whole {
            true => prompts.binary_search(&prompt).unwrap_or_default() % ranks.size(),
            false => index * ranks.size() / due.len(),
        };
        let owned = due.iter().enumerate().filter(|(index, (prompt, _))| owner(*index, *prompt) == ranks.rank());
        owned.map(|(_, completion)| *completion).collect()
    }
}

/// What may begin now, by prompt and sample.
fn due_now(ration: &dyn Ration) -> Vec<(usize, usize)> {
    let next = || match ration.next(None) {
        Due::Now(prompt, sample) => Some((prompt, sample)),
        Due::Later(_) | Due::Never => None,
    };
    let mut due: Vec<_> = std::iter::from_fn(next).collect();
    due.sort_unstable();
    due
}

/// Completions that are known before sampling begins.
struct Listed(Mutex<List>);

struct List {
    left: Vec<(usize, usize)>,
    begun: BTreeSet<usize>,
}

impl Listed {
    fn new(left: Vec<(usize, usize)>) -> Self {
        Self(Mutex::new(List { left, begun: BTreeSet::new() }))
    }
}

impl Order for Listed {
    /// Of the prompt at hand, else of one nobody has prefilled, else of any.
    fn next(&self, at_hand: Option<usize>) -> Due {
        let List { left, begun } = &mut *lock(&self.0);
        let of = |wanted: &dyn Fn(usize) -> bool| left.iter().position(|(prompt, _)| wanted(*prompt));
        let place = of(&|prompt| Some(prompt) == at_hand).or_else(|| of(&|prompt| !begun.contains(&prompt)));
        let Some(place) = place.or_else(|| of(&|_| true)) else { return Due::Never };
        let (prompt, sample) = left.remove(place);
        begun.insert(prompt);
        Due::Now(prompt, sample)
    }

    fn wait(&self, _: u64) {}
}
