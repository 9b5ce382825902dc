// From rows of logits to a token each and its log-probability on a card, where all tokens are kept; the CPU twin is
// rollout/sampling.rs. A block a row; sums are in one order, so that the same logits give the same token.
#include "../device/device.cuh"

constexpr int THREADS = 512;

struct Sampled {
    uint32_t token;
    float logprob;
};

__device__ inline float row_max(const float* row, uint32_t v, float* scratch) {
    float top = -INFINITY;
    for (uint32_t i = threadIdx.x; i < v; i += THREADS) top = fmaxf(top, row[i]);
    return block_max(top, scratch);
}

__device__ inline float weight(float logit, float top, float scale) { return expf((logit - top) * scale); }

// The sums of weights of up to THREADS pieces of a row's tokens begin .. end, `piece` tokens each, in `sums`.
__device__ inline void sum_pieces(const float* row, float top, float scale, uint32_t begin, uint32_t end, uint32_t piece,
                                  float* sums) {
    for (uint32_t p = warp_id(); p * piece < end - begin; p += THREADS / WARP) {
        const uint32_t first = begin + p * piece, last = min(end, first + piece);
        float sum = 0;
        for (uint32_t i = first + lane_id(); i < last; i += WARP) sum += weight(row[i], top, scale);
        sum = warp_sum(sum);
        if (lane_id() == 0) sums[p] = sum;
    }
    __syncthreads();
}

// The first token at which the cumulative probability passes the row's `uniforms`. A row's tokens are cut into pieces,
// the piece is found in which the sum passes, and cut again.
extern "C" __global__ void __launch_bounds__(THREADS)
    sample_rows(const float* __restrict__ logits, const double* __restrict__ uniforms, Sampled* __restrict__ sampled, uint32_t v,
             float temperature) {
    SHARED(float, scratch, THREADS / WARP);
    SHARED(float, sums, THREADS);
    SHARED(double, left, 1);
    SHARED(double, total, 1);
    SHARED(uint32_t, chosen, 1);
    const float *row = logits + static_cast<size_t>(blockIdx.x) * v, scale = 1.0f / temperature;
    const float top = row_max(row, v, scratch);
    uint32_t begin = 0, end = v;
    do {
        const uint32_t piece = (end - begin + THREADS - 1) / THREADS, pieces = (end - begin + piece - 1) / piece;
        sum_pieces(row, top, scale, begin, end, piece, sums);
        if (threadIdx.x == 0) {
            if (end - begin == v) {
                total[0] = 0;
                for (uint32_t p = 0; p < pieces; p++) total[0] += sums[p];
                left[0] = uniforms[blockIdx.x] * total[0];
            }
            chosen[0] = 0;
            double rest = left[0];
            for (uint32_t p = 0; p < pieces; p++) {
                // Where rounding lets no piece pass, the last one that holds anything is taken.
                if (sums[p] > 0) {
                    chosen[0] = p;
                    left[0] = rest;
                }
                if (rest < sums[p]) break;
                rest -= sums[p];
            }
        }
        // What all have read by their next barrier, in sum_pieces, is not overwritten before it.
        __syncthreads();
        begin += chosen[0] * piece;
        end = min(end, begin + piece);
    } while (end - begin > 1);
    if (threadIdx.x > 0) return;
    sampled[blockIdx.x] = {begin, (row[begin] - top) * scale - logf(static_cast<float>(total[0]))};
}
EXPORT(sample_rows)

// The first of the likeliest tokens, and its log-probability at temperature 1.
extern "C" __global__ void __launch_bounds__(THREADS)
    argmax_rows(const float* __restrict__ logits, Sampled* __restrict__ sampled, uint32_t v) {
    SHARED(float, scratch, THREADS / WARP);
    SHARED(uint32_t, firsts, THREADS);
    const float* row = logits + static_cast<size_t>(blockIdx.x) * v;
    const float top = row_max(row, v, scratch);
    uint32_t first = v;
    float sum = 0;
    for (uint32_t i = threadIdx.x; i < v; i += THREADS) {
        if (row[i] == top) first = min(first, i);
        sum += weight(row[i], top, 1);
    }
    firsts[threadIdx.x] = first;
    sum = block_sum(sum, scratch);
    if (threadIdx.x > 0) return;
    // A row that holds no number has no largest: its first token stands for it.
    uint32_t token = v;
    for (int i = 0; i < THREADS; i++) token = min(token, firsts[i]);
    sampled[blockIdx.x] = {token < v ? token : 0, -logf(sum)};
}
EXPORT(argmax_rows)
