// Causal attention over packed sequences on a card, on tensor cores; the formulas are in mod.rs, the scheme is that of
// Dao 2023, arXiv:2307.08691. A block has four warps. `tiles` names each block's rows: where its sequence starts, how
// long it is, and the first row of the tile in it. Tiles that the mask hides are never loaded.
//
// The backward computes the scores twice, once a tile of keys and once a tile of queries, instead of adding to d_q from
// many blocks: 7 products for 5, and in exchange the same bits in every run.
#include "../tiles.cuh"

// Heads of more than 128 values have smaller tiles, so that they fit into shared memory, and are gathered 128 columns a
// block, so that these fit into registers: each of these blocks computes the scores again.
template <int D>
struct Sizes {
    static constexpr bool LARGE = D > 128;
    static constexpr int COLUMNS = LARGE ? 128 : D;
    // Of a block of the forward, and in a tile that it meets.
    static constexpr int QUERIES = LARGE ? ROWS : 2 * ROWS, KEYS = LARGE ? ROWS / 2 : ROWS;
    // At a time, while queries gather their gradient, and while a block of keys gathers its own.
    static constexpr int BACKWARD_KEYS = LARGE ? 16 : ROWS, BACKWARD_QUERIES = LARGE ? 16 : 32;
};

struct Tile {
    uint32_t start, length, first;
};

// Writes the warp's 16 rows, from `row` of a matrix with `count` rows on, each times a factor.
template <int D>
__device__ inline void write_rows(bf16* to, uint32_t stride, uint32_t row, uint32_t count, const float (&values)[D / 8][4],
                                  float first, float second) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const uint32_t r = row + lane_id() / 4 + 8 * half;
        if (r >= count) continue;
        const float factor = half ? second : first;
#pragma unroll
        for (int n = 0; n < D / 8; n++) {
            *reinterpret_cast<uint32_t*>(to + r * static_cast<size_t>(stride) + n * 8 + lane_id() % 4 * 2) =
                pack_two(values[n][2 * half] * factor, values[n][2 * half + 1] * factor);
        }
    }
}

template <int D>
__device__ inline void forward(const bf16* qkv, const Tile* tiles, bf16* o, float* lse, Shape shape) {
    constexpr int V = Sizes<D>::COLUMNS, QUERIES = Sizes<D>::QUERIES, KEYS = Sizes<D>::KEYS, M = QUERIES / ROWS;
    // Keys at a time: the registers hold no more beside 128 columns of 32 rows.
    constexpr int N = D > 64 ? ROWS / 2 : ROWS;
    SHARED_DYNAMIC(bf16, shared);
    bf16 *queries = shared, *keys = shared + QUERIES * D, *values = keys + 2 * KEYS * D;
    const Tile tile = tiles[blockIdx.x];
    // Several tiles of queries are one block's work.
    if (tile.first % QUERIES > 0) return;
    const uint32_t head = blockIdx.y, kv = head / (shape.query / shape.key_value), column = blockIdx.z * V;
    const bf16* base = qkv + static_cast<size_t>(tile.start) * shape.stride;
    const bf16 *key = base + (shape.query + kv) * D, *value = key + shape.key_value * D + column;
    const uint32_t count = (min(tile.length, tile.first + QUERIES) + KEYS - 1) / KEYS;
    const uint32_t row = tile.first + warp_id() * 16 * M;
    load_tile<D, QUERIES>(queries, base + head * D, shape.stride, tile.first, tile.length);
    load_tile<D, KEYS>(keys, key, shape.stride, 0, tile.length);
    load_tile<V, KEYS>(values, value, shape.stride, 0, tile.length);
    copy_commit();
    float out[M][V / 8][4] = {}, largest[M][2], sum[M][2] = {};
#pragma unroll
    for (int m = 0; m < M; m++) largest[m][0] = largest[m][1] = -INFINITY;
    const float scale = shape.scale * LOG2_E;
    for (uint32_t j = 0; j < count; j++) {
        const int now = j % 2 * KEYS, next = KEYS - now;
        if (j + 1 < count) {
            load_tile<D, KEYS>(keys + next * D, key, shape.stride, (j + 1) * KEYS, tile.length);
            load_tile<V, KEYS>(values + next * V, value, shape.stride, (j + 1) * KEYS, tile.length);
        }
        copy_commit();
        copy_wait<1>();
        __syncthreads();
#pragma unroll 1
        for (uint32_t part = 0; part < KEYS && j * KEYS + part < row + 16 * M; part += N) {
            float p[M][N / 8][4] = {};
            scores<D, N, M>(p, queries, warp_id() * 16 * M, keys + (now + part) * D);
#pragma unroll
            for (int m = 0; m < M; m++) {
                const uint32_t query = row + 16 * m + lane_id() / 4, limits[2] = {query + 1, query + 9};
                weigh<V, N>(p[m], out[m], largest[m], sum[m], j * KEYS + part, limits, scale);
            }
            gather<V, N, M>(out, p, values + (now + part) * V);
        }
        __syncthreads();
    }
    const size_t start = tile.start;
#pragma unroll
    for (int m = 0; m < M; m++) {
        const float first = warp_sum<4>(sum[m][0]), second = warp_sum<4>(sum[m][1]);
        write_rows<V>(o + (start * shape.query + head) * D + column, shape.query * D, row + 16 * m, tile.length, out[m],
                      1 / first, 1 / second);
        const uint32_t query = row + 16 * m + lane_id() / 4;
        if (lane_id() % 4 > 0 || column > 0) continue;
        if (query < tile.length) lse[(start + query) * shape.query + head] = largest[m][0] * LN_2 + logf(first);
        if (query + 8 < tile.length) lse[(start + query + 8) * shape.query + head] = largest[m][1] * LN_2 + logf(second);
    }
}

