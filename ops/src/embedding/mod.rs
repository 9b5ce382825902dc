//! Token ids to rows of the embedding matrix, and back.

pub mod device;

/// `tokens (T)`, `w (V, K)` -> `y (T, K)`.
pub fn forward(tokens: &[u32], w: &[f32], k: usize, y: &mut [f32]) {
    for (&token, row) in tokens.iter().zip(y.chunks_exact_mut(k)) {
        row.copy_from_slice(&w[token as usize * k..][..k]);
    }
}

/// `dw[tokens[t]] += dy[t]`, in the order of the tokens.
pub fn backward(tokens: &[u32], dy: &[f32], k: usize, dw: &mut [f32]) {
    for (&token, row) in tokens.iter().zip(dy.chunks_exact(k)) {
        for (sum, &g) in dw[token as usize * k..][..k].iter_mut().zip(row) {
            *sum += g;
        }
    }
}
