//! What a completion that ran out of tokens, or nearly did, is worth. When that is asked is left to the trainer.

/// What a completion that ran out of tokens is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truncated {
    /// Reward 0, like any wrong completion.
    Zero,
    /// Left out of the objective (DAPO's overlong filtering).
    Mask,
    /// Whatever its verdict, plus [`reckon_rewards::soft_overlong`], which also applies to completions that nearly ran out.
    SoftOverlong {
        /// `L_cache`: the last tokens before the limit, over which the punishment grows.
        buffer: usize,
    },
}
