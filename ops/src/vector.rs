//! The few vector primitives that the operations share, and the choice of instruction set at run time.

use std::sync::LazyLock;

/// Partial sums kept when a row is summed, on every machine: one AVX-512 register of `f32`.
pub const LANES: usize = 16;

/// The best instruction set of this machine.
pub(crate) static ARCH: LazyLock<pulp::Arch> = LazyLock::new(pulp::Arch::new);

/// The name of the instruction set that the operations use on this machine.
pub fn instruction_set() -> String {
    let name = format!("{:?}", *ARCH);
    name.split('(').next().unwrap_or_default().to_lowercase()
}

/// Runs `body` compiled for the best instruction set of this machine. `body` must be `#[inline(always)]`.
#[inline(always)]
pub fn vectorised<R>(body: impl FnOnce() -> R) -> R {
    ARCH.dispatch(body)
}

/// Asks for the cache lines of `values` ahead of their use. Does nothing on other processors.
#[inline(always)]
pub(crate) fn prefetch(values: &[f32]) {
    values.chunks(LANES).for_each(|line| prefetch_line(line.as_ptr()));
}

/// Asks for a cache line ahead of its use, wherever it is.
#[inline(always)]
pub(crate) fn prefetch_line(line: *const f32) {
    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code)]
    // SAFETY: a prefetch is a hint, which no address makes fault.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(line.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}

/// The first `n` values of a buffer that grows when it has to.
pub(crate) fn grown(buffer: &mut Vec<f32>, n: usize) -> &mut [f32] {
    if buffer.len() < n {
        buffer.resize(n, 0.0);
    }
    &mut buffer[..n]
}

/// Copies `from` to `to`, which is as long. A call of the library's copy costs more than a short row.
#[inline(always)]
pub(crate) fn copy_row(from: &[f32], to: &mut [f32]) {
    let ((from, from_rest), (to, to_rest)) = (from.as_chunks::<LANES>(), to.as_chunks_mut::<LANES>());
    for (from, to) in from.iter().zip(to) {
        *to = *from;
    }
    from_rest.iter().zip(to_rest).for_each(|(from, to)| *to = *from);
}

/// Adds the lanes in a fixed tree.
#[inline(always)]
pub(crate) fn reduce(lanes: [f32; LANES]) -> f32 {
    fold(lanes, |a, b| a + b)
}

/// The largest lane.
#[inline(always)]
pub(crate) fn largest(lanes: [f32; LANES]) -> f32 {
    fold(lanes, |a, b| if b > a { b } else { a })
}

/// Halves the lanes until one is left: four steps, where one after the other would be fifteen.
#[inline(always)]
fn fold(mut lanes: [f32; LANES], both: impl Fn(f32, f32) -> f32) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] = both(lanes[i], lanes[i + width]);
        }
        width /= 2;
    }
    lanes[0]
}

/// `sum_i a_i b_i`, in [`LANES`] partial sums. Whole arrays, because a slice's bounds keep a loop scalar.
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0f32; LANES];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for l in 0..LANES {
            sums[l] += a[l] * b[l];
        }
    }
    sums.iter_mut().zip(a_rest.iter().zip(b_rest)).for_each(|(sum, (a, b))| *sum += a * b);
    reduce(sums)
}

/// `sum_i a_i b_i c_i`, in the same way.
#[inline(always)]
pub(crate) fn dot3(a: &[f32], b: &[f32], c: &[f32]) -> f32 {
    let mut sums = [0f32; LANES];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let (c, c_rest) = c.as_chunks::<LANES>();
    for ((a, b), c) in a.iter().zip(b).zip(c) {
        for l in 0..LANES {
            sums[l] += a[l] * b[l] * c[l];
        }
    }
    let rest = a_rest.iter().zip(b_rest).zip(c_rest);
    sums.iter_mut().zip(rest).for_each(|(sum, ((a, b), c))| *sum += a * b * c);
    reduce(sums)
}

/// `e^x` within 2 units in the last place; 0 below -87.3, and the largest finite power above 88.
///
/// A polynomial, because the library's function is neither vectorised nor the same on every machine.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    /// Adding and subtracting it rounds to the nearest integer.
    const ROUND: f32 = 12_582_912.0;
    let clamped = if x > 88.0 { 88.0 } else { x };
    let clamped = if clamped < -87.3 { -87.3 } else { clamped };
    let rounded = clamped.mul_add(LOG2_E, ROUND);
    let power = rounded - ROUND;
    let r = power.mul_add(-LN2_LOW, power.mul_add(-LN2_HIGH, clamped));
    let mut p = 1.987_569_1e-4f32;
    p = p.mul_add(r, 1.398_199_9e-3);
    p = p.mul_add(r, 8.333_452e-3);
    p = p.mul_add(r, 4.166_579_6e-2);
    p = p.mul_add(r, 1.666_666_6e-1);
    p = p.mul_add(r, 0.5);
    p = p.mul_add(r * r, r) + 1.0;
    // The integer stands in the low bits of `rounded`. A cast of `power` would saturate, which is not vectorised.
    let scale = f32::from_bits((rounded.to_bits() << 23).wrapping_add(127 << 23));
    if x < -87.3 { 0.0 } else { p * scale }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_agrees_with_the_library_to_two_units_in_the_last_place() {
        for i in -87_000..88_000 {
            let x = i as f32 * 1e-3;
            let (ours, theirs) = (exp(x), x.exp());
            assert!((ours - theirs).abs() <= 2.5e-7 * theirs, "exp({x}) = {ours}, not {theirs}");
        }
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(0.0), 1.0);
    }

    #[test]
    fn a_sum_visits_every_index_once() {
        for n in [0, 1, 15, 16, 17, 100] {
            let (indices, ones) = ((0..n).map(|i| i as f32).collect::<Vec<_>>(), vec![1f32; n]);
            let twos = vec![2f32; n];
            let expected = (n * n.saturating_sub(1) / 2) as f32;
            assert_eq!(dot(&indices, &ones), expected);
            assert_eq!(dot3(&ones, &indices, &twos), 2.0 * expected);
        }
    }

    #[test]
    fn the_largest_lane_is_found_wherever_it_is() {
        for at in 0..LANES {
            let mut lanes = [f32::NEG_INFINITY; LANES];
            lanes[at] = -3.0;
            assert_eq!(largest(lanes), -3.0);
        }
    }
}
