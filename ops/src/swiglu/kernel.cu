// swiglu on a card; the formulas are in mod.rs. A thread takes eight values of a row.
#include "../device/device.cuh"

extern "C" __global__ void __launch_bounds__(256)
    swiglu_forward(const bf16* __restrict__ gate_up, bf16* __restrict__ y, uint32_t f, uint64_t values) {
    const uint64_t i = (static_cast<uint64_t>(blockIdx.x) * 256 + threadIdx.x) * 8;
    if (i >= values) return;
    const bf16* row = gate_up + i / f * 2 * f + i % f;
    float gate[8], up[8];
    load_eight(row, gate);
    load_eight(row + f, up);
#pragma unroll
    for (int j = 0; j < 8; j++) up[j] *= gate[j] / (1.0f + __expf(-gate[j]));
    store_eight(y + i, up);
}
EXPORT(swiglu_forward)

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
#pragma unroll
    for (int j = 0; j < 8; j++) {
        const float s = 1.0f / (1.0f + __expf(-gate[j]));
        const float dgate = g[j] * up[j] * s * (1.0f + gate[j] * (1.0f - s));
        up[j] = g[j] * gate[j] * s;
        gate[j] = dgate;
    }
    store_eight(gate_up + row, gate);
    store_eight(gate_up + row + f, up);
}
EXPORT(swiglu_backward)
