//! The experts of tokens as a text of base64: the bytes of an array as numpy's `.npy` files have it, `(T, L, A)`, which is
//! how vLLM tells them, or bare numbers of four bytes, which is how SGLang does.

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::{RoutedExperts, RoutedShape};

/// What `.npy` files begin with, and their version.
const MAGIC: &[u8] = b"\x93NUMPY\x01\x00";

/// An array as it came: its numbers with what is known of its shape.
struct Array {
    shape: Option<[usize; 3]>,
    numbers: Vec<u32>,
}

impl RoutedExperts {
    /// As a text of an `.npy` array.
    pub fn to_text(&self) -> String {
        let RoutedShape { layers, active, .. } = self.shape();
        let (bytes, width) = (self.bytes_of(0..self.len()), self.shape().token_bytes() / (layers * active));
        let kind = if width == 1 { "|u1" } else { "<u2" };
        let (tokens, before) = (self.len(), MAGIC.len() + 2);
        let head = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({tokens}, {layers}, {active}), }}");
        // The numbers begin at a multiple of 64 bytes.
        let length = (before + head.len() + 1).next_multiple_of(64) - before;
        let head = format!("{head:<width$}\n", width = length - 1);
        BASE64_STANDARD.encode([MAGIC, &(length as u16).to_le_bytes(), head.as_bytes(), bytes].concat())
    }

    /// Reads the experts of `tokens` tokens of a model whose layers with experts are `layers` of `all`: a server has rows
    /// for these, or for all.
    pub fn from_text(text: &str, tokens: usize, shape: RoutedShape, (layers, all): (&[usize], usize)) -> Result<Self> {
        let bytes = BASE64_STANDARD.decode(text).context("the experts of the tokens are no base64")?;
        let Array { shape: told, numbers } = if bytes.starts_with(MAGIC) { npy(&bytes)? } else { bare(&bytes)? };
        let rows = told.map_or(numbers.len() / (tokens * shape.active).max(1), |[_, rows, _]| rows);
        let told = told.unwrap_or([tokens, rows, shape.active]);
        ensure!(
            (rows == layers.len() || rows == all)
                && told == [tokens, rows, shape.active]
                && numbers.len() == told.iter().product::<usize>(),
            "experts of shape {told:?} came, and not {tokens} tokens, {} layers, {} experts each",
            layers.len(),
            shape.active
        );
        let every: Vec<usize> = (0..rows).collect();
        let places = if rows == layers.len() { &every } else { layers };
        let mut routed = Self::new(shape);
        for token in numbers.chunks_exact(rows * shape.active) {
            let chosen: Vec<u32> =
                places.iter().flat_map(|&row| &token[row * shape.active..][..shape.active]).copied().collect();
            for layer in chosen.chunks_exact(shape.active) {
                let differ = (1..layer.len()).all(|place| !layer[..place].contains(&layer[place]));
                let known = layer.iter().all(|&expert| (expert as usize) < shape.experts);
                ensure!(differ && known, "{layer:?} are not {} of {} experts", shape.active, shape.experts);
            }
            routed.push(&chosen);
        }
        Ok(routed)
    }
}

/// Numbers of four bytes.
fn bare(bytes: &[u8]) -> Result<Array> {
    let (numbers, rest) = bytes.as_chunks::<4>();
    ensure!(rest.is_empty(), "{} bytes are no numbers of four bytes", bytes.len());
    Ok(Array { shape: None, numbers: numbers.iter().map(|number| u32::from_le_bytes(*number)).collect() })
}

