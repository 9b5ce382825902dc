//! Blocks by AMX: four tiles of sums, and in each step along the inner dimension two tiles of each side. Rust has no
//! stable intrinsics for it, so a block is one piece of assembly: no tile outlives it.

#[cfg(all(test, target_os = "linux"))]
mod emulator;

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::cell::Cell;

use super::Block;
use super::tiles::{SIDE, Tile};

/// Whether the processor has AMX for bf16 and the system lets this process use it.
pub(super) fn permitted() -> bool {
    /// Bits of `edx` of leaf 7: tiles, and their bf16 products.
    const NEEDED: u32 = 1 << 24 | 1 << 22;
    /// `arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)`.
    const REQUEST: (libc::c_long, libc::c_long) = (0x1023, 18);
    if __cpuid_count(0, 0).eax < 7 || __cpuid_count(7, 0).edx & NEEDED != NEEDED {
        return false;
    }
    #[allow(unsafe_code)]
    // SAFETY: the call takes two numbers and touches no memory of ours.
    let answer = unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST.0, REQUEST.1) };
    answer == 0
}

/// The shapes of all eight tiles: 16 lines of 64 bytes.
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes: [u16; 16],
    lines: [u8; 16],
}

thread_local! {
    static CONFIGURED: Cell<bool> = const { Cell::new(false) };
}

/// Configures this thread's tiles, once.
#[inline]
fn configure() {
    if CONFIGURED.replace(true) {
        return;
    }
    let mut shapes = Shapes { palette: 1, start_row: 0, reserved: [0; 14], bytes: [0; 16], lines: [0; 16] };
    shapes.bytes[..8].fill(size_of::<Tile>() as u16 / SIDE as u16);
    shapes.lines[..8].fill(SIDE as u8);
    #[allow(unsafe_code)]
    // SAFETY: `Unit::detect` has asked for the permission, and the 64 bytes are a valid palette.
    unsafe {
        asm!("ldtilecfg [{}]", in(reg) &raw const shapes, options(nostack, readonly, preserves_flags));
    }
}

/// Sums a block.
pub(super) fn sum(block: Block) {
    configure();
    let Block { lefts: [left, left2], rights: [right, right2], start, out } = block;
    let count = left.len();
    assert!([left2.len(), right.len(), right2.len()] == [count; 3] && count > 0, "a block of {count} tiles");
    #[allow(unsafe_code)]
    // SAFETY: `count` tiles of 1 KiB are read from each side. `strip` gives pointers to a whole block of rows, `start.1` and
    // `out.1` values apart, to read and to write.
    unsafe {
        asm!(
            "tileloadd tmm0, [{s} + {ss}*1]",
            "tileloadd tmm1, [{s} + {ss}*1 + 64]",
            "tileloadd tmm2, [{s2} + {ss}*1]",
            "tileloadd tmm3, [{s2} + {ss}*1 + 64]",
            "2:",
            "tileloadd tmm4, [{a} + {line}*1]",
            "tileloadd tmm6, [{b} + {line}*1]",
            "tileloadd tmm7, [{b2} + {line}*1]",
            "tileloadd tmm5, [{a2} + {line}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {a}, 1024",
            "add {a2}, 1024",
            "add {b}, 1024",
            "add {b2}, 1024",
            "dec {n}",
            "jnz 2b",
            "tilestored [{o} + {os}*1], tmm0",
            "tilestored [{o} + {os}*1 + 64], tmm1",
            "tilestored [{o2} + {os}*1], tmm2",
            "tilestored [{o2} + {os}*1 + 64], tmm3",
            s = in(reg) start.0,
            s2 = in(reg) start.0.wrapping_add(SIDE * start.1),
            ss = in(reg) start.1 * size_of::<f32>(),
            o = in(reg) out.0,
            o2 = in(reg) out.0.wrapping_add(SIDE * out.1),
            os = in(reg) out.1 * size_of::<f32>(),
            a = inout(reg) left.as_ptr() => _,
            a2 = inout(reg) left2.as_ptr() => _,
            b = inout(reg) right.as_ptr() => _,
            b2 = inout(reg) right2.as_ptr() => _,
            n = inout(reg) count => _,
            line = in(reg) size_of::<Tile>() / SIDE,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// Whether a test can use it: the processor's, or else a computed one.
#[cfg(test)]
pub(super) fn for_tests() -> bool {
    #[cfg(target_os = "linux")]
    if !permitted() {
        emulator::install();
        return true;
    }
    permitted()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::emulator::flushed;
    use super::*;
    use reckon_datasets::Counted;

    /// Two tiles for each step: pairs of bf16, some of them subnormal.
    fn draw(seed: u64, count: usize) -> Vec<Tile> {
        let mut random = Counted::new(&[seed]);
        let mut half = || {
            u32::from(half::bf16::from_f64(random.normal() * if random.normal() > 2.0 { 1e-39 } else { 1.0 }).to_bits())
        };
        (0..count).map(|_| Tile(std::array::from_fn(|_| std::array::from_fn(|_| half() | half() << 16)))).collect()
    }

    fn halves(pair: u32) -> [f32; 2] {
        [pair << 16, pair & 0xffff_0000].map(|bits| flushed(f32::from_bits(bits)))
    }

    #[test]
    fn a_value_is_a_chain_over_tiles_of_which_each_is_two_chains_of_pairs() {
        assert!(for_tests());
        let count = 3;
        let (lefts, rights) = ([draw(1, count), draw(2, count)], [draw(3, count), draw(4, count)]);
        let start: Vec<f32> = (0..2 * SIDE * 40).map(|i| i as f32 / 7.0).collect();
        let mut out = vec![f32::NAN; 2 * SIDE * 33];
        sum(Block {
            lefts: [&lefts[0], &lefts[1]],
            rights: [&rights[0], &rights[1]],
            start: (start.as_ptr(), 40),
            out: (out.as_mut_ptr(), 33),
        });
        for (m, n) in (0..2 * SIDE).flat_map(|m| (0..33).map(move |n| (m, n))) {
            if n == 2 * SIDE {
                assert!(out[m * 33 + n].is_nan(), "row {m}: what lies between rows stays");
                continue;
            }
            let (left, right) = (&lefts[m / SIDE], &rights[n / SIDE]);
            let expected = left.iter().zip(right).fold(start[m * 40 + n], |sum, (left, right)| {
                let chains = (0..SIDE).fold([0f32; 2], |chains, k| {
                    let (a, b) = (halves(left.0[m % SIDE][k]), halves(right.0[k][n % SIDE]));
                    [0, 1].map(|odd| flushed(a[odd].mul_add(b[odd], chains[odd])))
                });
                flushed(sum + flushed(chains[0] + chains[1]))
            });
            assert_eq!(out[m * 33 + n].to_bits(), expected.to_bits(), "row {m}, column {n}");
        }
    }
}
