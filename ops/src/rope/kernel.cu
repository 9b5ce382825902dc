// Rotary position embedding on a card, in place; the formula is in mod.rs. A block for each token, a thread for each pair.
#include "../device/device.cuh"

// Where in a row the parts lie that are turned: `count` of them, `step` apart. Value `i` of a part's first members is
// `next * i` values behind its beginning, and the other member of its pair `apart` values behind that.
struct Turned {
    uint32_t first, step, count, next, apart, half;
};

// Turns the parts of each row of x by its position, backwards where `sign` is -1.
extern "C" __global__ void __launch_bounds__(256)
    rope_rotate(bf16* __restrict__ x, const uint32_t* __restrict__ positions, const float* __restrict__ cosines,
                const float* __restrict__ sines, Turned turned, uint32_t stride, float sign) {
    const size_t angle = static_cast<size_t>(positions[blockIdx.x]) * turned.half;
    bf16* row = x + static_cast<size_t>(blockIdx.x) * stride + turned.first;
    for (uint32_t pair = threadIdx.x; pair < turned.count * turned.half; pair += blockDim.x) {
        const uint32_t i = pair % turned.half, at = pair / turned.half * turned.step + i * turned.next;
        const float c = cosines[angle + i], s = sines[angle + i] * sign;
        const float a = to_float(row[at]), b = to_float(row[at + turned.apart]);
        row[at] = to_bf16(a * c - b * s);
        row[at + turned.apart] = to_bf16(b * c + a * s);
    }
}
EXPORT(rope_rotate)
