//! How a step's completions are shared out among its prompts, where groups differ in size: a group stops where its first
//! completions decide it, and the next prompt has the rest; a group without a signal is replaced while others are still
//! sampled.
//!
//! A prompt begins as soon as what is known of those before it makes sure that it will be among those that are asked, and
//! not before. So which prompts are asked, and how often, is a function of the rewards alone, whoever is judged first.

use std::sync::{Condvar, Mutex, PoisonError};

use crate::config::GoesOn;
use crate::grpo::has_signal;
use crate::judge::{Rollout, Watch};
use crate::parallel::lock;
use crate::rollout::{Due, Order};

/// What there is to share out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rations {
    /// Completions of a group that are judged before its others are sampled.
    pub(super) probe: usize,
    /// Which groups go on then: those of equal rewards, a probe at a time until they differ (`Flat`), or those of
    /// rewards that differ, to their full size (`Mixed`).
    pub(super) goes_on: GoesOn,
    /// Completions of a group that goes on.
    pub(super) group_size: usize,
    /// Groups with a signal that are enough.
    pub(super) wanted: usize,
    /// Completions that there are for all groups.
    pub(super) completions: usize,
}

impl Rations {
    /// Prompts that may come to be asked.
    pub(super) fn prompts(&self) -> usize {
        self.completions.saturating_sub(self.group_size) / self.probe + 1
    }
}

/// What a completion is worth: of the prompt at this place, with this number among its completions.
type Reward = dyn Fn(usize, usize, &Rollout) -> Option<f32> + Send + Sync;

/// The order of a step's completions.
pub(super) struct Rationed {
    rations: Rations,
    reward: Box<Reward>,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    groups: Vec<GroupState>,
    /// Verdicts so far.
    known: u64,
    /// Whether a verifier has failed, so that nothing more is worth sampling.
    failed: bool,
}

/// A prompt and what is known of its completions.
#[derive(Clone)]
struct GroupState {
    begun: usize,
    /// Completions after which it is decided whether it goes on.
    portion: usize,
    /// By sample: its reward once it is judged, which may be none.
    rewards: Vec<Option<Option<f32>>>,
    /// Completions that the group has in the end, once that is known.
    size: Option<usize>,
    /// Whether it has a signal, once that is known.
    signal: Option<bool>,
}

impl GroupState {
    fn has_due(&self) -> bool {
        self.begun < self.size.unwrap_or(self.portion)
    }

    /// Decides what its verdicts decide.
    fn decide(&mut self, rations: &Rations) {
        while self.size.is_none() {
            let Some(signal) = self.signal_of(self.portion) else { return };
            if self.portion == rations.group_size || signal == (rations.goes_on == GoesOn::Flat) {
                self.size = Some(self.portion);
            } else if signal {
                self.size = Some(rations.group_size);
            } else {
                self.portion = (self.portion + rations.probe).min(rations.group_size);
            }
        }
        self.signal = self.size.and_then(|size| self.signal_of(size));
    }

    /// Whether the first `count` completions have a signal, once all of them are judged.
    fn signal_of(&self, count: usize) -> Option<bool> {
        let rewards: Option<Vec<Option<f32>>> = self.rewards[..count].iter().copied().collect();
        rewards.map(|rewards| has_signal(&rewards))
    }
}

impl State {
    /// How many prompts are sure to be asked: groups and completions of those before, at most, leave room for them.
    fn sure(&self, rations: &Rations) -> usize {
        let (mut signals, mut completions) = (0, 0);
        for (place, group) in self.groups.iter().enumerate() {
            if signals >= rations.wanted || completions + rations.group_size > rations.completions {
                return place;
            }
            signals += usize::from(group.signal != Some(false));
            completions += group.size.unwrap_or(rations.group_size);
        }
        self.groups.len()
    }
}

impl Rationed {
    /// For so many prompts, of which all may come to be asked.
    pub(super) fn new(rations: Rations, prompts: usize, reward: Box<Reward>) -> Self {
        let rewards = vec![None; rations.group_size];
        let group =
            GroupState { begun: 0, portion: rations.probe.min(rations.group_size), rewards, size: None, signal: None };
        let state = State { groups: vec![group; prompts], known: 0, failed: false };
        Self { rations, reward, state: Mutex::new(state), changed: Condvar::new() }
    }

    fn tell(&self, change: impl FnOnce(&mut State)) {
        let mut state = lock(&self.state);
        change(&mut state);
        state.known += 1;
        drop(state);
        self.changed.notify_all();
    }
}

impl Order for Rationed {
    fn next(&self, at_hand: Option<usize>) -> Due {
        let mut state = lock(&self.state);
        if state.failed {
            return Due::Never;
        }
        let sure = state.sure(&self.rations);
        let due = |place: &usize| state.groups[*place].has_due();
        let prompt = at_hand
            .filter(|place| *place < sure && due(place))
            .or_else(|| (0..sure).find(|&place| state.groups[place].begun == 0))
            .or_else(|| (0..sure).find(due));
        if let Some(prompt) = prompt {
            state.groups[prompt].begun += 1;
            return Due::Now(prompt, state.groups[prompt].begun - 1);
        }
        let waits = |group: &GroupState| group.rewards[..group.begun].iter().any(Option::is_none);
        if state.groups.iter().any(waits) { Due::Later(state.known) } else { Due::Never }
    }

