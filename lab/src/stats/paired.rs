//! Two policies on the same problems.

/// How two policies fare on the same problems.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Paired {
    /// Problems that both were judged on.
    pub problems: usize,
    /// Solved by the first alone.
    pub only_first: usize,
    /// Solved by the second alone.
    pub only_second: usize,
    /// McNemar's exact p-value, two-sided.
    pub p: f64,
}

/// Compares two policies, problem by problem; one that either was not judged on counts nowhere.
pub fn mcnemar(first: &[Option<bool>], second: &[Option<bool>]) -> Paired {
    let mut paired = Paired { problems: 0, only_first: 0, only_second: 0, p: 1.0 };
    for (first, second) in first.iter().zip(second).filter_map(|(a, b)| Some(((*a)?, (*b)?))) {
        paired.problems += 1;
        paired.only_first += usize::from(first && !second);
        paired.only_second += usize::from(second && !first);
    }
    paired.p = mcnemar_exact(paired.only_first, paired.only_second);
    paired
}

/// The two-sided p-value of McNemar's exact test: were both policies alike, each problem that only one of them solves
/// would be a fair coin.
///
/// ```text
/// min(1, 2 P(X <= min(b, c))),   X ~ Binomial(b + c, 1/2)
/// ```
pub fn mcnemar_exact(only_first: usize, only_second: usize) -> f64 {
    let (n, k) = (only_first + only_second, only_first.min(only_second));
    // Terms C(n, i) / 2^n by their logarithms: 2^-n alone is 0 from n = 1075 on.
    let mut log_term = -(n as f64) * std::f64::consts::LN_2;
    let mut tail = log_term.exp();
    for i in 0..k {
        log_term += ((n - i) as f64 / (i + 1) as f64).ln();
        tail += log_term.exp();
    }
    (2.0 * tail).min(1.0)
}
