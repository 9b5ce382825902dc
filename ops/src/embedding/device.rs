//! Launches of `kernel.cu`: rows of a matrix to and fro, and the gradient of the rows that tokens stand for.
#![allow(unsafe_code)] // each launch's lengths are checked before it

use anyhow::Result;
use half::bf16;

use crate::device::columns::WARP_ROWS;
use crate::device::{Class, Launch, View};

/// `y (R, K)` = rows `ids` of `w`. The caller has checked that `w` has every row.
pub fn take_rows(ids: View<u32>, w: View<bf16>, y: View<bf16>, k: usize) -> Result<()> {
    move_rows("embedding_forward", ids, w, y, k, y.len())
}

/// Rows `ids` of `y`, which differ, = `x (R, K)`.
pub fn put_rows(ids: View<u32>, x: View<bf16>, y: View<bf16>, k: usize) -> Result<()> {
    move_rows("scatter_rows", ids, x, y, k, x.len())
}

fn move_rows(kernel: &'static str, ids: View<u32>, x: View<bf16>, y: View<bf16>, k: usize, short: usize) -> Result<()> {
    assert_eq!(short, ids.len() * k);
    assert!(k.is_multiple_of(8), "kernels read eight values at a time");
    let launch = Launch::new(kernel, [ids.len().div_ceil(WARP_ROWS), 1, 1], 128).arg(ids).arg(x).arg(y);
    // SAFETY: lengths are checked above.
    unsafe { y.device().launch(&launch.arg(ids.len() as u32).arg(k as u32)) }
}

/// The places of each token that occurs, sorted by token: what the embedding's backward goes by.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Occurrences {
    /// Tokens, each once, ascending.
    pub tokens: Vec<u32>,
    /// Where each token's places start, and the total at the end.
    pub starts: Vec<u32>,
    /// Places, ascending for each token.
    pub places: Vec<u32>,
}

impl Occurrences {
    /// Sorts `tokens`.
    pub fn of(tokens: &[u32]) -> Self {
        let mut places: Vec<u32> = (0..tokens.len() as u32).collect();
        places.sort_by_key(|&place| tokens[place as usize]);
        let mut sorted = Self::default();
        for (i, &place) in places.iter().enumerate() {
            let token = tokens[place as usize];
            if sorted.tokens.last() != Some(&token) {
                sorted.tokens.push(token);
                sorted.starts.push(i as u32);
            }
        }
        sorted.starts.push(places.len() as u32);
        Self { places, ..sorted }
    }
}

/// `dw[tokens[t]] += dy[t]`, in the order of the tokens.
pub fn backward(occurrences: &Occurrences, dy: View<bf16>, k: usize, dw: View<f32>) -> Result<()> {
    assert_eq!(dy.len(), occurrences.places.len() * k);
    assert!(
        occurrences.tokens.last().is_none_or(|&last| (last as usize + 1) * k <= dw.len()),
        "a token beyond the rows"
    );
    let device = dy.device();
    let upload = |ids: &[u32]| device.upload(Class::Activations, ids);
    let (tokens, starts) = (upload(&occurrences.tokens)?, upload(&occurrences.starts)?);
    let places = upload(&occurrences.places)?;
    let grid = [occurrences.tokens.len(), k.div_ceil(256), 1];
    let launch = Launch::new("embedding_backward", grid, 128).arg(tokens.all()).arg(starts.all()).arg(places.all());
    // SAFETY: lengths are checked above.
    unsafe { device.launch(&launch.arg(dy).arg(dw).arg(k as u32)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_sorted_with_all_their_places() {
        let sorted = Occurrences::of(&[7, 3, 7, 9, 3]);
        let expected = Occurrences { tokens: vec![3, 7, 9], starts: vec![0, 2, 4, 5], places: vec![1, 4, 0, 2, 3] };
        assert_eq!(sorted, expected);
    }
}
