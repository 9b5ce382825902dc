//! AMX's instructions, computed by a handler of SIGILL: with it the kernel's own assembly runs in tests on a processor that
//! does not know them. What each does is taken from Intel's Software Developer's Manual, volume 2. For tests alone.

use std::cell::UnsafeCell;
use std::sync::Once;

use crate::bf16::tiles::SIDE;

/// Bytes of a tile's row.
const LINE: usize = 4 * SIDE;

/// A thread's tiles and what `ldtilecfg` said of them.
struct State {
    tiles: [[[u8; LINE]; SIDE]; 8],
    rows: [usize; 8],
    /// Bytes of each row.
    width: [usize; 8],
}

thread_local! {
    // Neither initialised late nor dropped, so that a handler may touch it.
    static STATE: UnsafeCell<State> =
        const { UnsafeCell::new(State { tiles: [[[0; LINE]; SIDE]; 8], rows: [0; 8], width: [0; 8] }) };
}

/// From here on this process computes AMX's instructions itself.
pub(super) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        #[allow(unsafe_code)]
        // SAFETY: the handler has the form that `SA_SIGINFO` asks for; it allocates nothing and takes no lock.
        let failed = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handle as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO;
            libc::sigaction(libc::SIGILL, &raw const action, std::ptr::null_mut())
        };
        assert_eq!(failed, 0, "a handler of SIGILL");
    });
}

extern "C" fn handle(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    #[allow(unsafe_code)]
    // SAFETY: the system hands over the context of the thread that was interrupted, at an instruction of at most 15 bytes.
    unsafe {
        let registers = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
        let at = registers[libc::REG_RIP as usize] as usize as *const u8;
        let mut bytes = [0u8; 10];
        std::ptr::copy_nonoverlapping(at, bytes.as_mut_ptr(), bytes.len());
        match Instruction::decode(&bytes, registers) {
            Some((instruction, length)) => {
                STATE.with(|state| instruction.run(&mut *state.get()));
                registers[libc::REG_RIP as usize] += length as i64;
            }
            // Another instruction, which ends the process when it is met again.
            None => {
                libc::signal(libc::SIGILL, libc::SIG_DFL);
            }
        }
    }
}

/// Rows in memory: the address of the first one, and the distance from one to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lines {
    first: usize,
    step: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Instruction {
    Configure { from: usize },
    Load { tile: usize, from: Lines },
    Store { tile: usize, to: Lines },
    Multiply { sums: usize, left: usize, right: usize },
}

impl Instruction {
    /// What the kernel uses of AMX, in three bytes of VEX, an opcode, ModRM, and what an address takes; and its length.
    fn decode(bytes: &[u8; 10], registers: &[i64]) -> Option<(Self, usize)> {
        let [0xc4, one, two, opcode, modrm, ..] = *bytes else { return None };
        // Of the second map of opcodes, W and L zero.
        if one & 0x1f != 2 || two & 0x84 != 0 {
            return None;
        }
        let (tile, other, prefix) = (usize::from(modrm >> 3 & 7), usize::from(modrm & 7), two & 3);
        let extended = [6, 5].map(|bit| if one >> bit & 1 == 0 { 8 } else { 0 });
        match (opcode, prefix, modrm >> 6) {
            (0x5c, 2, 3) => {
                let right = usize::from(!two >> 3 & 0xf);
                Some((Self::Multiply { sums: tile, left: other, right }, 5))
            }
            (0x49, 0, 0..3) if tile == 0 => {
                let (Lines { first, .. }, length) = address(&bytes[4..], extended, registers)?;
                Some((Self::Configure { from: first }, 4 + length))
            }
            (0x4b, 1..=3, 0..3) if other == 4 => {
                let (lines, length) = address(&bytes[4..], extended, registers)?;
                let instruction =
                    if prefix == 2 { Self::Store { tile, to: lines } } else { Self::Load { tile, from: lines } };
                Some((instruction, 4 + length))
            }
            _ => None,
        }
    }

    fn run(self, state: &mut State) {
        match self {
            #[allow(unsafe_code)]
            // SAFETY: as the instruction, which reads 64 bytes there.
            Self::Configure { from } => unsafe {
                let from = from as *const u8;
                for tile in 0..8 {
                    state.width[tile] = usize::from(from.add(16 + 2 * tile).cast::<u16>().read_unaligned());
                    state.rows[tile] = usize::from(from.add(48 + tile).read());
                }
            },
            #[allow(unsafe_code)]
            // SAFETY: as the instruction, which reads such rows.
            Self::Load { tile, from } => unsafe {
                state.tiles[tile] = [[0; LINE]; SIDE];
                for (row, line) in state.tiles[tile][..state.rows[tile]].iter_mut().enumerate() {
                    let at = from.first.wrapping_add(row * from.step) as *const u8;
                    std::ptr::copy_nonoverlapping(at, line.as_mut_ptr(), state.width[tile]);
                }
            },
            #[allow(unsafe_code)]
            // SAFETY: as the instruction, which writes such rows.
            Self::Store { tile, to } => unsafe {
                for (row, line) in state.tiles[tile][..state.rows[tile]].iter().enumerate() {
                    let at = to.first.wrapping_add(row * to.step) as *mut u8;
                    std::ptr::copy_nonoverlapping(line.as_ptr(), at, state.width[tile]);
                }
            },
            Self::Multiply { sums, left, right } => state.multiply(sums, left, right),
        }
    }
}

