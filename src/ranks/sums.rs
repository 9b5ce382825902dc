//! Long rows of numbers that ranks add, share and pass on: gradients, weights and moments.
//!
//! A sum is a chain over the ranks, so that it has the order of one process. It ends on the last rank, which hands each
//! rank the share that this one has to go on with; what ranks make of their shares then goes around the ring.

use std::ops::Range;

use anyhow::{Context, Result};
use bytemuck::{cast_slice, cast_slice_mut};

use super::Ranks;

/// Values of a gradient that are passed on at a time, so that all ranks of the chain add at the same time.
pub(crate) const BLOCK: usize = 1 << 17;

/// Values of a share that go to the next rank at a time: of a size that every transport takes.
const PIECE: usize = 1 << 22;

/// What two ranges have in common.
pub fn overlap(a: &Range<usize>, b: &Range<usize>) -> Range<usize> {
    let (start, end) = (a.start.max(b.start), a.end.min(b.end));
    if start < end { start..end } else { 0..0 }
}

/// The parts of a sum that are one rank's.
struct Own {
    /// Whether the first of them is in the sum already.
    begun: bool,
    rest: Vec<Vec<f32>>,
}

impl Own {
    /// Adds this rank's part to what the ranks before have added up, in the order of one process.
    fn add_to(&self, sum: &mut [f32], block: Range<usize>, before: Option<&[f32]>) {
        match (before, self.begun) {
            // One process adds its next part to the sum so far; two terms have the same sum either way.
            (Some(before), true) => sum.iter_mut().zip(before).for_each(|(own, before)| *own += *before),
            (Some(before), false) => sum.copy_from_slice(before),
            (None, _) => {}
        }
        for part in &self.rest {
            sum.iter_mut().zip(&part[block.clone()]).for_each(|(sum, next)| *sum += next);
        }
    }
}

impl Ranks {
    /// The sum of the `parts` of all ranks, each of `len` values: those of the first rank in order, then those of the
    /// next one, and so on.
    pub fn sum(&self, parts: Vec<Vec<f32>>, len: usize) -> Result<Vec<f32>> {
        let size = self.size();
        let shares: Vec<_> = (0..size).map(|rank| len * rank / size..len * (rank + 1) / size).collect();
        let mut total = self.sum_shares(parts, &shares)?;
        self.spread_shares(&mut total, &shares)?;
        Ok(total)
    }

    /// The same sum, of which each rank gets its own of the `shares` of all, which follow each other; beside them is
    /// what it has added up so far. The last rank gets all of it.
    ///
    /// It is passed from rank to rank, each of which adds its own, block by block: while one comes, the one that was added
    /// last goes to the next rank, and what is done from the last rank to whose share it is.
    pub fn sum_shares(&self, parts: Vec<Vec<f32>>, shares: &[Range<usize>]) -> Result<Vec<f32>> {
        let len = shares.last().map_or(0, |share| share.end);
        let (mut parts, rank) = (parts.into_iter(), self.rank());
        let first = parts.next();
        let own = Own { begun: first.is_some(), rest: parts.collect() };
        let mut total = first.unwrap_or_else(|| vec![0.0; len]);
        let mut received = vec![0f32; if rank == 0 { 0 } else { BLOCK.min(len) }];
        let block =
            |index: Option<usize>| index.map_or(0..0, |index| (index * BLOCK).min(len)..((index + 1) * BLOCK).min(len));
        for step in 0..len.div_ceil(BLOCK) + self.size() {
            let [added, going, done] = [rank, rank + 1, self.size()].map(|late| block(step.checked_sub(late)));
            let before = &mut received[..if rank == 0 { 0 } else { added.len() }];
            self.pass_on(&mut total, (going, done), cast_slice_mut(before), shares)?;
            own.add_to(&mut total[added.clone()], added, (rank > 0).then_some(&*before));
        }
        Ok(total)
    }

    /// Sends the block `going` to the next rank, takes one from the rank before, and what of the block that is `done`
    /// belongs to this rank from the last one, which sends that to each.
    fn pass_on(
        &self,
        total: &mut [f32],
        (going, done): (Range<usize>, Range<usize>),
        before: &mut [u8],
        shares: &[Range<usize>],
    ) -> Result<()> {
        let (rank, last) = (self.rank(), self.size() - 1);
        if rank == last {
            let to = |(owner, share): (usize, &Range<usize>)| (owner, cast_slice(&total[overlap(&done, share)]));
            let sends: Vec<(usize, &[u8])> = shares[..last].iter().enumerate().map(to).collect();
            return self.exchange(&sends, &mut [(self.before(), before)]);
        }
        // What is done has gone on long ago.
        let (settled, from) = total.split_at_mut(going.start);
        let own = cast_slice_mut(&mut settled[overlap(&done, &shares[rank])]);
        self.exchange(&[(rank + 1, cast_slice(&from[..going.len()]))], &mut [(self.before(), before), (last, own)])
    }

