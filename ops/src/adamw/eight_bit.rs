//! AdamW with moments of eight bits, after Dettmers et al. 2021, arXiv:2110.02861: a block of values shares its largest
//! magnitude, and a code is the logarithm of a value's share of it: `2^((c - 127) / 8)` for `m`, with a sign, and
//! `2^((c - 255) / 10)` for `v`; code 0 is zero. Codes are rounded up or down at random, so that what decays by less than
//! a code in an update decays all the same. A positive `v` never becomes 0, which would make its weight jump.

use std::sync::LazyLock;

use super::{MOMENT_BLOCK, PIECE, Step};
use crate::team::Team;
use crate::vector::{LANES, largest, vectorised};

/// The moments of a stretch of weights.
#[derive(Debug)]
pub struct EightBit<'a> {
    /// Codes of the first moments.
    pub m: &'a mut [i8],
    /// Codes of the second moments.
    pub v: &'a mut [u8],
    /// The largest first moment of each block of [`MOMENT_BLOCK`].
    pub m_largest: &'a mut [f32],
    /// The largest second moment of each.
    pub v_largest: &'a mut [f32],
    /// Where the first of them is in the stretch that one process updates: codes are rounded by their place there.
    pub place: usize,
}

/// As [`super::update`], of moments of eight bits.
pub fn update(team: &Team, step: Step, w: &mut [f32], g: &[f32], moments: EightBit) {
    let blocks = team.piece(w.len().div_ceil(MOMENT_BLOCK)).min(PIECE / MOMENT_BLOCK);
    let size = blocks * MOMENT_BLOCK;
    let codes = moments.m.chunks_mut(size).zip(moments.v.chunks_mut(size));
    let tops = moments.m_largest.chunks_mut(blocks).zip(moments.v_largest.chunks_mut(blocks));
    let pieces = w.chunks_mut(size).zip(g.chunks(size)).zip(codes.zip(tops));
    let pieces = pieces.zip((moments.place..).step_by(size));
    team.each(pieces, |(((w, g), ((m, v), (m_largest, v_largest))), first)| {
        let blocks = m.chunks_mut(MOMENT_BLOCK).zip(v.chunks_mut(MOMENT_BLOCK));
        let tops = m_largest.iter_mut().zip(v_largest);
        let values = w.chunks_mut(MOMENT_BLOCK).zip(g.chunks(MOMENT_BLOCK));
        for (((w, g), ((m, v), tops)), place) in values.zip(blocks.zip(tops)).zip((first..).step_by(MOMENT_BLOCK)) {
            update_block(step, w, g, Block { m, v, tops, place });
        }
    });
}

/// The moments of a block, and its place in the stretch.
struct Block<'a> {
    m: &'a mut [i8],
    v: &'a mut [u8],
    tops: (&'a mut f32, &'a mut f32),
    place: usize,
}

/// What the codes of both moments stand for, as shares of the block's largest: `m` by the code's bits, `v` by the code.
static SHARES: LazyLock<([f32; 256], [f32; 256])> = LazyLock::new(|| {
    let m = |code: i8| match f32::from(code.unsigned_abs()) {
        0.0 => 0.0,
        magnitude => ((magnitude - 127.0) / 8.0).exp2().copysign(f32::from(code)),
    };
    let v = |code: u8| if code == 0 { 0.0 } else { ((f32::from(code) - 255.0) / 10.0).exp2() };
    (std::array::from_fn(|bits| m(bits as u8 as i8)), std::array::from_fn(|code| v(code as u8)))
});

fn update_block(step: Step, w: &mut [f32], g: &[f32], block: Block) {
    let ([correct1, correct2], (m_shares, v_shares)) = (step.corrections(), &*SHARES);
    let Block { m, v, tops: (m_top, v_top), place } = block;
    let (mut first, mut second) = ([0f32; MOMENT_BLOCK], [0f32; MOMENT_BLOCK]);
    for (((first, second), (m, v)), g) in first.iter_mut().zip(&mut second).zip(m.iter().zip(&*v)).zip(g) {
        let g = g * step.scale;
        *first = step.beta1 * (m_shares[m.cast_unsigned() as usize] * *m_top) + (1.0 - step.beta1) * g;
        *second = step.beta2 * (v_shares[*v as usize] * *v_top) + (1.0 - step.beta2) * g * g;
    }
    vectorised(
        #[inline(always)]
        || {
            for ((w, &m), &v) in w.iter_mut().zip(&first).zip(&second) {
                let direction = m * correct1 / ((v * correct2).sqrt() + step.eps);
                *w -= step.lr * (direction + step.weight_decay * *w);
            }
            (*m_top, *v_top) = (largest_magnitude(&first), largest_magnitude(&second));
            let count = 2 * step.count as u32;
            for (i, ((m, v), (&first, &second))) in m.iter_mut().zip(v).zip(first.iter().zip(&second)).enumerate() {
                let place = (place + i) as u64;
                let code = 127.0 + 8.0 * log2(first.abs() / *m_top) + uniform(place, count);
                let magnitude = if first == 0.0 { 0.0 } else { code.clamp(0.0, 127.0) } as i32;
                *m = if first < 0.0 { -magnitude } else { magnitude } as i8;
                let code = 255.0 + 10.0 * log2(second / *v_top) + uniform(place, count.wrapping_add(1));
                *v = if second > 0.0 { code.clamp(1.0, 255.0) } else { 0.0 } as i32 as u8;
            }
        },
    );
}

