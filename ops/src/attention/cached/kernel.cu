// Attention of one new token a row over the keys and values of its sequence in a cache, on tensor cores; the CPU twin is
// cached.rs. The heads that share keys are the rows of one tile, so what is cached is read once for all of them, and the
// four warps of a block share out each tile's positions.
//
// A cache is taken in stretches of STRETCH positions, a block each, whatever the batch: so a row's bits do not depend on
// the rows beside it. Where no row has more than one stretch a block writes the output, else a second kernel joins them.
#include "../tiles.cuh"

constexpr uint32_t HEADS = 16; // most heads of a block
constexpr uint32_t STRETCH = 256;

// A row's new token: where its sequence begins in the cache, and its position there.
struct Cached {
    uint32_t start, position;
};

// Puts what the warps gathered of their shares together: for each head the values relative to the largest score, in
// `merged (4, HEADS, D)`, and for each warp and head that score and the sum of weights, in `stats`.
template <int D>
__device__ inline void share(float* merged, float* stats, const float (&out)[D / 8][4], const float (&largest)[2],
                             const float (&sum)[2]) {
    for (int half = 0; half < 2; half++) {
        const uint32_t head = warp_id() * HEADS + lane_id() / 4 + 8 * half;
#pragma unroll
        for (int n = 0; n < D / 8; n++) {
            float* to = merged + head * D + n * 8 + lane_id() % 4 * 2;
            to[0] = out[n][2 * half];
            to[1] = out[n][2 * half + 1];
        }
        const float total = warp_sum<4>(sum[half]);
        if (lane_id() % 4 > 0) continue;
        stats[head * 2] = largest[half];
        stats[head * 2 + 1] = total;
    }
}

// The sum over `count` parts of values relative to the parts' largest scores, made relative to the largest of all.
struct Joined {
    float value, largest, sum;
};

__device__ inline Joined join(const float* values, size_t stride, const float* stats, size_t stats_stride, uint32_t count) {
    Joined all = {0, -INFINITY, 0};
    for (uint32_t i = 0; i < count; i++) all.largest = fmaxf(all.largest, stats[i * stats_stride]);
    for (uint32_t i = 0; i < count; i++) {
        // A part that saw no position has a sum of 0 and weighs nothing.
        const float weight = exp2f(stats[i * stats_stride] - all.largest);
        all.value += values[i * stride] * weight;
        all.sum += stats[i * stats_stride + 1] * weight;
    }
    return all;
}

// qkv (rows, stride), keys and values (places, key_value * D) -> o (rows, query * D), or partial
// (rows, query, stretches, D + 2): values, largest score, sum of weights. A block a row, up to HEADS heads of one
// group, and a stretch.
template <int D>
__device__ inline void attend(const bf16* qkv, const bf16* keys, const bf16* values, const Cached* rows, bf16* o,
                              float* partial, Shape shape) {
    // Tiles in shared memory: one is loaded while another is met, where two of such heads fit.
    constexpr int STAGES = D > 128 ? 1 : 2;
    SHARED_DYNAMIC(bf16, shared);
    SHARED(float, stats, 4 * HEADS * 2);
    bf16 *queries = shared, *key_tiles = shared + HEADS * D, *value_tiles = key_tiles + STAGES * ROWS * D;
    const uint32_t group = shape.query / shape.key_value, turns = (group + HEADS - 1) / HEADS;
    const uint32_t kv = blockIdx.y / turns, member = blockIdx.y % turns * HEADS, count = min(group - member, HEADS);
    const uint32_t head = kv * group + member, width = shape.key_value * D;
    const Cached row = rows[blockIdx.x];
    const uint32_t begin = blockIdx.z * STRETCH, end = min(row.position + 1, begin + STRETCH);
    if (begin > row.position) return;
    const bf16* key = keys + static_cast<size_t>(row.start) * width + kv * D;
    const bf16* value = values + static_cast<size_t>(row.start) * width + kv * D;
    load_tile<D, HEADS>(queries, qkv + blockIdx.x * static_cast<size_t>(shape.stride) + head * D, D, 0, count);
    const auto load = [&](uint32_t tile, uint32_t at) {
        load_tile<D, ROWS>(key_tiles + at, key, width, tile, end);
        load_tile<D, ROWS>(value_tiles + at, value, width, tile, end);
    };
    if (STAGES > 1) load(begin, 0);
    copy_commit();
    float out[1][D / 8][4] = {}, largest[2] = {-INFINITY, -INFINITY}, sum[2] = {};
    const uint32_t limits[2] = {end, end};
    const float scale = shape.scale * LOG2_E;
    for (uint32_t tile = begin, now = 0; tile < end; tile += ROWS, now = (STAGES - 1) * ROWS * D - now) {
        if (STAGES == 1) {
            load(tile, 0);
        } else if (tile + ROWS < end) {
            load(tile + ROWS, ROWS * D - now);
        }
        copy_commit();
        copy_wait<STAGES - 1>();
        __syncthreads();
        const uint32_t first = tile + warp_id() * 16, at = now + warp_id() * 16 * D;
        if (first < end) {
            float p[1][2][4] = {};
            scores<D, 16, 1>(p, queries, 0, key_tiles + at);
            weigh<D, 16>(p[0], out[0], largest, sum, first, limits, scale);
            gather<D, 16, 1>(out, p, value_tiles + at);
        }
        __syncthreads();
    }
    // All tiles are read: their place serves for what the warps put together.
    float* merged = reinterpret_cast<float*>(key_tiles);
    share<D>(merged, stats, out[0], largest, sum);
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < count * D; i += 128) {
        const Joined all = join(merged + i, HEADS * D, stats + i / D * 2, HEADS * 2, 4);
        const size_t to = blockIdx.x * static_cast<size_t>(shape.query) + head + i / D;
        if (gridDim.z == 1) {
            o[to * D + i % D] = to_bf16(all.value / all.sum);
            continue;
        }
        float* part = partial + (to * gridDim.z + blockIdx.z) * (D + 2);
        part[i % D] = all.value;
        if (i % D > 0) continue;
        part[D] = all.largest;
        part[D + 1] = all.sum;
    }
}