impl State {
    /// `tdpbf16ps`: of each value the products of even inner indices are one chain from zero, those of odd ones another;
    /// both together are added to what the tile of sums has.
    fn multiply(&mut self, sums: usize, left: usize, right: usize) {
        for m in 0..self.rows[sums] {
            for n in 0..self.width[sums] / 4 {
                let mut chains = [0f32; 2];
                for k in 0..self.width[left] / 4 {
                    let (a, b) = (pair(&self.tiles[left][m], k), pair(&self.tiles[right][k], n));
                    for (chain, (a, b)) in chains.iter_mut().zip(a.into_iter().zip(b)) {
                        *chain = flushed(a.mul_add(b, *chain));
                    }
                }
                let value = &mut self.tiles[sums][m][4 * n..][..4];
                let was = f32::from_le_bytes([value[0], value[1], value[2], value[3]]);
                let sum = flushed(flushed(was) + flushed(chains[0] + chains[1]));
                value.copy_from_slice(&sum.to_le_bytes());
            }
        }
    }
}

/// A pair of bf16 values of a row, as fp32.
fn pair(line: &[u8; LINE], index: usize) -> [f32; 2] {
    [0, 2].map(|half| flushed(f32::from_le_bytes([0, 0, line[4 * index + half], line[4 * index + half + 1]])))
}

/// AMX takes subnormal numbers for zero, and makes none.
pub(super) fn flushed(value: f32) -> f32 {
    if value.is_subnormal() { 0f32.copysign(value) } else { value }
}

/// The address that ModRM and what follows say, and how many bytes that takes. `extended` is what the prefix adds to the
/// numbers of index and base.
fn address(bytes: &[u8], extended: [usize; 2], registers: &[i64]) -> Option<(Lines, usize)> {
    let (mode, rm) = (bytes[0] >> 6, usize::from(bytes[0] & 7));
    let (base, step, mut length) = match rm {
        4 => {
            let (scale, index) = (bytes[1] >> 6, usize::from(bytes[1] >> 3 & 7) + extended[0]);
            let step = if index == 4 { 0 } else { value_of(index, registers) << scale };
            (usize::from(bytes[1] & 7), step, 2)
        }
        _ => (rm, 0, 1),
    };
    let distance = match mode {
        // Relative to the instruction, or without a base: the kernel has neither.
        0 if base == 5 => return None,
        0 => 0,
        1 => isize::from(bytes[length].cast_signed()),
        _ => i32::from_le_bytes(*bytes[length..].first_chunk()?) as isize,
    };
    length += [0, 1, 4][usize::from(mode)];
    let first = value_of(base + extended[1], registers).wrapping_add_signed(distance);
    Some((Lines { first, step }, length))
}

/// The value of a general register, in the processor's numbering.
fn value_of(register: usize, registers: &[i64]) -> usize {
    const PLACES: [libc::c_int; 16] = [
        libc::REG_RAX,
        libc::REG_RCX,
        libc::REG_RDX,
        libc::REG_RBX,
        libc::REG_RSP,
        libc::REG_RBP,
        libc::REG_RSI,
        libc::REG_RDI,
        libc::REG_R8,
        libc::REG_R9,
        libc::REG_R10,
        libc::REG_R11,
        libc::REG_R12,
        libc::REG_R13,
        libc::REG_R14,
        libc::REG_R15,
    ];
    registers[PLACES[register] as usize] as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_told_from_their_bytes_as_an_assembler_writes_them() {
        let registers: Vec<i64> = (0..23).map(|place| 1000 * (place + 1)).collect();
        let at = |register: libc::c_int| registers[register as usize] as usize;
        let lines = |first, step| Lines { first, step };
        for (bytes, expected) in [
            // ldtilecfg [rax]
            (&[0xc4, 0xe2, 0x78, 0x49, 0x00][..], Instruction::Configure { from: at(libc::REG_RAX) }),
            // tileloadd tmm0, [rsi + rcx*1]
            (
                &[0xc4, 0xe2, 0x7b, 0x4b, 0x04, 0x0e],
                Instruction::Load { tile: 0, from: lines(at(libc::REG_RSI), at(libc::REG_RCX)) },
            ),
            // tileloadd tmm3, [r9 + r10*4 + 64]
            (
                &[0xc4, 0x82, 0x7b, 0x4b, 0x5c, 0x91, 0x40],
                Instruction::Load { tile: 3, from: lines(at(libc::REG_R9) + 64, 4 * at(libc::REG_R10)) },
            ),
            // tilestored [rbx + rdx*1 - 256], tmm5
            (
                &[0xc4, 0xe2, 0x7a, 0x4b, 0xac, 0x13, 0x00, 0xff, 0xff, 0xff],
                Instruction::Store { tile: 5, to: lines(at(libc::REG_RBX) - 256, at(libc::REG_RDX)) },
            ),
            // tdpbf16ps tmm2, tmm5, tmm6
            (&[0xc4, 0xe2, 0x4a, 0x5c, 0xd5], Instruction::Multiply { sums: 2, left: 5, right: 6 }),
        ] {
            let mut whole = [0x90; 10];
            whole[..bytes.len()].copy_from_slice(bytes);
            assert_eq!(Instruction::decode(&whole, &registers), Some((expected, bytes.len())), "{bytes:x?}");
        }
        // ud2, and vpshufb, which has the same prefix.
        for other in [[0x0f, 0x0b, 0, 0, 0, 0, 0, 0, 0, 0], [0xc4, 0xe2, 0x79, 0x00, 0xc1, 0, 0, 0, 0, 0]] {
            assert_eq!(Instruction::decode(&other, &registers), None);
        }
    }
}
