// From a chunk of logits to log-probabilities, entropies and the logits' gradients on a card; the formulas are in
// mod.rs. The products on both sides are the library's. A block a row.
#include "../device/device.cuh"

// logits (rows, v) fp32 -> logprob of the target, entropy and log-sum-exp of each row, in one pass over the row: each
// thread keeps its largest value so far and the sums relative to it.
extern "C" __global__ void __launch_bounds__(512)
    logprob_forward(const float* __restrict__ logits, const uint32_t* __restrict__ targets, float* __restrict__ logprobs,
                    float* __restrict__ entropies, float* __restrict__ lses, uint32_t v, float temperature) {
    SHARED(float, scratch, 16);
    const float* row = logits + static_cast<size_t>(blockIdx.x) * v;
    const float scale = 1.0f / temperature;
    float largest = -INFINITY, sum = 0, weighted = 0;
    for (uint32_t i = threadIdx.x; i < v; i += blockDim.x) {
        const float z = row[i] * scale;
        if (z > largest) {
            // What was summed relative to the old largest value is carried over to the new one.
            const float shift = largest - z, shrink = __expf(shift);
            weighted = sum > 0 ? shrink * (weighted + sum * shift) : 0;
            sum *= shrink;
            largest = z;
        }
        const float p = __expf(z - largest);
        sum += p;
        weighted += p * (z - largest);
    }
    const float top = block_max(largest, scratch);
    const float shift = largest - top, shrink = sum > 0 ? __expf(shift) : 0;
    const float total = block_sum(sum * shrink, scratch);
    const float total_weighted = block_sum(sum > 0 ? shrink * (weighted + sum * shift) : 0, scratch);
    if (threadIdx.x > 0) return;
    const float log_total = __logf(total);
    lses[blockIdx.x] = top + log_total;
    logprobs[blockIdx.x] = row[targets[blockIdx.x]] * scale - (top + log_total);
    entropies[blockIdx.x] = log_total - total_weighted / total;
}
EXPORT(logprob_forward)

// dz (rows, v) bf16 = g / temperature (onehot - softmax(z)).
extern "C" __global__ void __launch_bounds__(512)
    logprob_backward(const float* __restrict__ logits, const uint32_t* __restrict__ targets,
                     const float* __restrict__ lses, const float* __restrict__ dlogprobs, bf16* __restrict__ dz,
                     uint32_t v, float temperature) {
    const size_t start = static_cast<size_t>(blockIdx.x) * v;
    const float scale = 1.0f / temperature, g = dlogprobs[blockIdx.x] * scale, lse = lses[blockIdx.x];
    for (uint32_t i = threadIdx.x; i < v; i += blockDim.x) {
        const float p = __expf(logits[start + i] * scale - lse);
        dz[start + i] = to_bf16(g * ((i == targets[blockIdx.x] ? 1.0f : 0.0f) - p));
    }
}
EXPORT(logprob_backward)

// The same with the slope of the entropy: dz = (g (onehot - p) - e p (ln p + entropy)) / temperature.
extern "C" __global__ void __launch_bounds__(512)
    logprob_entropy_backward(const float* __restrict__ logits, const uint32_t* __restrict__ targets,
                             const float* __restrict__ lses, const float* __restrict__ dlogprobs,
                             const float* __restrict__ entropies, const float* __restrict__ dentropies,
                             bf16* __restrict__ dz, uint32_t v, float temperature) {
    const size_t start = static_cast<size_t>(blockIdx.x) * v;
    const float scale = 1.0f / temperature, g = dlogprobs[blockIdx.x] * scale, e = dentropies[blockIdx.x] * scale;
    const float lse = lses[blockIdx.x], entropy = entropies[blockIdx.x];
    for (uint32_t i = threadIdx.x; i < v; i += blockDim.x) {
        const float log_p = logits[start + i] * scale - lse;
        const float slope = (i == targets[blockIdx.x] ? g : 0.0f) - (g + e * (log_p + entropy)) * __expf(log_p);
        dz[start + i] = to_bf16(slope);
    }
}
EXPORT(logprob_entropy_backward)