// partial -> o (rows, query * D). A block a row and head.
extern "C" __global__ void __launch_bounds__(128)
    cached_attention_join(const float* __restrict__ partial, const Cached* __restrict__ rows, bf16* __restrict__ o,
                          uint32_t stretches, uint32_t size) {
    const size_t to = blockIdx.x * static_cast<size_t>(gridDim.y) + blockIdx.y, part = size + 2;
    const float* parts = partial + to * stretches * part;
    const uint32_t count = rows[blockIdx.x].position / STRETCH + 1;
    for (uint32_t i = threadIdx.x; i < size; i += 128) {
        const Joined all = join(parts + i, part, parts + size, part, count);
        o[to * size + i] = to_bf16(all.value / all.sum);
    }
}
EXPORT(cached_attention_join)

// Keys and values of qkv (rows, stride), `width` values each from `from` on, to the rows' places; keys alone where there
// is no place for values. A warp a row.
extern "C" __global__ void __launch_bounds__(128)
    cache_put(const bf16* __restrict__ qkv, const Cached* __restrict__ places, bf16* __restrict__ keys,
              bf16* __restrict__ values, uint32_t rows, uint32_t stride, uint32_t from, uint32_t width) {
    const uint32_t row = blockIdx.x * 4 + warp_id();
    if (row >= rows) return;
    const size_t to = (static_cast<size_t>(places[row].start) + places[row].position) * width;
    const bf16* key = qkv + static_cast<size_t>(row) * stride + from;
    for (uint32_t i = lane_id() * 8; i < width; i += WARP * 8) {
        *reinterpret_cast<Eight*>(keys + to + i) = *reinterpret_cast<const Eight*>(key + i);
        if (values) *reinterpret_cast<Eight*>(values + to + i) = *reinterpret_cast<const Eight*>(key + width + i);
    }
}
EXPORT(cache_put)

// In every plane, `plane` values long, `count` values from `from` on to `to` on; the two do not overlap.
extern "C" __global__ void __launch_bounds__(256)
    cache_copy(bf16* __restrict__ cache, uint64_t from, uint64_t to, uint64_t count, uint64_t plane) {
    const uint64_t i = (static_cast<uint64_t>(blockIdx.x) * 256 + threadIdx.x) * 8;
    bf16* start = cache + blockIdx.y * plane;
    if (i < count) *reinterpret_cast<Eight*>(start + to + i) = *reinterpret_cast<const Eight*>(start + from + i);
}
EXPORT(cache_copy)

#define CACHED_ATTENTION(D)                                                                                            \
    extern "C" __global__ void __launch_bounds__(128)                                                                  \
        cached_attention_##D(const bf16* qkv, const bf16* keys, const bf16* values, const Cached* rows, bf16* o,       \
                             float* partial, Shape shape) {                                                            \
        attend<D>(qkv, keys, values, rows, o, partial, shape);                                                         \
    }                                                                                                                  \
    EXPORT(cached_attention_##D)

CACHED_ATTENTION(32)
CACHED_ATTENTION(64)
CACHED_ATTENTION(128)
CACHED_ATTENTION(256)
