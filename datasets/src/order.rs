//! The endless order in which the rows of one or more datasets are used: row and dataset of turn `i` are a function of
//! the seed and `i`, so that a count is all a resumed run needs to know.

use crate::{Counted, Error};

/// One dataset of a mixture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lane {
    /// How often it is used, relative to the others.
    pub weight: f64,
    /// Its number of rows.
    pub len: usize,
    /// Whether its rows are used in another random order in each pass, or as they come.
    pub shuffled: bool,
}

/// Which row is used when.
///
/// Of every [`BLOCK`] turns each dataset has its exact share, in random order.
///
/// ```
/// use reckon_datasets::{Lane, Order};
/// let lane = |weight| Lane { weight, len: 10, shuffled: true };
/// let order = Order::new(7, &[lane(3.0), lane(1.0)])?;
/// let turns = order.turns(0, 1000);
/// assert_eq!(turns.iter().filter(|turn| turn.0 == 1).count(), 250);
/// assert_eq!(turns[500..], order.turns(500, 500));
/// # Ok::<(), reckon_datasets::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Order {
    seed: u64,
    lanes: Vec<Lane>,
    /// Turns of each dataset in a block.
    shares: Vec<usize>,
}

/// Turns among which the weights hold exactly.
pub const BLOCK: usize = 1000;

impl Order {
    /// An order over `lanes`.
    ///
    /// # Errors
    /// A weight that is not positive, or so small that a block has no turn for it; a dataset without rows.
    pub fn new(seed: u64, lanes: &[Lane]) -> Result<Self, Error> {
        let total: f64 = lanes.iter().map(|lane| lane.weight).sum();
        for (index, lane) in lanes.iter().enumerate() {
            let weight = lane.weight;
            if !(weight > 0.0 && weight.is_finite()) {
                return Err(Error::Config(format!("source {index}: weight = {weight}: it must be a number above 0")));
            }
            if weight / total * (BLOCK as f64) < 1.0 {
                return Err(Error::Config(format!(
                    "source {index}: weight = {weight} is below 1/{BLOCK} of all weights: raise it or leave it out"
                )));
            }
            if lane.len == 0 {
                return Err(Error::Config(format!("source {index} has no rows")));
            }
        }
        let shares = shares(lanes, total);
        Ok(Self { seed, lanes: lanes.to_vec(), shares })
    }

    /// Dataset and row of the turns `from..from + count`.
    pub fn turns(&self, from: u64, count: usize) -> Vec<(usize, usize)> {
        let mut passes: Vec<Option<(u64, Vec<usize>)>> = vec![None; self.lanes.len()];
        let mut block: Option<(u64, Vec<(usize, u64)>)> = None;
        let mut turns = Vec::with_capacity(count);
        for turn in from..from + count as u64 {
            let (number, at) = (turn / BLOCK as u64, (turn % BLOCK as u64) as usize);
            if block.as_ref().is_none_or(|(known, _)| *known != number) {
                block = Some((number, self.block(number)));
            }
            let Some((lane, used)) = block.as_ref().map(|(_, slots)| slots[at]) else { continue };
            let rows = self.lanes[lane].len as u64;
            let (pass, place) = (used / rows, (used % rows) as usize);
            if !self.lanes[lane].shuffled {
                turns.push((lane, place));
                continue;
            }
            if passes[lane].as_ref().is_none_or(|(known, _)| *known != pass) {
                let mut order: Vec<usize> = (0..self.lanes[lane].len).collect();
                Counted::new(&[self.seed, 0x0de7, lane as u64, pass]).shuffle(&mut order);
                passes[lane] = Some((pass, order));
            }
            turns.extend(passes[lane].iter().map(|(_, order)| (lane, order[place])));
        }
        turns
    }