#[inline(always)]
fn largest_magnitude(values: &[f32; MOMENT_BLOCK]) -> f32 {
    let mut lanes = [0f32; LANES];
    for chunk in values.as_chunks::<LANES>().0 {
        for l in 0..LANES {
            lanes[l] = if chunk[l].abs() > lanes[l] { chunk[l].abs() } else { lanes[l] };
        }
    }
    largest(lanes)
}

/// `log2 x` within 2e-4 for positive `x`: a five hundredth of a code, and codes are rounded at random.
#[inline(always)]
fn log2(x: f32) -> f32 {
    let bits = x.to_bits();
    let exponent = (bits >> 23) as i32 - 127;
    let t = f32::from_bits(bits & 0x007f_ffff | 0x3f80_0000) - 1.0;
    let mut p = 0.043_928_38f32;
    p = p.mul_add(t, -0.189_834_5);
    p = p.mul_add(t, 0.413_021_03);
    p = p.mul_add(t, -0.708_993_9);
    p = p.mul_add(t, 1.441_879);
    p.mul_add(t, exponent as f32)
}

/// A number in [0, 1) that depends on a value's place and on the update alone.
#[inline(always)]
fn uniform(place: u64, count: u32) -> f32 {
    let mut x = (place + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(count).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 31).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((x ^ x >> 29) >> 40) as f32 * (1.0 / 16_777_216.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adamw;
    use reckon_datasets::Counted;

    fn step(count: u64) -> Step {
        Step { lr: 1e-2, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.1, scale: 0.5, count }
    }

    /// How far updates take weights that begin at 1.
    fn way(n: usize, updates: u64, gradient: &dyn Fn(u64) -> Vec<f32>, eight_bit: Option<&Team>) -> Vec<f32> {
        let (mut w, blocks) = (vec![1f32; n], n.div_ceil(MOMENT_BLOCK));
        let (mut m, mut v, mut tops) = (vec![0i8; n], vec![0u8; n], [vec![0f32; blocks], vec![0f32; blocks]]);
        let mut full = [vec![0f32; n], vec![0f32; n]];
        for count in 1..=updates {
            let g = gradient(count);
            match eight_bit {
                Some(team) => {
                    let [m_largest, v_largest] = &mut tops;
                    let moments = EightBit { m: &mut m, v: &mut v, m_largest, v_largest, place: 0 };
                    update(team, step(count), &mut w, &g, moments);
                }
                None => {
                    let [m, v] = &mut full;
                    adamw::update(&Team::alone(), step(count), &mut w, &g, m, v);
                }
            }
        }
        w.iter().map(|w| w - 1.0).collect()
    }

    #[test]
    fn weights_go_the_full_optimizers_way_but_for_a_few_percent_on_any_threads() {
        let draw = |seed: u64, n| -> Vec<f32> {
            let mut random = Counted::new(&[seed]);
            (0..n).map(|_| random.normal() as f32).collect()
        };
        let uneven = |count: u64| -> Vec<f32> {
            draw(count, 2500).iter().enumerate().map(|(i, g)| g * 10f32.powi(-(i as i32 % 4))).collect()
        };
        let shrinking = |count: u64| draw(9, 2500).iter().map(|g| g * 0.99f32.powi(count as i32)).collect::<Vec<f32>>();
        for (updates, gradient) in [(10, &uneven as &dyn Fn(u64) -> Vec<f32>), (300, &shrinking)] {
            let (expected, got) =
                (way(2500, updates, gradient, None), way(2500, updates, gradient, Some(&Team::alone())));
            let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
            let difference =
                norm(&mut got.iter().zip(&expected).map(|(a, b)| a - b)) / norm(&mut expected.iter().copied());
            assert!(difference < 0.05, "{difference} after {updates} updates");
            Team::with(3, |team| assert_eq!(way(2500, updates, gradient, Some(team)), got));
        }
    }

    #[test]
    fn the_logarithm_is_near_enough() {
        for i in 1..200_000 {
            let x = i as f32 * 1e-5;
            assert!((log2(x) - x.log2()).abs() < 2e-4, "log2({x}) = {}, not {}", log2(x), x.log2());
        }
    }
}