    fn wait(&self, known: u64) {
        let mut state = lock(&self.state);
        while state.known == known {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Watch for Rationed {
    fn judged(&self, prompt: usize, sample: usize, rollout: &Rollout) {
        let reward = (self.reward)(prompt, sample, rollout);
        self.tell(|state| {
            let group = &mut state.groups[prompt];
            group.rewards[sample] = Some(reward);
            group.decide(&self.rations);
        });
    }

    fn failed(&self) {
        self.tell(|state| state.failed = true);
    }

    fn sizes(&self) -> Vec<usize> {
        lock(&self.state).groups.iter().map(|group| group.begun).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shares out completions whose rewards follow from prompt and sample, judged late by the numbers of `delays`.
    fn asked(rations: Rations, delays: &[usize], reward: impl Fn(usize, usize) -> f32) -> Vec<usize> {
        let rationed = Rationed::new(rations, rations.prompts(), Box::new(|_, _, _| None));
        let (mut waiting, mut step): (Vec<(usize, usize, usize)>, usize) = (Vec::new(), 0);
        loop {
            let due = rationed.next(None);
            if let Due::Now(prompt, sample) = due {
                waiting.push((step + delays[step % delays.len()], prompt, sample));
            }
            if due == Due::Never && waiting.is_empty() {
                break;
            }
            let soonest = waiting.iter().map(|(at, ..)| *at).min().unwrap_or(step);
            if matches!(due, Due::Later(_) | Due::Never) {
                step = step.max(soonest);
            }
            for (_, prompt, sample) in waiting.extract_if(.., |(at, ..)| *at <= step) {
                rationed.tell(|state| {
                    let group = &mut state.groups[prompt];
                    group.rewards[sample] = Some(Some(reward(prompt, sample)));
                    group.decide(&rations);
                });
            }
            step += 1;
        }
        let sizes = rationed.sizes();
        let asked = sizes.iter().position(|&size| size == 0).unwrap_or(sizes.len());
        assert!(sizes[asked..].iter().all(|&size| size == 0), "prompts are asked in their order: {sizes:?}");
        sizes[..asked].to_vec()
    }

    /// Every third prompt has right and wrong completions among its first, every fourth only later.
    fn mixed(prompt: usize, sample: usize) -> f32 {
        f32::from(u8::from(prompt.is_multiple_of(3) && sample == 1 || prompt % 4 == 2 && sample == 5))
    }

    #[test]
    fn who_is_judged_first_changes_nothing() {
        for rations in [
            Rations { probe: 4, goes_on: GoesOn::Mixed, group_size: 8, wanted: 6, completions: 48 },
            Rations { probe: 8, goes_on: GoesOn::Mixed, group_size: 8, wanted: 4, completions: 96 },
            Rations { probe: 2, goes_on: GoesOn::Mixed, group_size: 8, wanted: 100, completions: 41 },
            Rations { probe: 2, goes_on: GoesOn::Flat, group_size: 8, wanted: 100, completions: 48 },
            Rations { probe: 3, goes_on: GoesOn::Flat, group_size: 8, wanted: 3, completions: 48 },
        ] {
            let expected = asked(rations, &[0], mixed);
            for delays in [&[1][..], &[50], &[7, 0, 31, 2], &[0, 100, 3]] {
                assert_eq!(asked(rations, delays, mixed), expected, "{rations:?} late by {delays:?}");
            }
        }
    }

    #[test]
    fn flat_groups_stop_and_leave_their_rest_to_others() {
        let rations = Rations { probe: 4, goes_on: GoesOn::Mixed, group_size: 8, wanted: 6, completions: 48 };
        // 8 + 4 + 4 + 8 + 4 + 4 + 8 and 40 are used: another may be 8 long.
        assert_eq!(asked(rations, &[0], mixed), [8, 4, 4, 8, 4, 4, 8, 4]);
        // All with a signal: as many as without a probe. None: as many as fit.
        assert_eq!(asked(rations, &[0], |_, sample| sample as f32), [8; 6]);
        assert_eq!(asked(rations, &[0], |_, _| 1.0), [4; 11]);
        // Whole groups are replaced until enough have a signal, or nothing is left.
        let whole = Rations { probe: 8, goes_on: GoesOn::Mixed, group_size: 8, wanted: 2, completions: 48 };
        assert_eq!(asked(whole, &[0], mixed), [8; 3]);
        assert_eq!(asked(whole, &[0], |_, _| 0.0), [8; 6]);
        // The other way round: those with a signal stop, the others grow until they have one.
        let growing = Rations { probe: 3, goes_on: GoesOn::Flat, group_size: 8, wanted: 99, completions: 32 };
        assert_eq!(asked(growing, &[0], mixed), [3, 8, 6, 3, 8]);
        assert_eq!(asked(growing, &[0], |_, _| 0.0), [8; 4]);
    }
}
