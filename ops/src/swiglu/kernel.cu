// swiglu on a card; the formulas are in mod.rs. A thread takes eight values of a row. With weights (rows), what comes out
// of a row is multiplied by its weight.
#include "../device/device.cuh"

extern "C" __global__ void __launch_bounds__(256)
    swiglu_forward(const bf16* __restrict__ gate_up, const float* __restrict__ weights, bf16* __restrict__ y,
                   uint32_t f, uint64_t values) {
    const uint64_t i = (static_cast<uint64_t>(blockIdx.x) * 256 + threadIdx.x) * 8;
    if (i >= values) return;
    const bf16* row = gate_up + i / f * 2 * f + i % f;
    float gate[8], up[8];
    load_eight(row, gate);
    load_eight(row + f, up);
    const float weight = weights ? weights[i / f] : 1.0f;
#pragma unroll
    for (int j = 0; j < 8; j++) up[j] *= weight * gate[j] / (1.0f + __expf(-gate[j]));
    store_eight(y + i, up);
}
EXPORT(swiglu_forward)

// In place: gate and up of eight values -> their gradients, g that of silu(gate) up. Returns g silu(gate) up, summed.
__device__ inline float to_gradients(float (&gate)[8], float (&up)[8], const float (&g)[8]) {
    float sum = 0;
#pragma unroll
    for (int j = 0; j < 8; j++) {
        const float s = 1.0f / (1.0f + __expf(-gate[j]));
        const float dgate = g[j] * up[j] * s * (1.0f + gate[j] * (1.0f - s)), dup = g[j] * gate[j] * s;
        sum += dup * up[j];
        gate[j] = dgate;
        up[j] = dup;
    }
    return sum;
}

// The gradient takes the place of gate_up: each thread writes where it alone has read.
extern "C" __global__ void __launch_bounds__(256)
    swiglu_backward(bf16* __restrict__ gate_up, const bf16* __restrict__ dy, uint32_t f, uint64_t values) {
    const uint64_t i = (static_cast<uint64_t>(blockIdx.x) * 256 + threadIdx.x) * 8;
    if (i >= values) return;
    const uint64_t row = i / f * 2 * f + i % f;
    float gate[8], up[8], g[8];
    load_eight(gate_up + row, gate);
    load_eight(gate_up + row + f, up);
    load_eight(dy + i, g);
    to_gradients(gate, up, g);
    store_eight(gate_up + row, gate);
    store_eight(gate_up + row + f, up);
}
EXPORT(swiglu_backward)

// The same of rows with weights, whose gradient is written too. A warp a row.
extern "C" __global__ void __launch_bounds__(128)
    swiglu_weighed_backward(bf16* __restrict__ gate_up, const float* __restrict__ weights, const bf16* __restrict__ dy,
                            float* __restrict__ d_weights, uint32_t f, uint32_t rows) {
    const uint32_t row = blockIdx.x * 4 + warp_id();
    if (row >= rows) return;
    bf16* at = gate_up + static_cast<size_t>(row) * 2 * f;
    const float weight = weights[row];
    float sum = 0;
    for (uint32_t i = lane_id() * 8; i < f; i += WARP * 8) {
        float gate[8], up[8], g[8];
        load_eight(at + i, gate);
        load_eight(at + f + i, up);
        load_eight(dy + static_cast<size_t>(row) * f + i, g);
        sum += to_gradients(gate, up, g);
#pragma unroll
        for (int j = 0; j < 8; j++) gate[j] *= weight, up[j] *= weight;
        store_eight(at + i, gate);
        store_eight(at + f + i, up);
    }
    sum = warp_sum(sum);
    if (lane_id() == 0) d_weights[row] = sum;
}
EXPORT(swiglu_weighed_backward)
