// The divergence of a student's distribution from a teacher's and its gradient on a card, from a chunk of both logits; the
// formulas are in mod.rs. The products on both sides are the library's. A block a row.
#include "../../device/device.cuh"

namespace {

// The log-sum-exp of the first `known` values of a row, the same bits in all threads.
__device__ float log_sum_exp(const float* __restrict__ row, uint32_t known, float scale, float* scratch) {
    float largest = -INFINITY;
    for (uint32_t i = threadIdx.x; i < known; i += blockDim.x) largest = fmaxf(largest, row[i] * scale);
    largest = block_max(largest, scratch);
    float sum = 0;
    for (uint32_t i = threadIdx.x; i < known; i += blockDim.x) sum += __expf(row[i] * scale - largest);
    return largest + __logf(block_sum(sum, scratch));
}

// ln((1 - beta) p + beta q), from the larger of the two, so that neither underflows; at beta 1 ln q, at beta 0 ln p.
__device__ float log_mixture(float log_p, float log_q, float beta) {
    if (beta == 1.0f) return log_q;
    if (beta == 0.0f) return log_p;
    const float a = log_p + __logf(1.0f - beta), b = log_q + __logf(beta);
    const float high = fmaxf(a, b);
    return high + log1pf(__expf(fminf(a, b) - high));
}

}  // namespace

// logits (rows, v) and teacher (rows, teacher_v), both fp32, of which the first `known` are compared -> the divergence of
// each row, and dz (rows, v) bf16 = (w d(divergence) + g (onehot - softmax(z))) / temperature.
extern "C" __global__ void __launch_bounds__(512)
    divergence_backward(const float* __restrict__ logits, const float* __restrict__ teacher,
                        const uint32_t* __restrict__ targets, const float* __restrict__ lses,
                        const float* __restrict__ dlogprobs, const float* __restrict__ slopes,
                        float* __restrict__ divergences, bf16* __restrict__ dz, uint32_t v, uint32_t teacher_v,
                        uint32_t known, float temperature, float beta) {
    SHARED(float, scratch, 16);
    const size_t start = static_cast<size_t>(blockIdx.x) * v;
    const float* z = logits + start;
    const float* t = teacher + static_cast<size_t>(blockIdx.x) * teacher_v;
    const float scale = 1.0f / temperature, lse = lses[blockIdx.x];
    const float g = dlogprobs[blockIdx.x] * scale, w = slopes[blockIdx.x] * scale;
    const float ls = log_sum_exp(z, known, scale, scratch), lt = log_sum_exp(t, known, scale, scratch);
    // KL(p || m) and KL(q || m) with m the mixture; at the ends one of them is 0.
    float of_student = 0, of_teacher = 0;
    for (uint32_t i = threadIdx.x; i < known; i += blockDim.x) {
        const float log_p = z[i] * scale - ls, log_q = t[i] * scale - lt, log_m = log_mixture(log_p, log_q, beta);
        of_student += __expf(log_p) * (log_p - log_m);
        of_teacher += __expf(log_q) * (log_q - log_m);
    }
    of_student = block_sum(of_student, scratch);
    of_teacher = block_sum(of_teacher, scratch);
    const float own = beta == 1.0f ? 1.0f : 1.0f - beta, other = beta == 0.0f ? 1.0f : beta;
    if (threadIdx.x == 0) divergences[blockIdx.x] = own * of_student + other * of_teacher;
    for (uint32_t i = threadIdx.x; i < v; i += blockDim.x) {
        float slope = (i == targets[blockIdx.x] ? g : 0.0f) - g * __expf(z[i] * scale - lse);
        if (i < known) {
            const float log_p = z[i] * scale - ls, log_q = t[i] * scale - lt;
            const float by_divergence = beta == 0.0f ? __expf(log_p) - __expf(log_q)
                                                     : own * __expf(log_p) *
                                                           (log_p - log_mixture(log_p, log_q, beta) - of_student);
            slope += w * by_divergence;
        }
        dz[start + i] = to_bf16(slope);
    }
}
EXPORT(divergence_backward)
