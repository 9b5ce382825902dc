//! A proportion of independent trials, and the chance that one of several tries succeeds.

use super::Interval;

/// The 97.5% quantile of the standard normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// Wilson's score interval at 95% for `successes` of `trials` (E. B. Wilson, J. Amer. Statist. Assoc. 22, 1927):
///
/// ```text
/// ( p + z²/2n ± z √( p(1-p)/n + z²/4n² ) ) / ( 1 + z²/n )
/// ```
///
/// It holds near 0 and 1, where the normal approximation has no width. Without trials it is the whole of 0 to 1.
pub fn wilson(successes: usize, trials: usize) -> Interval {
    if trials == 0 {
        return Interval { low: 0.0, high: 1.0 };
    }
    let (n, z2) = (trials as f64, Z * Z);
    let p = successes as f64 / n;
    let (center, scale) = (p + z2 / (2.0 * n), 1.0 + z2 / n);
    let half = Z * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
    // At either end rounding would leave the true bound by 1e-17.
    let low = if successes == 0 { 0.0 } else { (center - half) / scale };
    let high = if successes == trials { 1.0 } else { (center + half) / scale };
    Interval { low, high }
}

/// The chance that at least one of `k` completions drawn without replacement from `n`, of which `correct` are right, is
/// right: the unbiased estimate of pass@k (Chen et al. 2021, arXiv:2107.03374).
///
/// ```text
/// 1 - C(n - c, k) / C(n, k)  =  1 - Π_{i = 0..k-1} (n - c - i) / (n - i)
/// ```
///
/// # Panics
/// If `k` is above `n`, or `correct` is.
pub fn pass_at_k(n: usize, correct: usize, k: usize) -> f64 {
    assert!(k <= n && correct <= n, "pass@{k} of {correct} in {n}");
    let wrong = n - correct;
    1.0 - (0..k).map(|taken| wrong.saturating_sub(taken) as f64 / (n - taken) as f64).product::<f64>()
}
