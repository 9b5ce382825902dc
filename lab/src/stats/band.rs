//! What several seeds say together.

use super::{Interval, mean};

/// One number of several seeds: their mean, the least and the greatest, and an interval of the mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Band {
    /// Mean over the seeds.
    pub mean: f64,
    /// The lowest seed.
    pub min: f64,
    /// The highest seed.
    pub max: f64,
    /// Student's 95% interval of the mean; with one seed there is none.
    pub interval: Option<Interval>,
}

/// The band of the values that are finite; `None` where none is.
pub fn band(values: &[f64]) -> Option<Band> {
    let values: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    if values.is_empty() {
        return None;
    }
    let (n, mean) = (values.len(), mean(&values));
    let deviation = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n.max(2) - 1) as f64).sqrt();
    let half = t_975(n - 1) * deviation / (n as f64).sqrt();
    Some(Band {
        mean,
        min: values.iter().copied().fold(f64::INFINITY, f64::min),
        max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        interval: (n > 1).then_some(Interval { low: mean - half, high: mean + half }),
    })
}

/// The 97.5% quantile of Student's t with `degrees` of freedom. From 30 on by the first three terms of its expansion
/// in 1 / degrees (Cornish and Fisher), which is right to 1e-5 there.
pub fn t_975(degrees: usize) -> f64 {
    if let Some(quantile) = TABLE.get(degrees) {
        return *quantile;
    }
    let (z, n) = (1.959_963_984_540_054_f64, degrees as f64);
    let (z3, z5, z7) = (z.powi(3), z.powi(5), z.powi(7));
    z + (z3 + z) / (4.0 * n)
        + (5.0 * z5 + 16.0 * z3 + 3.0 * z) / (96.0 * n * n)
        + (3.0 * z7 + 19.0 * z5 + 17.0 * z3 - 15.0 * z) / (384.0 * n * n * n)
}

/// The same from a table: the place is the number of degrees.
#[rustfmt::skip]
const TABLE: [f64; 30] = [
    f64::INFINITY, 12.706_204_74, 4.302_652_73, 3.182_446_31, 2.776_445_11, 2.570_581_84,
    2.446_911_85, 2.364_624_25, 2.306_004_14, 2.262_157_16, 2.228_138_85, 2.200_985_16,
    2.178_812_83, 2.160_368_66, 2.144_786_69, 2.131_449_55, 2.119_905_30, 2.109_815_58,
    2.100_922_04, 2.093_024_05, 2.085_963_45, 2.079_613_84, 2.073_873_07, 2.068_657_61,
    2.063_898_56, 2.059_538_55, 2.055_529_44, 2.051_830_52, 2.048_407_14, 2.045_229_64,
];

/// Each value's mean with the `window - 1` values before it, those that are not finite left out.
pub fn moving_mean(values: &[f64], window: usize) -> Vec<f64> {
    let over = |end: usize| {
        let recent = values[(end + 1).saturating_sub(window.max(1))..=end].iter().copied();
        let recent: Vec<f64> = recent.filter(|value| value.is_finite()).collect();
        mean(&recent)
    };
    (0..values.len()).map(over).collect()
}
