// Rows of a matrix by index, and their gradients, on a card. Rows are whole multiples of eight values.
#include "../device/device.cuh"

// y (T, k) = rows `ids` of w. Also gathers the hidden states that predict a target. A warp a row.
extern "C" __global__ void __launch_bounds__(128)
    embedding_forward(const uint32_t* __restrict__ ids, const bf16* __restrict__ w, bf16* __restrict__ y, uint32_t rows,
                      uint32_t k) {
    const uint32_t row = blockIdx.x * 4 + warp_id();
    if (row >= rows) return;
    const bf16* from = w + static_cast<size_t>(ids[row]) * k;
    bf16* to = y + static_cast<size_t>(row) * k;
    for (uint32_t i = lane_id() * 8; i < k; i += WARP * 8) {
        *reinterpret_cast<Eight*>(to + i) = *reinterpret_cast<const Eight*>(from + i);
    }
}
EXPORT(embedding_forward)

// Row ids[r] of y = row r of x; ids differ. The backward of a gather whose rows are taken once.
extern "C" __global__ void __launch_bounds__(128)
    scatter_rows(const uint32_t* __restrict__ ids, const bf16* __restrict__ x, bf16* __restrict__ y, uint32_t rows,
                 uint32_t k) {
    const uint32_t row = blockIdx.x * 4 + warp_id();
    if (row >= rows) return;
    const bf16* from = x + static_cast<size_t>(row) * k;
    bf16* to = y + static_cast<size_t>(ids[row]) * k;
    for (uint32_t i = lane_id() * 8; i < k; i += WARP * 8) {
        *reinterpret_cast<Eight*>(to + i) = *reinterpret_cast<const Eight*>(from + i);
    }
}
EXPORT(scatter_rows)

// dw += dy by token. The host sorts the tokens: token u is tokens[u], its places in dy are
// places[starts[u] .. starts[u + 1]], in order. A block owns a token and a stretch of columns: no two write to one place.
extern "C" __global__ void __launch_bounds__(128)
    embedding_backward(const uint32_t* __restrict__ tokens, const uint32_t* __restrict__ starts,
                       const uint32_t* __restrict__ places, const bf16* __restrict__ dy, float* __restrict__ dw,
                       uint32_t k) {
    const uint32_t column = (blockIdx.y * 128 + threadIdx.x) * 2;
    if (column >= k) return;
    float low = 0, high = 0;
    for (uint32_t i = starts[blockIdx.x]; i < starts[blockIdx.x + 1]; i++) {
        float first, second;
        load_two(dy + static_cast<size_t>(places[i]) * k + column, first, second);
        low += first;
        high += second;
    }
    float* out = dw + static_cast<size_t>(tokens[blockIdx.x]) * k + column;
    out[0] += low;
    out[1] += high;
}
EXPORT(embedding_backward)