/// An `.npy` array of three dimensions.
fn npy(bytes: &[u8]) -> Result<Array> {
    let read = || -> Option<Array> {
        let (length, rest) = bytes[MAGIC.len()..].split_first_chunk::<2>()?;
        let (head, values) = rest.split_at_checked(u16::from_le_bytes(*length) as usize)?;
        let head = std::str::from_utf8(head).ok().filter(|head| head.contains("'fortran_order': False"))?;
        let between = |from: &str, to: char| Some(head.split_once(from)?.1.split_once(to)?.0);
        let sizes = between("'shape': (", ')')?.split(',').map(|size| size.trim().parse::<usize>().ok());
        let shape: [usize; 3] = sizes.collect::<Option<Vec<_>>>()?.try_into().ok()?;
        let width = match between("'descr': '", '\'')? {
            "|u1" => 1,
            "<u2" => 2,
            "<i4" => 4,
            _ => return None,
        };
        let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |high, &byte| high << 8 | u32::from(byte));
        let numbers = values.chunks_exact(width).map(number).collect();
        Some(Array { shape: Some(shape), numbers })
    };
    read().context("the experts of the tokens are no .npy array of three dimensions and whole numbers")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What numpy 2 and pybase64 make of `np.array([[[0, 1], [2, 3]]], dtype)`.
    const BY_NUMPY: [(&str, &str); 2] = [
        (
            "uint8",
            concat!(
                "k05VTVBZAQB2AHsnZGVzY3InOiAnfHUxJywgJ2ZvcnRyYW5fb3JkZXInOiBGYWxzZSwgJ3NoYXBlJzogKDEsIDIs",
                "IDIpLCB9ICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIAoAAQID"
            ),
        ),
        (
            "int32",
            concat!(
                "k05VTVBZAQB2AHsnZGVzY3InOiAnPGk0JywgJ2ZvcnRyYW5fb3JkZXInOiBGYWxzZSwgJ3NoYXBlJzogKDEsIDIs",
                "IDIpLCB9ICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIAoAAAAAAQAAAAIAAAADAAAA"
            ),
        ),
    ];

    fn shape(layers: usize, experts: usize) -> RoutedShape {
        RoutedShape { layers, active: 2, experts }
    }

    #[test]
    fn arrays_of_numpy_are_read_for_all_layers_or_for_those_with_experts_and_written() {
        for (kind, text) in BY_NUMPY {
            let both = RoutedExperts::from_text(text, 1, shape(2, 4), (&[1, 2], 3)).unwrap();
            assert_eq!(both.tokens().next().unwrap(), [0, 1, 2, 3], "{kind}");
            let last = RoutedExperts::from_text(text, 1, shape(1, 4), (&[1], 2)).unwrap();
            assert_eq!(last.tokens().next().unwrap(), [2, 3], "{kind}");
            if kind == "uint8" {
                assert_eq!(both.to_text(), text);
            }
        }
        let many = shape(1, 300);
        let mut routed = RoutedExperts::new(many);
        routed.push(&[299, 0]);
        assert_eq!(RoutedExperts::from_text(&routed.to_text(), 1, many, (&[0], 1)).unwrap(), routed);
        let bare = BASE64_STANDARD.encode([0u32, 1, 2, 3].map(u32::to_le_bytes).concat());
        let last = RoutedExperts::from_text(&bare, 1, shape(1, 4), (&[1], 2)).unwrap();
        assert_eq!(last.tokens().next().unwrap(), [2, 3]);
    }

    #[test]
    fn what_are_no_experts_is_said() {
        let bare =
            |numbers: &[u32]| BASE64_STANDARD.encode(numbers.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<_>>());
        let cut = BASE64_STANDARD.encode(&BASE64_STANDARD.decode(BY_NUMPY[0].1).unwrap()[..100]);
        for (text, tokens, expected) in [
            ("!", 1, "no base64"),
            (&cut, 1, "no .npy array"),
            (BY_NUMPY[0].1, 2, "[1, 2, 2] came, and not 2 tokens"),
            (&bare(&[0, 0, 1, 2]), 1, "[0, 0] are not 2 of 4"),
            (&bare(&[0, 4, 1, 2]), 1, "[0, 4] are not 2 of 4"),
            (&bare(&[0, 1, 1, 2, 3]), 1, "came, and not 1 tokens"),
        ] {
            let error = RoutedExperts::from_text(text, tokens, shape(2, 4), (&[0, 1], 2)).unwrap_err();
            assert!(format!("{error:#}").contains(expected), "{error:#}");
        }
    }
}
