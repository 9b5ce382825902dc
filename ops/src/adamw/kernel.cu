// AdamW over flat buffers on a card; the formulas are in adamw.rs. Weights are fp32 and the bf16 copy that the model
// computes with is written in the same pass.
#include "../device/device.cuh"

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

// A number in [0, 1) that depends on a value's place and on the update alone.
__device__ inline float uniform(uint64_t place, uint32_t count) {
    uint64_t x = (place + 1) * 0x9e3779b97f4a7c15u ^ static_cast<uint64_t>(count) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 31) * 0x94d049bb133111ebu;
    return static_cast<float>((x ^ x >> 29) >> 40) * 0x1p-24f;
}

// The same with moments of eight bits, after Dettmers et al. 2021, arXiv:2110.02861: a block of 256 values shares its
// largest magnitude, and a code is the logarithm of a value's share of it: `2^((c - 127) / 8)` for m, with a sign,
// `2^((c - 255) / 10)` for v; code 0 is zero. Codes are rounded up or down at random, so that what decays by less than
// a code in an update decays all the same. A positive v never becomes 0, which would make its weight jump.
extern "C" __global__ void __launch_bounds__(256)
    adamw_update_8bit(float* __restrict__ w, bf16* __restrict__ copy, const float* __restrict__ g,
                      int8_t* __restrict__ m, uint8_t* __restrict__ v, float* __restrict__ m_largest,
                      float* __restrict__ v_largest, uint64_t n, Update u, uint32_t count) {
    SHARED(float, scratch, 8);
    const uint64_t i = static_cast<uint64_t>(blockIdx.x) * 256 + threadIdx.x;
    float first = 0, second = 0;
    if (i < n) {
        const int code = m[i], magnitude = code < 0 ? -code : code;
        const float old_m = magnitude ? copysignf(exp2f((magnitude - 127) / 8.0f), static_cast<float>(code)) : 0.0f;
        const float old_v = v[i] ? exp2f((v[i] - 255) / 10.0f) : 0.0f, gradient = g[i] * u.scale;
        first = u.beta1 * (old_m * m_largest[blockIdx.x]) + (1.0f - u.beta1) * gradient;
        second = u.beta2 * (old_v * v_largest[blockIdx.x]) + (1.0f - u.beta2) * gradient * gradient;
        w[i] = moved(u, w[i], first, second);
        copy[i] = to_bf16(w[i]);
    }
    const float m_top = block_max(fabsf(first), scratch), v_top = block_max(second, scratch);
    if (i < n) {
        const float m_code = 127.0f + 8.0f * log2f(fabsf(first) / m_top) + uniform(i, 2 * count);
        const float v_code = 255.0f + 10.0f * log2f(second / v_top) + uniform(i, 2 * count + 1);
        m[i] = static_cast<int8_t>(first != 0 ? copysignf(fminf(fmaxf(floorf(m_code), 0.0f), 127.0f), first) : 0.0f);
        v[i] = static_cast<uint8_t>(second > 0 ? fminf(fmaxf(floorf(v_code), 1.0f), 255.0f) : 0.0f);
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
