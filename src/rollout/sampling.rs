//! From a row of logits to a token and its log-probability. One uniform number decides.

use crate::ops::linear_logprob::{argmax, normalise};
use crate::ops::{exp, vectorised};

/// How completions are sampled.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the most likely token.
    pub temperature: f32,
    /// Keep the smallest set of tokens that holds this much probability; 1 keeps all.
    pub top_p: f32,
    /// Keep this many of the most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep tokens at least this likely relative to the most likely one; 0 keeps all.
    pub min_p: f32,
    /// Longest completion, in tokens.
    pub max_new_tokens: usize,
    /// Tokens that end a completion.
    pub stop_tokens: Vec<u32>,
    /// Texts that end a completion; they stay part of it, unless one is a special token.
    pub stop_strings: Vec<String>,
}

/// A sampled token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampled {
    /// Its id.
    pub token: u32,
    /// Its log-probability at the sampling temperature, before top-p, top-k and min-p.
    pub logprob: f32,
}

impl Sampling {
    /// Whether every token may be sampled.
    pub(super) fn keeps_all(&self) -> bool {
        self.top_p >= 1.0 && self.top_k == 0 && self.min_p <= 0.0
    }

    /// The temperature at which log-probabilities are taken: that of sampling, 1 when sampling is greedy.
    pub fn logprob_temperature(&self) -> f32 {
        if self.temperature > 0.0 { self.temperature } else { 1.0 }
    }

    /// Chooses a token by `uniform` in `[0, 1)`; `logits` is overwritten.
    ///
    /// The log-probability is that of the whole distribution at the temperature, before top-p, top-k and min-p.
    pub fn sample(&self, logits: &mut [f32], uniform: f64) -> Sampled {
        let stats = normalise(logits, self.logprob_temperature());
        let token = if self.temperature <= 0.0 {
            argmax(logits)
        } else if self.keeps_all() {
            sample_any(logits, stats.lse, uniform)
        } else {
            self.sample_kept(logits, stats.lse, uniform)
        };
        Sampled { token: token as u32, logprob: logits[token] - stats.lse }
    }

    fn sample_kept(&self, z: &[f32], lse: f32, uniform: f64) -> usize {
        let mut kept: Vec<(usize, f32)> = z.iter().map(|z| exp(z - lse)).enumerate().collect();
        let count = if self.top_k == 0 { kept.len() } else { self.top_k.min(kept.len()) };
        let (mut total, mut end, mut sorted) = (0.0, 0, 0);
        // Few of a large vocabulary are kept: only as many are put into order as are looked at.
        while end == sorted && end < count {
            sorted = (sorted * 8).max(64).min(count);
            sort_first(&mut kept[end..], sorted - end);
            let floor = kept[0].1 * self.min_p;
            while end < sorted && (end == 0 || (total < f64::from(self.top_p) && kept[end].1 >= floor)) {
                total += f64::from(kept[end].1);
                end += 1;
            }
        }
        let mut left = uniform * total;
        for &(token, p) in &kept[..end] {
            left -= f64::from(p);
            if left < 0.0 {
                return token;
            }
        }
        kept[end - 1].0
    }
}

