//! Which completion is due next: so many of each prompt, or what an order of one's own says, which may wait to see what
//! others were worth.

use std::sync::Mutex;

use crate::parallel::lock;

/// What a worker does with a free place in its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// It begins this completion: the place of its prompt, and its number among those of the prompt.
    Now(usize, usize),
    /// Nothing yet; [`Order::wait`] is given the number, which stands for what is known now.
    Later(u64),
    /// Nothing more.
    Never,
}

/// The order in which completions begin.
pub trait Order: Sync {
    /// The next one; `at_hand` is the prompt whose keys and values the worker has.
    fn next(&self, at_hand: Option<usize>) -> Due;

    /// Returns once more is known than when [`Due::Later`] gave this number.
    fn wait(&self, known: u64);

    /// A completion has one more token. Returns whether anybody wants more of it; one that is not wanted ends.
    fn sampled(&self, _prompt: usize, _sample: usize, _token: u32) -> bool {
        true
    }
}

/// So many completions of each prompt.
pub(super) struct Fixed {
    /// Of each prompt, how many completions have begun.
    begun: Mutex<Vec<usize>>,
    group_size: usize,
}

impl Fixed {
    pub(super) fn new(prompts: usize, group_size: usize) -> Self {
        Self { begun: Mutex::new(vec![0; prompts]), group_size }
    }
}

impl Order for Fixed {
    /// Of the prompt at hand, else of one nobody has prefilled, else of any.
    fn next(&self, at_hand: Option<usize>) -> Due {
        let (mut begun, group_size) = (lock(&self.begun), self.group_size);
        let left = |begun: &usize| *begun < group_size;
        let prompt = at_hand
            .filter(|&p| left(&begun[p]))
            .or_else(|| begun.iter().position(|&begun| begun == 0 && group_size > 0))
            .or_else(|| begun.iter().position(left));
        let Some(prompt) = prompt else { return Due::Never };
        begun[prompt] += 1;
        Due::Now(prompt, begun[prompt] - 1)
    }

    fn wait(&self, _: u64) {}
}
