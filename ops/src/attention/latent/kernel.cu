// What stands between the products of attention over latents on a card: scores to probabilities, and back. Scores are rows
// of `width` values, an even number; row r is head r % heads of query r / heads, which sees the keys up to its own. The
// products are device.rs's. A warp a row.
#include "../../device/device.cuh"

// The rows of scores at hand: how many, how far apart, of how many heads, and how many keys were multiplied. The first
// query sees `before` keys and its own; where queries are in a cache, each has its own place there.
struct Scores {
    uint32_t rows, width, heads, keys, before, unused;
};

// Where in a cache a query's sequence begins, and its position there.
struct LatentPlace {
    uint32_t start, position;
};

// Two scores side by side at an even place: one access of 8 bytes.
struct alignas(8) TwoScores {
    float v[2];
};

__device__ inline void load_scores(const float* from, float (&out)[2]) {
    const TwoScores values = *reinterpret_cast<const TwoScores*>(from);
    out[0] = values.v[0];
    out[1] = values.v[1];
}

// s -> p (bf16), zero where the mask hides the key, and the row's log-sum-exp where it is asked for.
extern "C" __global__ void __launch_bounds__(128)
    latent_probabilities(const float* __restrict__ s, bf16* __restrict__ p, float* __restrict__ lse,
                         const LatentPlace* __restrict__ places, Scores scores) {
    const uint32_t row = blockIdx.x * 4 + warp_id();
    if (row >= scores.rows) return;
    const uint32_t query = row / scores.heads;
    const uint32_t seen = (places ? places[query].position : scores.before + query) + 1;
    const size_t start = static_cast<size_t>(row) * scores.width;
    float largest = -INFINITY, sum = 0;
    for (uint32_t j = lane_id() * 2; j < seen; j += WARP * 2) {
        float v[2];
        load_scores(s + start + j, v);
        largest = fmaxf(largest, j + 1 < seen ? fmaxf(v[0], v[1]) : v[0]);
    }
    largest = warp_max(largest);
    for (uint32_t j = lane_id() * 2; j < seen; j += WARP * 2) {
        float v[2];
        load_scores(s + start + j, v);
        sum += exp2f((v[0] - largest) * LOG2_E);
        if (j + 1 < seen) sum += exp2f((v[1] - largest) * LOG2_E);
    }
    sum = warp_sum(sum);
    const float total = largest + logf(sum);
    for (uint32_t j = lane_id() * 2; j < scores.keys; j += WARP * 2) {
        float v[2];
        load_scores(s + start + j, v);
#pragma unroll
        for (int i = 0; i < 2; i++) v[i] = j + i < seen ? exp2f((v[i] - total) * LOG2_E) : 0;
        *reinterpret_cast<uint32_t*>(p + start + j) = pack_two(v[0], v[1]);
    }
    if (lse && lane_id() == 0) lse[row] = total;
}
EXPORT(latent_probabilities)

// s and d_p = do v -> p and ds = p (do v - delta), both bf16, zero where the mask hides the key.
extern "C" __global__ void __launch_bounds__(128)
    latent_score_gradients(const float* __restrict__ s, const float* __restrict__ d_p, const float* __restrict__ lse,
                           const float* __restrict__ delta, bf16* __restrict__ p, bf16* __restrict__ ds, Scores scores) {
    const uint32_t row = blockIdx.x * 4 + warp_id();
    if (row >= scores.rows) return;
    const uint32_t seen = scores.before + row / scores.heads + 1;
    const size_t start = static_cast<size_t>(row) * scores.width;
    const float of_row = lse[row], own = delta[row];
    for (uint32_t j = lane_id() * 2; j < scores.keys; j += WARP * 2) {
        float v[2], d[2];
        load_scores(s + start + j, v);
        load_scores(d_p + start + j, d);
#pragma unroll
        for (int i = 0; i < 2; i++) {
            v[i] = j + i < seen ? exp2f((v[i] - of_row) * LOG2_E) : 0;
            d[i] = j + i < seen ? v[i] * (d[i] - own) : 0;
        }
        *reinterpret_cast<uint32_t*>(p + start + j) = pack_two(v[0], v[1]);
        *reinterpret_cast<uint32_t*>(ds + start + j) = pack_two(d[0], d[1]);
    }
}
EXPORT(latent_score_gradients)
