//! What a completion that ran out of tokens, or nearly did, is worth. When that is asked is left to the trainer.

/// What a completion that ran out of tokens is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truncated {
    /// Reward 0, like any wrong completion.
    Zero,
    /// Left out of the objective (DAPO's overlong filtering).
    Mask,
    /// Whatever its verdict, plus [`soft_overlong`], which also applies to completions that nearly ran out.
    SoftOverlong {
        /// `L_cache`: the last tokens before the limit, over which the punishment grows.
        buffer: usize,
    },
}

/// DAPO's punishment for a completion of `length` tokens near or at the limit, to be added to its reward.
///
/// ```text
/// 0                                      length <= max_length - buffer
/// (max_length - buffer - length)/buffer  up to max_length
/// -1                                     beyond                          (arXiv:2503.14476, eq. 13)
/// ```
/// Made for rewards of 1 and -1. With rewards of 1 and 0 it weighs twice as much against the reward.
pub fn soft_overlong(length: usize, max_length: usize, buffer: usize) -> f32 {
    let free = max_length.saturating_sub(buffer);
    if length <= free {
        0.0
    } else if length <= max_length {
        -((length - free) as f32) / (max_length - free) as f32
    } else {
        -1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_overlong_punishment_grows_over_the_buffer() {
        let check = |length, expected| assert_eq!(soft_overlong(length, 100, 20), expected, "{length}");
        check(0, 0.0);
        check(80, 0.0);
        check(85, -0.25);
        check(100, -1.0);
        check(101, -1.0);
        assert_eq!(soft_overlong(5, 10, 20), -0.5, "a buffer beyond the limit is the limit");
        assert_eq!((soft_overlong(10, 10, 0), soft_overlong(11, 10, 0)), (0.0, -1.0));
    }
}
