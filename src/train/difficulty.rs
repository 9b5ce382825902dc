//! What a run remembers of how hard its problems are, and which of them it asks next.
//!
//! Only rows that come again are remembered. Which rows are asked is a function of the seed, a count and
//! this memory, which is part of a checkpoint: a resumed run asks the same.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::{Curriculum, CurriculumConfig};

/// How the completions of one row fared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// Completions that were right.
    pub passed: u64,
    /// Completions that were judged.
    pub judged: u64,
    /// Groups in a row that were all right (above 0) or all wrong (below).
    pub streak: i64,
    /// The first step at which it is asked again.
    pub rests_until: u64,
}

/// Pass rates by source and row.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Difficulty(BTreeMap<usize, BTreeMap<usize, Seen>>);

impl Seen {
    /// The share that was right, with one completion more that counts half: unknown rows are at 1/2.
    fn pass_rate(&self) -> f64 {
        (self.passed as f64 + 0.5) / (self.judged as f64 + 1.0)
    }
}

impl Difficulty {
    /// What is known of a row.
    pub fn of(&self, source: usize, row: usize) -> Seen {
        self.0.get(&source).and_then(|rows| rows.get(&row)).copied().unwrap_or_default()
    }

    /// Rows that have been asked.
    pub fn seen(&self) -> impl Iterator<Item = &Seen> {
        self.0.values().flat_map(BTreeMap::values)
    }

    /// Adds a group of `judged` completions of which `passed` were right, sampled in `step`. A row that was all right, or
    /// all wrong, as often in a row as the config says rests.
    pub fn add(
        &mut self,
        (source, row): (usize, usize),
        [passed, judged]: [u64; 2],
        step: u64,
        config: &CurriculumConfig,
    ) {
        let seen = self.0.entry(source).or_default().entry(row).or_default();
        seen.passed += passed;
        seen.judged += judged;
        seen.streak = match passed {
            _ if judged == 0 => seen.streak,
            0 => seen.streak.min(0) - 1,
            all if all == judged => seen.streak.max(0) + 1,
            _ => 0,
        };
        if config.rest_after > 0 && seen.streak.unsigned_abs() >= config.rest_after {
            (seen.streak, seen.rests_until) = (0, step + 1 + config.rest_steps);
        }
    }

    /// Whether a row may be asked in `step`.
    pub fn is_awake(&self, (source, row): (usize, usize), step: u64) -> bool {
        self.of(source, row).rests_until <= step
    }

    /// Chooses `wanted` of the `turns` that come next, in their order: `done` of the run is behind it, from 0 to 1, and
    /// groups have `group_size` completions.
    pub fn choose(
        &self,
        turns: &[(usize, usize)],
        wanted: usize,
        order: Curriculum,
        done: f64,
        group_size: usize,
    ) -> Vec<usize> {
        let merit = |&(source, row): &(usize, usize)| {
            let p = self.of(source, row).pass_rate();
            match order {
                Curriculum::Uniform => 0.0,
                // The chance that a group has both.
                Curriculum::Balanced => 1.0 - p.powi(group_size as i32) - (1.0 - p).powi(group_size as i32),
                Curriculum::EasyToHard => -(p - (1.0 - done)).abs(),
            }
        };
        let merits: Vec<f64> = turns.iter().map(merit).collect();
        let mut places: Vec<usize> = (0..turns.len()).collect();
        places.sort_by(|&a, &b| merits[b].total_cmp(&merits[a]).then(a.cmp(&b)));
        places.truncate(wanted);
        places.sort_unstable();
        places
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: CurriculumConfig =
        CurriculumConfig { order: Curriculum::Balanced, pool: 3, rest_after: 2, rest_steps: 5, rows: None };

    #[test]
    fn rows_that_are_solved_or_hopeless_rest_for_a_while() {
        let mut memory = Difficulty::default();
        let row = (0, 7);
        for (step, passed, awake_next) in
            [(1, 4, true), (2, 4, false), (9, 0, true), (10, 2, true), (11, 0, true), (12, 0, false)]
        {
            memory.add(row, [passed, 4], step, &CONFIG);
            assert_eq!(memory.is_awake(row, step + 1), awake_next, "step {step}");
        }
        assert!(!memory.is_awake(row, 17) && memory.is_awake(row, 18), "five steps after step 12");
        assert_eq!((memory.of(0, 7).passed, memory.of(0, 7).judged), (10, 24));
        // What was not judged says nothing.
        let before = memory.of(0, 7);
        memory.add(row, [0, 0], 20, &CONFIG);
        assert_eq!(memory.of(0, 7), before);
    }

    #[test]
    fn rows_are_chosen_by_what_is_known_of_them_and_kept_in_order() {
        let mut memory = Difficulty::default();
        for (row, passed) in [(0, 8), (1, 4), (2, 1), (3, 0)] {
            memory.add((0, row), [passed, 8], 1, &CONFIG);
        }
        let turns = [(0, 0), (0, 1), (0, 2), (0, 3), (1, 9)];
        let choose = |order, done, wanted| memory.choose(&turns, wanted, order, done, 8);
        assert_eq!(choose(Curriculum::Uniform, 0.0, 3), [0, 1, 2]);
        // The one of another source is unknown: as good as 1/2.
        assert_eq!(choose(Curriculum::Balanced, 0.0, 2), [1, 4]);
        assert_eq!(choose(Curriculum::Balanced, 0.0, 3), [1, 2, 4]);
        assert_eq!(choose(Curriculum::EasyToHard, 0.0, 1), [0]);
        assert_eq!(choose(Curriculum::EasyToHard, 1.0, 2), [2, 3]);
        let text = serde_json::to_string(&memory).unwrap();
        assert_eq!(serde_json::from_str::<Difficulty>(&text).unwrap(), memory);
    }
}