    /// Dataset of each turn of a block, with how often it was used before.
    fn block(&self, number: u64) -> Vec<(usize, u64)> {
        let mut lanes: Vec<usize> =
            self.shares.iter().enumerate().flat_map(|(lane, &share)| vec![lane; share]).collect();
        Counted::new(&[self.seed, 0x31c5, number]).shuffle(&mut lanes);
        let mut used: Vec<u64> = self.shares.iter().map(|&share| number * share as u64).collect();
        let slots = lanes.into_iter().map(|lane| {
            used[lane] += 1;
            (lane, used[lane] - 1)
        });
        slots.collect()
    }
}

/// [`BLOCK`] turns shared out by weight: whole parts first, then one each to the largest remainders.
fn shares(lanes: &[Lane], total: f64) -> Vec<usize> {
    let exact: Vec<f64> = lanes.iter().map(|lane| lane.weight / total * BLOCK as f64).collect();
    let mut shares: Vec<usize> = exact.iter().map(|share| share.floor() as usize).collect();
    let mut by_remainder: Vec<usize> = (0..lanes.len()).collect();
    by_remainder.sort_by(|&a, &b| exact[b].fract().total_cmp(&exact[a].fract()));
    let left = BLOCK.saturating_sub(shares.iter().sum());
    by_remainder.into_iter().cycle().take(left).for_each(|lane| shares[lane] += 1);
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(weight: f64, len: usize, shuffled: bool) -> Lane {
        Lane { weight, len, shuffled }
    }

    #[test]
    fn every_row_is_used_once_a_pass_and_passes_differ() {
        let order = Order::new(3, &[lane(1.0, 70, true)]).unwrap();
        let pass = |number: u64| -> Vec<usize> { order.turns(number * 70, 70).iter().map(|turn| turn.1).collect() };
        for number in [0, 1, 29] {
            let mut rows = pass(number);
            rows.sort_unstable();
            assert!(rows.into_iter().eq(0..70));
        }
        assert_ne!(pass(0), pass(1));
    }

    #[test]
    fn a_turn_depends_on_seed_and_number_alone() {
        let lanes = [lane(2.0, 7, true), lane(1.0, 1 << 30, false), lane(0.5, 40, true)];
        let order = Order::new(1, &lanes).unwrap();
        let all = order.turns(0, 3000);
        for (from, count) in [(0, 1), (999, 2), (1234, 700)] {
            assert_eq!(order.turns(from, count), all[from as usize..][..count]);
        }
        assert_ne!(Order::new(2, &lanes).unwrap().turns(0, 100), all[..100]);
        let endless: Vec<usize> = all.iter().filter(|turn| turn.0 == 1).map(|turn| turn.1).collect();
        assert!(endless.into_iter().eq(0..endless_turns(&all)));
    }

    fn endless_turns(all: &[(usize, usize)]) -> usize {
        all.iter().filter(|turn| turn.0 == 1).count()
    }

    #[test]
    fn weights_hold_in_every_block() {
        for (weights, expected) in [
            (vec![1.0, 1.0, 1.0], vec![334, 333, 333]),
            (vec![0.7, 0.2, 0.1], vec![700, 200, 100]),
            (vec![5.0], vec![1000]),
        ] {
            let lanes: Vec<Lane> = weights.iter().map(|&weight| lane(weight, 9, true)).collect();
            let order = Order::new(0, &lanes).unwrap();
            for block in [0, 1, 17] {
                let turns = order.turns(block * 1000, 1000);
                let counts: Vec<usize> = (0..lanes.len()).map(|l| turns.iter().filter(|t| t.0 == l).count()).collect();
                assert_eq!(counts, expected);
            }
        }
    }

    #[test]
    fn weights_that_cannot_hold_are_refused() {
        for (lanes, expected) in [
            (vec![lane(0.0, 1, true)], "weight = 0"),
            (vec![lane(1.0, 1, true), lane(f64::NAN, 1, true)], "source 1: weight = NaN"),
            (vec![lane(1.0, 1, true), lane(1e-6, 1, true)], "below 1/1000"),
            (vec![lane(1.0, 0, true)], "no rows"),
        ] {
            let message = Order::new(0, &lanes).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
