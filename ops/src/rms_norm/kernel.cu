// rms_norm on a card; the formulas are in mod.rs. A warp a row, so one kernel serves the residual stream and the
// heads: row r of `heads` heads is head r % heads of token r / heads, and tokens begin `stride` values apart. Values are
// multiplied by their weights and `base` together, which is one where weights are how far from it what multiplies is.
#include "../device/device.cuh"

// x -> y, and the factor of each row for the backward.
extern "C" __global__ void __launch_bounds__(128)
    rms_norm_forward(const bf16* __restrict__ x, const bf16* __restrict__ w, bf16* __restrict__ y,
                     float* __restrict__ factors, uint32_t rows, uint32_t k, uint32_t heads, uint32_t stride,
                     float base, float eps) {
    const uint32_t row = blockIdx.x * 4 + warp_id();
    if (row >= rows) return;
    const size_t start = static_cast<size_t>(row / heads) * stride + row % heads * k;
    float sum = 0;
    for (uint32_t i = lane_id() * 8; i < k; i += WARP * 8) {
        float v[8];
        load_eight(x + start + i, v);
#pragma unroll
        for (int j = 0; j < 8; j++) sum += v[j] * v[j];
    }
    const float factor = rsqrtf(warp_sum(sum) / k + eps);
    if (lane_id() == 0) factors[row] = factor;
    for (uint32_t i = lane_id() * 8; i < k; i += WARP * 8) {
        float v[8], scale[8];
        load_eight(x + start + i, v);
        load_eight(w + i, scale);
#pragma unroll
        for (int j = 0; j < 8; j++) v[j] = (base + scale[j]) * (v[j] * factor);
        store_eight(y + start + i, v);
    }
}
EXPORT(rms_norm_forward)

// dx = r (w dy) - x r^3 mean(w dy x), added to the residual stream's gradient where `add`, else written. `dy` and `dx`
// may be the same buffer.
extern "C" __global__ void __launch_bounds__(128)
    rms_norm_backward(const bf16* __restrict__ x, const bf16* __restrict__ w, const float* __restrict__ factors,
                      const bf16* dy, bf16* dx, uint32_t rows, uint32_t k, uint32_t heads, uint32_t stride,
                      float base, uint32_t add) {
    const uint32_t row = blockIdx.x * 4 + warp_id();
    if (row >= rows) return;
    const size_t start = static_cast<size_t>(row / heads) * stride + row % heads * k;
    const float r = factors[row];
    float sum = 0;
    for (uint32_t i = lane_id() * 8; i < k; i += WARP * 8) {
        float v[8], scale[8], g[8];
        load_eight(x + start + i, v);
        load_eight(w + i, scale);
        load_eight(dy + start + i, g);
#pragma unroll
        for (int j = 0; j < 8; j++) sum += (base + scale[j]) * g[j] * v[j];
    }
    const float shared = warp_sum(sum) * r * r * r / k;
    for (uint32_t i = lane_id() * 8; i < k; i += WARP * 8) {
        float v[8], scale[8], g[8], before[8] = {};
        load_eight(x + start + i, v);
        load_eight(w + i, scale);
        load_eight(dy + start + i, g);
        if (add) load_eight(dx + start + i, before);
#pragma unroll
        for (int j = 0; j < 8; j++) v[j] = before[j] + r * (base + scale[j]) * g[j] - v[j] * shared;
        store_eight(dx + start + i, v);
    }
}
EXPORT(rms_norm_backward)