// delta (T, query) = sum over a head of o d_o. A warp a head of a token.
extern "C" __global__ void __launch_bounds__(128)
    attention_delta(const bf16* __restrict__ o, const bf16* __restrict__ d_o, float* __restrict__ delta, uint32_t rows,
                    uint32_t size) {
    const uint32_t row = blockIdx.x * 4 + warp_id();
    if (row >= rows) return;
    float sum = 0;
    for (uint32_t i = lane_id(); i < size; i += WARP) {
        const size_t at = static_cast<size_t>(row) * size + i;
        sum += to_float(o[at]) * to_float(d_o[at]);
    }
    sum = warp_sum(sum);
    if (lane_id() == 0) delta[row] = sum;
}
EXPORT(attention_delta)

// In place: a score -> p, and do v -> ds = p (do v - delta) scale; zero where the mask hides the key.
__device__ inline void to_gradient(float& p, float& ds, bool seen, float lse, float delta, float scale) {
    p = seen ? exp2f((p * scale - lse) * LOG2_E) : 0;
    ds = p * (ds - delta) * scale;
}

// d_k and d_v of a tile of keys, from all queries of the heads that share them.
template <int D>
__device__ inline void backward_keys(const bf16* qkv, const bf16* d_o, const float* lse, const float* delta,
                                     const Tile* tiles, bf16* d_qkv, Shape shape) {
    constexpr int V = Sizes<D>::COLUMNS, QUERIES = Sizes<D>::BACKWARD_QUERIES;
    SHARED_DYNAMIC(bf16, shared);
    bf16 *keys = shared, *values = keys + ROWS * D, *queries = values + ROWS * D, *grads = queries + 2 * QUERIES * D;
    const Tile tile = tiles[blockIdx.x];
    const uint32_t kv = blockIdx.y, group = shape.query / shape.key_value, column = blockIdx.z * V;
    const size_t start = tile.start;
    const bf16 *base = qkv + start * shape.stride, *grad = d_o + start * shape.query * D;
    const uint32_t key_at = (shape.query + kv) * D, value_at = key_at + shape.key_value * D;
    const uint32_t begin = tile.first / QUERIES, turns = (tile.length + QUERIES - 1) / QUERIES - begin;
    const auto load = [&](uint32_t i) {
        const uint32_t head = kv * group + i / turns, first = (begin + i % turns) * QUERIES;
        const int to = i % 2 * QUERIES * D;
        load_tile<D, QUERIES>(queries + to, base + head * D, shape.stride, first, tile.length);
        load_tile<D, QUERIES>(grads + to, grad + head * D, shape.query * D, first, tile.length);
    };
    load_tile<D, ROWS>(keys, base + key_at, shape.stride, tile.first, tile.length);
    load_tile<D, ROWS>(values, base + value_at, shape.stride, tile.first, tile.length);
    load(0);
    copy_commit();
    float d_key[1][V / 8][4] = {}, d_value[1][V / 8][4] = {};
    for (uint32_t i = 0; i < group * turns; i++) {
        if (i + 1 < group * turns) load(i + 1);
        copy_commit();
        copy_wait<1>();
        __syncthreads();
        const int now = i % 2 * QUERIES * D;
        // Keys are the rows here: p and ds come out transposed, as the products below take them.
        float p[1][QUERIES / 8][4] = {}, ds[1][QUERIES / 8][4] = {};
        scores<D, QUERIES, 1>(p, keys, warp_id() * 16, queries + now);
        scores<D, QUERIES, 1>(ds, values, warp_id() * 16, grads + now);
#pragma unroll
        for (int n = 0; n < QUERIES / 8; n++) {
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const uint32_t query = (begin + i % turns) * QUERIES + n * 8 + lane_id() % 4 * 2 + e % 2;
                const uint32_t key = tile.first + warp_id() * 16 + lane_id() / 4 + e / 2 * 8;
                const bool seen = key <= query && query < tile.length;
                const size_t at = (start + (seen ? query : 0)) * shape.query + kv * group + i / turns;
                to_gradient(p[0][n][e], ds[0][n][e], seen, lse[at], delta[at], shape.scale);
            }
        }
        gather<D, QUERIES, 1, V>(d_value, p, grads + now, column);
        gather<D, QUERIES, 1, V>(d_key, ds, queries + now, column);
        __syncthreads();
    }
    bf16* out = d_qkv + start * shape.stride + column;
    write_rows<V>(out + key_at, shape.stride, tile.first + warp_id() * 16, tile.length, d_key[0], 1, 1);
    write_rows<V>(out + value_at, shape.stride, tile.first + warp_id() * 16, tile.length, d_value[0], 1, 1);
}

