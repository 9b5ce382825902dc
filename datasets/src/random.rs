//! Counted random numbers: a value depends on a key and a counter alone, never on what was drawn before it elsewhere.
//! So a sample does not change with the batch it is drawn in, and a restart needs no generator state.

/// A stream of random numbers named by a list of integers, such as `[seed, step, prompt, sample]`.
///
/// Draw `n` of a stream is a pure function of the names and `n` (SplitMix64, Steele et al. 2014, over a mixed key).
///
/// ```
/// use reckon_datasets::Counted;
/// let mut stream = Counted::new(&[7, 0, 3]);
/// let first = stream.next_u64();
/// assert_eq!(first, Counted::new(&[7, 0, 3]).next_u64());
/// assert_ne!(first, Counted::new(&[7, 0, 4]).next_u64());
/// ```
#[derive(Debug, Clone)]
pub struct Counted {
    key: u64,
    counter: u64,
}

/// 2^64 divided by the golden ratio, the increment of SplitMix64.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finalizer of SplitMix64: every input bit reaches every output bit.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Counted {
    /// The stream with these names. The order of the names matters.
    pub fn new(names: &[u64]) -> Self {
        let key =
            names.iter().fold(GOLDEN, |key, &name| mix(key ^ mix(name.wrapping_add(GOLDEN))).wrapping_add(GOLDEN));
        Self { key, counter: 0 }
    }

    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.counter += 1;
        mix(self.key.wrapping_add(self.counter.wrapping_mul(GOLDEN)))
    }

    /// A number in `[0, 1)` with 53 random bits.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A whole number in `0..bound`; 0 when `bound` is 0. The bias is below 2^-32 for bounds below 2^32.
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next_u64()) * bound as u128) >> 64) as usize
    }

    /// A draw from the standard normal distribution (Box and Muller 1958).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// Puts `items` in random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_with_different_names_differ_and_the_mean_is_a_half() {
        let mut total = 0.0;
        for name in 0..1000 {
            total += Counted::new(&[1, name]).unit();
        }
        assert!((total / 1000.0 - 0.5).abs() < 0.03, "mean {}", total / 1000.0);
        assert_ne!(Counted::new(&[1, 2]).next_u64(), Counted::new(&[2, 1]).next_u64());
    }

    #[test]
    fn below_reaches_every_value_and_stays_below() {
        let mut seen = [0usize; 7];
        let mut stream = Counted::new(&[3]);
        (0..7000).for_each(|_| seen[stream.below(7)] += 1);
        assert!(seen.iter().all(|&count| (800..1200).contains(&count)), "{seen:?}");
    }

    #[test]
    fn normal_has_unit_variance() {
        let mut stream = Counted::new(&[9]);
        let draws: Vec<f64> = (0..20_000).map(|_| stream.normal()).collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / draws.len() as f64;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05, "mean {mean}, variance {variance}");
    }
}
