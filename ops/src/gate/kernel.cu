// Gates on a card; the formulas are in mod.rs. A thread takes eight values.
#include "../device/device.cuh"

// Where in a row of `row` values the gates lie: `count` parts of `size`, `step` from one to the next, and whether they
// go through silu, else through a sigmoid.
struct Gating {
    uint32_t row, first, step, count, size, silu;

    // Where the gate of value i is, the values of all rows lying end to end.
    __device__ size_t gate(uint64_t i) const {
        const uint32_t width = count * size, at = i % width;
        return i / width * row + first + at / size * step + at % size;
    }
};

// y = x times its gates; both may be the same buffer.
extern "C" __global__ void __launch_bounds__(256)
    gate_forward(const bf16* __restrict__ gates, const bf16* x, bf16* y, uint64_t values, Gating at) {
    const uint64_t i = (static_cast<uint64_t>(blockIdx.x) * 256 + threadIdx.x) * 8;
    if (i >= values) return;
    float gate[8], v[8];
    load_eight(gates + at.gate(i), gate);
    load_eight(x + i, v);
#pragma unroll
    for (int j = 0; j < 8; j++) v[j] *= (at.silu ? gate[j] : 1.0f) / (1.0f + __expf(-gate[j]));
    store_eight(y + i, v);
}
EXPORT(gate_forward)

// d, the gradient of y, becomes that of x; that of the gates is written to their places in d_gates.
extern "C" __global__ void __launch_bounds__(256)
    gate_backward(const bf16* __restrict__ gates, const bf16* __restrict__ x, bf16* __restrict__ d,
                  bf16* __restrict__ d_gates, uint64_t values, Gating at) {
    const uint64_t i = (static_cast<uint64_t>(blockIdx.x) * 256 + threadIdx.x) * 8;
    if (i >= values) return;
    float gate[8], v[8], g[8];
    load_eight(gates + at.gate(i), gate);
    load_eight(x + i, v);
    load_eight(d + i, g);
#pragma unroll
    for (int j = 0; j < 8; j++) {
        const float s = 1.0f / (1.0f + __expf(-gate[j]));
        const float value = at.silu ? gate[j] * s : s;
        const float slope = s * (at.silu ? 1.0f + gate[j] * (1.0f - s) : 1.0f - s);
        gate[j] = g[j] * v[j] * slope;
        g[j] *= value;
    }
    store_eight(d + i, g);
    store_eight(d_gates + at.gate(i), gate);
}
EXPORT(gate_backward)

// Rows of `width` values without gates, and the same values where gates lie behind each of `count` parts: copied from
// there, or where `back` to there.
extern "C" __global__ void __launch_bounds__(256)
    gate_beside(bf16* __restrict__ rows, bf16* __restrict__ projected, uint64_t values, uint32_t width, uint32_t back,
                Gating at) {
    const uint64_t i = (static_cast<uint64_t>(blockIdx.x) * 256 + threadIdx.x) * 8;
    if (i >= values) return;
    const uint32_t column = i % width, gated = at.count * at.size;
    const uint32_t place = column < gated ? column / at.size * at.step + column % at.size
                                          : column - gated + at.count * at.step;
    Eight* here = reinterpret_cast<Eight*>(rows + i);
    Eight* there = reinterpret_cast<Eight*>(projected + i / width * at.row + place);
    if (back) {
        *there = *here;
    } else {
        *here = *there;
    }
}
EXPORT(gate_beside)