/// Puts the `n` most likely tokens first, in order. Equal probabilities stay in the order of their ids, so that the draw
/// is the same everywhere.
fn sort_first(tokens: &mut [(usize, f32)], n: usize) {
    let order = |a: &(usize, f32), b: &(usize, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    if n < tokens.len() {
        tokens.select_nth_unstable_by(n, order);
    }
    tokens[..n].sort_unstable_by(order);
}

/// The first token at which the cumulative probability passes `uniform`.
fn sample_any(z: &[f32], lse: f32, uniform: f64) -> usize {
    let token = vectorised(
        #[inline(always)]
        || {
            let mut left = uniform;
            z.iter().position(|&z| {
                left -= f64::from(exp(z - lse));
                left < 0.0
            })
        },
    );
    token.unwrap_or_else(|| argmax(z))
}

#[cfg(test)]
mod tests {
    use super::*;
    use reckon_datasets::Counted;

    fn sampling(temperature: f32, top_p: f32, top_k: usize, min_p: f32) -> Sampling {
        let (stop_tokens, stop_strings) = (Vec::new(), Vec::new());
        Sampling { temperature, top_p, top_k, min_p, max_new_tokens: 1, stop_tokens, stop_strings }
    }

    /// Share of 20,000 draws that each of three tokens of probability 0.6, 0.3, 0.1 gets.
    fn shares(sampling: &Sampling) -> [f64; 3] {
        let mut stream = Counted::new(&[5]);
        let mut counts = [0.0; 3];
        for _ in 0..20_000 {
            let mut z = [0.6f32.ln() + 3.0, 0.3f32.ln() + 3.0, 0.1f32.ln() + 3.0];
            let Sampled { token, logprob } = sampling.sample(&mut z, stream.unit());
            counts[token as usize] += 1.0 / 20_000.0;
            let temperature = f64::from(sampling.logprob_temperature());
            let powers = [0.6f64, 0.3, 0.1].map(|p| p.powf(1.0 / temperature));
            let expected = (powers[token as usize] / powers.iter().sum::<f64>()).ln();
            assert!((f64::from(logprob) - expected).abs() < 1e-5, "log-probability {logprob}, not {expected}");
        }
        counts
    }

    #[test]
    fn draws_follow_the_kept_part_of_the_distribution() {
        let table = [
            (sampling(1.0, 1.0, 0, 0.0), [0.6, 0.3, 0.1]),
            (sampling(0.0, 1.0, 0, 0.0), [1.0, 0.0, 0.0]),
            (sampling(1.0, 0.8, 0, 0.0), [0.667, 0.333, 0.0]),
            (sampling(1.0, 1.0, 1, 0.0), [1.0, 0.0, 0.0]),
            (sampling(1.0, 1.0, 0, 0.4), [0.667, 0.333, 0.0]),
            (sampling(0.5, 1.0, 0, 0.0), [0.783, 0.196, 0.022]),
        ];
        for (sampling, expected) in table {
            let shares = shares(&sampling);
            let close = shares.iter().zip(expected).all(|(s, e): (&f64, f64)| (s - e).abs() < 0.015);
            assert!(close, "{sampling:?}: {shares:?}, not {expected:?}");
        }
    }

    #[test]
    fn a_large_vocabulary_is_cut_where_sorting_all_of_it_would_cut_it() {
        let mut stream = Counted::new(&[6]);
        // Few distinct values, so that ties decide too.
        let z: Vec<f32> = (0..3000).map(|_| (stream.normal() * 4.0).round() as f32 / 2.0).collect();
        for (top_p, top_k, min_p) in [(0.3, 0, 0.0), (0.95, 0, 0.0), (0.9999, 0, 0.0), (1.0, 700, 0.0), (0.9, 0, 0.02)]
        {
            let sampling = sampling(1.0, top_p, top_k, min_p);
            let mut normal = z.clone();
            let lse = normalise(&mut normal, 1.0).lse;
            let mut all: Vec<(usize, f32)> = normal.iter().map(|z| exp(z - lse)).enumerate().collect();
            all.sort_by(|a, b| b.1.total_cmp(&a.1));
            let floor = all[0].1 * min_p;
            let mut total = 0.0;
            let mut kept = Vec::new();
            for &(token, p) in all.iter().take(if top_k == 0 { all.len() } else { top_k }) {
                if !kept.is_empty() && (total >= f64::from(top_p) || p < floor) {
                    break;
                }
                total += f64::from(p);
                kept.push(token);
            }
            // The last kept token is drawn just below 1, the first at 0.
            assert_eq!(sampling.sample(&mut z.clone(), 0.0).token as usize, kept[0]);
            assert_eq!(
                sampling.sample(&mut z.clone(), 1.0 - 1e-12).token as usize,
                kept[kept.len() - 1],
                "{sampling:?}"
            );
        }
    }
}
