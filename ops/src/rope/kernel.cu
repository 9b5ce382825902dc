// Rotary position embedding on a card, in place; the formula is in mod.rs. A block for each token, a thread for each pair.
#include "../device/device.cuh"

// Turns the first `heads` heads of each row of x by its position, backwards where `sign` is -1.
extern "C" __global__ void __launch_bounds__(256)
    rope_rotate(bf16* __restrict__ x, const uint32_t* __restrict__ positions, const float* __restrict__ cosines,
                const float* __restrict__ sines, uint32_t heads, uint32_t half, uint32_t stride, float sign) {
    const size_t angle = static_cast<size_t>(positions[blockIdx.x]) * half;
    bf16* row = x + static_cast<size_t>(blockIdx.x) * stride;
    for (uint32_t pair = threadIdx.x; pair < heads * half; pair += blockDim.x) {
        const uint32_t i = pair % half, at = pair / half * 2 * half + i;
        const float c = cosines[angle + i], s = sines[angle + i] * sign;
        const float a = to_float(row[at]), b = to_float(row[at + half]);
        row[at] = to_bf16(a * c - b * s);
        row[at + half] = to_bf16(b * c + a * s);
    }
}
EXPORT(rope_rotate)