    /// Gives all ranks what each of them has in its own of the `shares`.
    pub fn spread_shares(&self, values: &mut [f32], shares: &[Range<usize>]) -> Result<()> {
        let (rank, size) = (self.rank(), self.size());
        for hop in 0..size - 1 {
            // What a rank has last got goes on to the next.
            let (out, into) = (&shares[(rank + size - hop) % size], &shares[(rank + 2 * size - hop - 1) % size]);
            for start in (0..out.len().max(into.len())).step_by(PIECE) {
                let piece = |share: &Range<usize>| {
                    let at = |place: usize| share.start + place.min(share.len());
                    at(start)..at(start + PIECE)
                };
                let pieces = values.get_disjoint_mut([piece(out), piece(into)]);
                let [out, into] = pieces.context("the shares of two ranks overlap")?;
                self.shift(cast_slice(out), cast_slice_mut(into))?;
            }
        }
        Ok(())
    }

    /// Brings the `bytes` of rank `owner` to the first one, by way of those between them. All ranks are to call it, with
    /// as many bytes; what the others have in theirs is lost.
    pub fn bring_to_first(&self, owner: usize, bytes: &mut [u8]) -> Result<()> {
        let rank = self.rank();
        if owner == 0 || (rank > 0 && rank < owner) {
            return Ok(());
        }
        if rank != owner {
            self.shift(&[], bytes)?;
        }
        if rank > 0 { self.shift(bytes, &mut []) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::on_ranks;
    use super::*;

    fn part(seed: usize, len: usize) -> Vec<f32> {
        (0..len).map(|i| ((seed * 7919 + i * 104_729) % 1013) as f32 / 37.0 - 13.1).collect()
    }

    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|value| value.to_bits()).collect()
    }

    #[test]
    fn a_sum_has_the_bits_of_one_process_whatever_rank_had_which_part_and_each_gets_its_share() {
        for (size, parts, cuts) in [
            (1, 3, vec![0, 10]),
            (2, 1, vec![0, 2, 5]),
            (2, 5, vec![0, 9, BLOCK + 3]),
            (3, 2, vec![0, 0, 7, 7]),
            (4, 9, vec![0, BLOCK / 2, BLOCK + 1, 2 * BLOCK, 3 * BLOCK]),
            (5, 5, vec![0, 1, 2, 3, 4, 5]),
            (3, 4, vec![0, 0, 0, 0]),
        ] {
            let (len, shares) = (cuts[size], cuts.windows(2).map(|cut| cut[0]..cut[1]).collect::<Vec<_>>());
            let all: Vec<Vec<f32>> = (0..parts).map(|seed| part(seed, len)).collect();
            let mut expected = all[0].clone();
            all[1..].iter().for_each(|part| expected.iter_mut().zip(part).for_each(|(sum, next)| *sum += next));
            let sums = on_ranks(size, |ranks| {
                let own = || all[ranks.share(&vec![1; parts])].to_vec();
                let sent = || ranks.spent().map_or(0, |spent| spent.sent);
                let sum = ranks.sum_shares(own(), &shares).unwrap();
                let (mut spread, to_add) = (sum.clone(), sent());
                ranks.spread_shares(&mut spread, &shares).unwrap();
                let to_spread = sent() - to_add;
                (sum, spread, ranks.sum(own(), len).unwrap(), [to_add, to_spread])
            });
            for (rank, (sum, spread, whole, sent)) in sums.into_iter().enumerate() {
                let what = format!("rank {rank} of {size}, {len} values");
                let share = if rank + 1 == size { 0..len } else { shares[rank].clone() };
                assert_eq!(bits(&sum[share.clone()]), bits(&expected[share]), "{what}");
                assert_eq!((bits(&spread), bits(&whole)), (bits(&expected), bits(&expected)), "{what}");
                // The last one need not send what it keeps, and nobody needs to be told what he has.
                let to_add = if rank + 1 == size { len - shares[rank].len() } else { len };
                let to_spread = len - shares[(rank + 1) % size].len();
                assert_eq!(sent, [4 * to_add as u64, 4 * to_spread as u64], "{what}: bytes to add and to spread");
            }
        }
    }

    #[test]
    fn what_one_rank_has_comes_to_the_first() {
        for owner in 0..4 {
            let came = on_ranks(4, |ranks| {
                let mut bytes = vec![ranks.rank() as u8; 100_000];
                ranks.bring_to_first(owner, &mut bytes).unwrap();
                bytes
            });
            assert_eq!(came[0], vec![owner as u8; 100_000], "of rank {owner}");
        }
    }
}
