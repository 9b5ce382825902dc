// Columns of rows: their sums, which are the gradients of norms' weights and of biases, and copies of some. Sums go in
// two passes, so that all of the card takes part and the order of summation is the same whatever the card: each block
// sums a stretch of rows, then the stretches are added.
#include "device.cuh"

// partial (stretches, k): block (c, s) sums columns 64 c .. of the rows of stretch s. Where `factors` is given the
// terms are dy x factor, the gradient of a norm's weight; else dy, the gradient of a bias. Rows are laid out as in
// rms_norm.cu.
extern "C" __global__ void __launch_bounds__(256)
    column_partials(const bf16* __restrict__ dy, const bf16* __restrict__ x, const float* __restrict__ factors,
                    float* __restrict__ partial, uint32_t rows, uint32_t k, uint32_t heads, uint32_t stride,
                    uint32_t stretch) {
    SHARED(float, sums, 8 * 64);
    const uint32_t column = blockIdx.x * 64 + lane_id() * 2;
    const uint32_t end = min(rows, (blockIdx.y + 1) * stretch);
    float low = 0, high = 0;
    for (uint32_t row = blockIdx.y * stretch + warp_id(); row < end && column < k; row += 8) {
        const size_t at = static_cast<size_t>(row / heads) * stride + row % heads * k + column;
        float first, second;
        load_two(dy + at, first, second);
        if (factors) {
            float left, right;
            load_two(x + at, left, right);
            first *= left * factors[row];
            second *= right * factors[row];
        }
        low += first;
        high += second;
    }
    sums[warp_id() * 64 + lane_id() * 2] = low;
    sums[warp_id() * 64 + lane_id() * 2 + 1] = high;
    __syncthreads();
    const uint32_t out = blockIdx.x * 64 + threadIdx.x;
    if (threadIdx.x >= 64 || out >= k) return;
    float total = 0;
    for (int w = 0; w < 8; w++) total += sums[w * 64 + threadIdx.x];
    partial[static_cast<size_t>(blockIdx.y) * k + out] = total;
}
EXPORT(column_partials)

// sum (k) += the stretches of partial, in order.
extern "C" __global__ void __launch_bounds__(256)
    column_total(const float* __restrict__ partial, float* __restrict__ sum, uint32_t k, uint32_t stretches) {
    const uint32_t column = blockIdx.x * 256 + threadIdx.x;
    if (column >= k) return;
    float total = 0;
    for (uint32_t s = 0; s < stretches; s++) total += partial[static_cast<size_t>(s) * k + column];
    sum[column] += total;
}
EXPORT(column_total)

// Writes b (n) into every row of y: a bias, ready for a product to add to.
extern "C" __global__ void __launch_bounds__(256)
    fill_rows(const bf16* __restrict__ b, bf16* __restrict__ y, uint32_t n, uint64_t values) {
    const uint64_t i = (static_cast<uint64_t>(blockIdx.x) * 256 + threadIdx.x) * 8;
    if (i < values) *reinterpret_cast<Eight*>(y + i) = *reinterpret_cast<const Eight*>(b + i % n);
}
EXPORT(fill_rows)

// y = scale x for `rows` rows of `width` values, which begin x_stride and y_stride values apart.
extern "C" __global__ void __launch_bounds__(256)
    copy_columns(const bf16* __restrict__ x, bf16* __restrict__ y, uint64_t rows, uint32_t width, uint32_t x_stride,
                 uint32_t y_stride, float scale) {
    const uint64_t i = (static_cast<uint64_t>(blockIdx.x) * 256 + threadIdx.x) * 8, row = i / width;
    if (row >= rows) return;
    float v[8];
    load_eight(x + row * x_stride + i % width, v);
#pragma unroll
    for (int j = 0; j < 8; j++) v[j] *= scale;
    store_eight(y + row * y_stride + i % width, v);
}
EXPORT(copy_columns)
