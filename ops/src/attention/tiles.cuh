// Tiles of attention on a card: how rows lie in shared memory, and the products and the softmax of a warp's rows, 16 at
// a time. Blocks have four warps.
#pragma once
#include "../device/device.cuh"

constexpr int ROWS = 64; // of a tile of keys, and of queries where there are many

// Where queries, keys and values lie.
struct Shape {
    uint32_t query, key_value, stride;
    float scale;
};

// Place of value `column` of a row in shared memory: pieces of 16 bytes are permuted so that the eight rows a matrix is
// read from lie in different banks.
template <int D>
__device__ inline int place(int row, int column) {
    constexpr int PIECES = D / 8 < 8 ? D / 8 : 8;
    const int piece = (column / 8) ^ (row / (8 / PIECES) % PIECES);
    return row * D + piece * 8 + column % 8;
}

// Starts copying rows first .. first + N of a matrix with `count` rows; rows beyond it are zero.
template <int D, int N>
__device__ inline void load_tile(bf16* to, const bf16* from, uint32_t stride, uint32_t first, uint32_t count) {
// Unrolled, its addresses crowd the registers of what is computed beside it.
#pragma unroll 1
    for (int i = threadIdx.x; i < N * D / 8; i += 128) {
        const int row = i / (D / 8), column = i % (D / 8) * 8;
        const bool wanted = first + row < count;
        copy_async(to + place<D>(row, column), from + (wanted ? (first + row) * static_cast<size_t>(stride) : 0) + column,
                   wanted);
    }
}

// out (16 M, N) += rows (16 M, D) of `left` from `row` on, times rows (N, D) of `right` transposed. What is read of `right`
// serves all M: with one, shared memory is the limit and not the tensor cores.
template <int D, int N, int M>
__device__ inline void scores(float (&out)[M][N / 8][4], const bf16* left, int row, const bf16* right) {
    const int lane = lane_id();
// Unrolled whole, the loads of 128 columns crowd the registers and spill.
#pragma unroll(M > 1 ? 2 : 4)
    for (int k = 0; k < D; k += 16) {
        uint32_t a[M][4];
#pragma unroll
        for (int m = 0; m < M; m++) load_matrices(a[m], left + place<D>(row + 16 * m + lane % 16, k + lane / 16 * 8));
#pragma unroll
        for (int n = 0; n < N; n += 16) {
            uint32_t b[4];
            load_matrices(b, right + place<D>(n + lane % 8 + lane / 16 * 8, k + lane / 8 % 2 * 8));
#pragma unroll
            for (int m = 0; m < M; m++) {
                mma(out[m][n / 8], a[m], b[0], b[1]);
                mma(out[m][n / 8 + 1], a[m], b[2], b[3]);
            }
        }
    }
}

// Weights (16, 16) in registers, columns from 8 `n` on, rounded to bf16 as tensor cores take them.
template <int N>
__device__ inline void pack_weights(uint32_t (&a)[4], const float (&weights)[N / 8][4], int n) {
    const float(&low)[4] = weights[n], (&high)[4] = weights[n + 1];
    a[0] = pack_two(low[0], low[1]);
    a[1] = pack_two(low[2], low[3]);
    a[2] = pack_two(high[0], high[1]);
    a[3] = pack_two(high[2], high[3]);
}

// out (16 M, V) += weights (16 M, N) in registers, rounded to bf16, times columns first .. first + V of rows (N, D).
template <int D, int N, int M, int V = D>
__device__ inline void gather(float (&out)[M][V / 8][4], const float (&weights)[M][N / 8][4], const bf16* rows,
                              int first = 0) {
    const int lane = lane_id();
#pragma unroll
    for (int k = 0; k < N; k += 16) {
        uint32_t a[M][4];
#pragma unroll
        for (int m = 0; m < M; m++) pack_weights<N>(a[m], weights[m], k / 8);
#pragma unroll
        for (int d = 0; d < V; d += 16) {
            uint32_t b[4];
            load_matrices_transposed(b, rows + place<D>(k + lane % 16, first + d + lane / 16 * 8));
#pragma unroll
            for (int m = 0; m < M; m++) {
                mma(out[m][d / 8], a[m], b[0], b[1]);
                mma(out[m][d / 8 + 1], a[m], b[2], b[3]);
            }
        }
    }
}

// One more tile of the online softmax: scores p (16, N) of the columns from `first` on become weights relative to the
// largest score so far, and what was gathered relative to an older one shrinks. A lane's two rows see the columns below
// `limits`; the first tile has at least one of them.
template <int D, int N>
__device__ inline void weigh(float (&p)[N / 8][4], float (&out)[D / 8][4], float (&largest)[2], float (&sum)[2],
                             uint32_t first, const uint32_t (&limits)[2], float scale) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float top = largest[half];
#pragma unroll
        for (int n = 0; n < N / 8; n++) {
#pragma unroll
            for (int i = 2 * half; i < 2 * half + 2; i++) {
                const uint32_t at = first + n * 8 + lane_id() % 4 * 2 + i % 2;
                p[n][i] = at < limits[half] ? p[n][i] * scale : -INFINITY;
                top = fmaxf(top, p[n][i]);
            }
        }
        // Every row sees a column of its first tile, so from there on the largest score is finite.
        top = warp_max<4>(top);
        const float shrink = exp2f(largest[half] - top);
        largest[half] = top;
        sum[half] *= shrink;
#pragma unroll
        for (int n = 0; n < N / 8; n++) {
#pragma unroll
            for (int i = 2 * half; i < 2 * half + 2; i++) {
                p[n][i] = exp2f(p[n][i] - top);
                sum[half] += p[n][i];
            }
        }
#pragma unroll
        for (int n = 0; n < D / 8; n++) {
            out[n][2 * half] *= shrink;
            out[n][2 * half + 1] *= shrink;
        }
    }
}