// d_q of a tile of queries of one head.
template <int D>
__device__ inline void backward_queries(const bf16* qkv, const bf16* d_o, const float* lse, const float* delta,
                                        const Tile* tiles, bf16* d_qkv, Shape shape) {
    constexpr int V = Sizes<D>::COLUMNS, KEYS = Sizes<D>::BACKWARD_KEYS;
    SHARED_DYNAMIC(bf16, shared);
    bf16 *queries = shared, *grads = queries + ROWS * D, *keys = grads + ROWS * D, *values = keys + 2 * KEYS * D;
    const Tile tile = tiles[blockIdx.x];
    const uint32_t head = blockIdx.y, kv = head / (shape.query / shape.key_value), column = blockIdx.z * V;
    const size_t start = tile.start;
    const bf16* base = qkv + start * shape.stride;
    const bf16 *key = base + (shape.query + kv) * D, *value = key + shape.key_value * D;
    const uint32_t count = (min(tile.length, tile.first + ROWS) + KEYS - 1) / KEYS, row = tile.first + warp_id() * 16;
    const auto load = [&](uint32_t j) {
        load_tile<D, KEYS>(keys + j % 2 * KEYS * D, key, shape.stride, j * KEYS, tile.length);
        load_tile<D, KEYS>(values + j % 2 * KEYS * D, value, shape.stride, j * KEYS, tile.length);
    };
    load_tile<D, ROWS>(queries, base + head * D, shape.stride, tile.first, tile.length);
    load_tile<D, ROWS>(grads, d_o + (start * shape.query + head) * D, shape.query * D, tile.first, tile.length);
    load(0);
    copy_commit();
    float row_lse[2], row_delta[2], d_query[1][V / 8][4] = {};
    for (int half = 0; half < 2; half++) {
        const uint32_t query = min(row + lane_id() / 4 + 8 * half, tile.length - 1);
        row_lse[half] = lse[(start + query) * shape.query + head];
        row_delta[half] = delta[(start + query) * shape.query + head];
    }
    for (uint32_t j = 0; j < count; j++) {
        if (j + 1 < count) load(j + 1);
        copy_commit();
        copy_wait<1>();
        __syncthreads();
        const int now = j % 2 * KEYS * D;
        float p[1][KEYS / 8][4] = {}, ds[1][KEYS / 8][4] = {};
        scores<D, KEYS, 1>(p, queries, warp_id() * 16, keys + now);
        scores<D, KEYS, 1>(ds, grads, warp_id() * 16, values + now);
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++) {
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const uint32_t at = j * KEYS + n * 8 + lane_id() % 4 * 2 + e % 2;
                const bool seen = at <= row + lane_id() / 4 + e / 2 * 8;
                to_gradient(p[0][n][e], ds[0][n][e], seen, row_lse[e / 2], row_delta[e / 2], shape.scale);
            }
        }
        gather<D, KEYS, 1, V>(d_query, ds, keys + now, column);
        __syncthreads();
    }
    write_rows<V>(d_qkv + start * shape.stride + head * D + column, shape.stride, row, tile.length, d_query[0], 1, 1);
}

#define ATTENTION(D)                                                                                                   \
    extern "C" __global__ void __launch_bounds__(128)                                                                  \
        attention_forward_##D(const bf16* qkv, const Tile* tiles, bf16* o, float* lse, Shape shape) {                  \
        forward<D>(qkv, tiles, o, lse, shape);                                                                         \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(128)                                                                  \
        attention_backward_keys_##D(const bf16* qkv, const bf16* d_o, const float* lse, const float* delta,            \
                                    const Tile* tiles, bf16* d_qkv, Shape shape) {                                     \
        backward_keys<D>(qkv, d_o, lse, delta, tiles, d_qkv, shape);                                                   \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(128)                                                                  \
        attention_backward_queries_##D(const bf16* qkv, const bf16* d_o, const float* lse, const float* delta,         \
                                       const Tile* tiles, bf16* d_qkv, Shape shape) {                                  \
        backward_queries<D>(qkv, d_o, lse, delta, tiles, d_qkv, shape);                                                \
    }                                                                                                                  \
    EXPORT(attention_forward_##D)                                                                                      \
    EXPORT(attention_backward_keys_##D)                                                                                \
    EXPORT(attention_backward_queries_##D)

ATTENTION(32)
ATTENTION(64)
ATTENTION(128)
ATTENTION(256)
