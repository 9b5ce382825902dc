// AdamW over flat buffers on a card; the formulas are in adamw.rs. Weights are fp32 and the bf16 copy that the model
// computes with is written in the same pass.
#include "device.cuh"

// The update's settings, after `lr` in the order of adamw::Step; corrections are 1 / (1 - beta^count).
struct Update {
    float lr, beta1, beta2, eps, weight_decay, scale, correct1, correct2;
};

__device__ inline float moved(const Update& u, float w, float m, float v) {
    return w - u.lr * (m * u.correct1 / (sqrtf(v * u.correct2) + u.eps) + u.weight_decay * w);
}

extern "C" __global__ void __launch_bounds__(256)
    adamw_update(float* __restrict__ w, bf16* __restrict__ copy, const float* __restrict__ g, float* __restrict__ m,
                 float* __restrict__ v, uint64_t n, Update u) {
    const uint64_t i = static_cast<uint64_t>(blockIdx.x) * 256 + threadIdx.x;
    if (i >= n) return;
    const float gradient = g[i] * u.scale;
    m[i] = u.beta1 * m[i] + (1.0f - u.beta1) * gradient;
    v[i] = u.beta2 * v[i] + (1.0f - u.beta2) * gradient * gradient;
    w[i] = moved(u, w[i], m[i], v[i]);
    copy[i] = to_bf16(w[i]);
}
EXPORT(adamw_update)

// The same with moments of eight bits, after Dettmers et al. 2021, arXiv:2110.02861: a block of 256 values shares its
// largest magnitude, and a code is its share of it, on a curve that keeps small values apart: the square root for m
// (signed), the fourth root for v. A positive v never becomes code 0, which would make its weight jump.
extern "C" __global__ void __launch_bounds__(256)
    adamw_update_8bit(float* __restrict__ w, bf16* __restrict__ copy, const float* __restrict__ g,
                      int8_t* __restrict__ m, uint8_t* __restrict__ v, float* __restrict__ m_largest,
                      float* __restrict__ v_largest, uint64_t n, Update u) {
    SHARED(float, scratch, 8);
    const uint64_t i = static_cast<uint64_t>(blockIdx.x) * 256 + threadIdx.x;
    float first = 0, second = 0;
    if (i < n) {
        const float gradient = g[i] * u.scale, root = m[i] / 127.0f, share = v[i] / 255.0f;
        first = u.beta1 * (root * fabsf(root) * m_largest[blockIdx.x]) + (1.0f - u.beta1) * gradient;
        second = u.beta2 * (share * share * (share * share) * v_largest[blockIdx.x]) +
                 (1.0f - u.beta2) * gradient * gradient;
        w[i] = moved(u, w[i], first, second);
        copy[i] = to_bf16(w[i]);
    }
    const float m_top = block_max(fabsf(first), scratch), v_top = block_max(second, scratch);
    if (i < n) {
        const float root = m_top > 0 ? sqrtf(fabsf(first) / m_top) : 0;
        const float share = v_top > 0 ? sqrtf(sqrtf(second / v_top)) : 0;
        m[i] = static_cast<int8_t>(copysignf(roundf(127.0f * root), first));
        v[i] = static_cast<uint8_t>(second > 0 ? fmaxf(1.0f, roundf(255.0f * share)) : 0.0f);
    }
    if (threadIdx.x == 0) {
        m_largest[blockIdx.x] = m_top;
        v_largest[blockIdx.x] = v_top;
    }
}
EXPORT(adamw_update_8bit)

// partial (blocks) = sum of g^2 over the block's share, in double; the host adds them in order.
extern "C" __global__ void __launch_bounds__(256)
    squared_norm(const float* __restrict__ g, double* __restrict__ partial, uint64_t n) {
    SHARED(double, sums, 256);
    double sum = 0;
    const uint64_t step = static_cast<uint64_t>(gridDim.x) * 256;
    for (uint64_t i = static_cast<uint64_t>(blockIdx.x) * 256 + threadIdx.x; i < n; i += step) {
        sum += static_cast<double>(g[i]) * g[i];
    }
    sums[threadIdx.x] = sum;
    __syncthreads();
    for (int half = 128; half > 0; half /= 2) {
        if (static_cast<int>(threadIdx.x) < half) sums[threadIdx.x] += sums[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0) partial[blockIdx.x] = sums[0];
}
EXPORT(squared_norm)

// The bf16 copy of weights that came from the host.
extern "C" __global__ void __launch_bounds__(256)
    round_weights(const float* __restrict__ w, bf16* __restrict__ copy, uint64_t n) {
    const uint64_t i = static_cast<uint64_t>(blockIdx.x) * 256 + threadIdx.x;
    if (i < n) copy[i] = to_bf16(w[i]);
}
EXPORT(round_weights)
