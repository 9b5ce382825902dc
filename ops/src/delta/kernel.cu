// The gated delta net on a card; the formulas are in mod.rs and, of the way back, in device.rs. States and all between
// projections and outputs are fp32. A thread has one column of a head's state in registers, `KEY` values, of which
// those behind the key's size are zero, and takes the tokens of a run in their order, so that a token has the same bits
// however many come with it. What is summed over columns is summed within warps, then over warps, in one order.
#include "../device/device.cuh"

namespace delta {

constexpr uint32_t NONE = 0xffffffffu;
constexpr float EPS = 1e-6f;
// Tokens whose queries and keys are in shared memory at a time.
constexpr int STAGE = 4;
// Most values of a query, a key or a value, and warps that have a column a lane.
constexpr int LARGEST = 128;
constexpr int WARPS = LARGEST / WARP;
// Keys that are summed over the columns of a warp together.
constexpr int TOGETHER = 32;

struct Sizes {
    uint32_t key_heads, value_heads, key, value, taps, row;

    __device__ uint32_t keys() const { return key_heads * key; }
    __device__ uint32_t outputs() const { return value_heads * value; }
    __device__ uint32_t channels() const { return 2 * keys() + outputs(); }
    __device__ uint32_t gates() const { return 2 * value_heads; }
    // Where in a projected row that lies which rates are made of; that of decays is behind it.
    __device__ uint32_t rates() const { return channels() + outputs(); }
    __device__ uint32_t group() const { return value_heads / key_heads; }
    // Queries, keys and values of a token.
    __device__ uint32_t vectors() const { return 2 * key_heads + value_heads; }
    // Gradients of a token: each value head's of its query, then of its key, then of its value.
    __device__ uint32_t gradients() const { return value_heads * (2 * key + value); }
};

// Rows of a sequence, in order, and where its state is kept, if it is.
struct Run {
    uint32_t first, count, slot;
};

// A token's place in its run, and where the state of that is kept.
struct Place {
    uint32_t place, slot;
};

// A query, a key or a value of a token: where its channels begin, and how many they are.
struct Vector {
    uint32_t index, first, size;

    __device__ Vector(const Sizes& s, uint32_t index) : index(index) {
        const bool value = index >= 2 * s.key_heads;
        first = value ? 2 * s.keys() + (index - 2 * s.key_heads) * s.value : index * s.key;
        size = value ? s.value : s.key;
    }
    __device__ bool is_value(const Sizes& s) const { return index >= 2 * s.key_heads; }
    // How long queries and keys are made.
    __device__ float scale(const Sizes& s) const { return index < s.key_heads ? 1.0f / sqrtf(s.key) : 1.0f; }
};

__device__ inline float sigmoid(float x) { return 1.0f / (1.0f + __expf(-x)); }
__device__ inline float softplus(float x) { return x > 20.0f ? x : log1pf(expf(x)); }

// u of a channel of a token: what lies before its run is in the tail of its state, the oldest first, or is zero.
__device__ inline float convolved(const Sizes& s, const bf16* projected, const bf16* taps, Place at, const bf16* tails,
                                  uint64_t tail_stride, uint32_t token, uint32_t channel) {
    float u = 0;
    for (uint32_t back = s.taps; back-- > 0;) {
        const bf16* x;
        if (back <= at.place) {
            x = projected + static_cast<size_t>(token - back) * s.row + channel;
        } else if (at.slot != NONE) {
            x = tails + at.slot * tail_stride + (s.taps - 1 + at.place - back) * s.channels() + channel;
        } else {
            continue;
        }
        u += to_float(taps[channel * s.taps + s.taps - 1 - back]) * to_float(*x);
    }
    return u;
}

// Sums each of `N` values over the lanes of a warp, N at most 32: lane l keeps the sum of value l N / 32.
template <int N, int OFFSET = WARP / 2, int ALL>
__device__ inline void sum_columns(float (&v)[ALL]) {
    if constexpr (OFFSET > 0 && N > 1) {
        const bool upper = lane_id() & OFFSET;
#pragma unroll
        for (int i = 0; i < N / 2; i++) {
            const float kept = upper ? v[N / 2 + i] : v[i], given = upper ? v[i] : v[N / 2 + i];
            v[i] = kept + __shfl_xor_sync(ALL_LANES, given, OFFSET);
        }
        sum_columns<N / 2, OFFSET / 2>(v);
    } else if constexpr (OFFSET > 0) {
        v[0] += __shfl_xor_sync(ALL_LANES, v[0], OFFSET);
        sum_columns<1, OFFSET / 2>(v);
    }
}

// sums (KEY) = column times factor, summed over the columns of the warp.
template <int KEY>
__device__ inline void put_sums(const float (&column)[KEY], float factor, float* sums) {
    constexpr int N = KEY < TOGETHER ? KEY : TOGETHER;
#pragma unroll
    for (int first = 0; first < KEY; first += N) {
        float v[N];
#pragma unroll
        for (int i = 0; i < N; i++) v[i] = column[first + i] * factor;
        sum_columns<N>(v);
        // Lanes that share a sum write the same.
        sums[first + lane_id() * N / WARP] = v[0];
    }
}

// Queries and keys of `count` tokens from row `row` on to shared memory, (count, 2, KEY), zeros behind them.
template <int KEY>
__device__ inline void stage(const Sizes& s, const float* inputs, uint32_t row, uint32_t count, uint32_t key_head,
                             float* staged) {
    for (uint32_t i = threadIdx.x; i < count * 2 * KEY; i += blockDim.x) {
        const uint32_t token = i / (2 * KEY), kind = i / KEY % 2, at = i % KEY;
        const size_t from = static_cast<size_t>(row + token) * s.channels() + kind * s.keys() + key_head * s.key;
        staged[i] = at < s.key ? inputs[from + at] : 0.0f;
    }
}

struct alignas(16) Four {
    float v[4];
};

// The sum of four chains, so that a multiply-add need not wait for the one before it.
__device__ inline float total(const float (&chains)[4]) { return (chains[0] + chains[1]) + (chains[2] + chains[3]); }

// A column of a state that is in memory, `width` values apart, or of zeros where it is not; zeros behind `size` values.
template <int KEY>
__device__ inline void read_column(float (&column)[KEY], const float* from, uint32_t size, uint32_t width) {
#pragma unroll
    for (int i = 0; i < KEY; i++) {
        column[i] = from && i < static_cast<int>(size) ? *from : 0.0f;
        if (from) from += width;
    }
}

template <int KEY>
__device__ void advance(const float* inputs, const float* gates, const Run* runs, float* states, uint64_t stride,
                        bf16* outputs, float* errors, const Sizes& s) {
    SHARED(Four, staged, STAGE * 2 * KEY / 4);
    const Run run = runs[blockIdx.x];
    const uint32_t head = blockIdx.y, column = blockIdx.z * WARP + threadIdx.x, width = s.value;
    const bool mine = column < width, kept = run.slot != NONE && mine;
    float state[KEY];
    read_column(state, kept ? states + run.slot * stride + head * s.key * width + column : nullptr, s.key, width);
    for (uint32_t first = 0; first < run.count; first += STAGE) {
        const uint32_t count = min(static_cast<uint32_t>(STAGE), run.count - first);
        __syncthreads();
        stage<KEY>(s, inputs, run.first + first, count, head / s.group(), reinterpret_cast<float*>(staged));
        __syncthreads();
        for (uint32_t token = 0; token < count; token++) {
            const size_t row = run.first + first + token;
            const float decay = gates[row * s.gates() + head], rate = gates[row * s.gates() + s.value_heads + head];
            const float value = mine ? inputs[row * s.channels() + 2 * s.keys() + head * width + column] : 0.0f;
            const Four *query = staged + token * 2 * KEY / 4, *key = query + KEY / 4;
            float known[4] = {}, out[4] = {};
#pragma unroll
            for (int i = 0; i < KEY; i++) {
                state[i] *= decay;
                known[i % 4] += state[i] * key[i / 4].v[i % 4];
            }
            const float error = rate * (value - total(known));
            // What was read before a barrier is read again: keys, kept, would push the state out of the registers.
            __syncwarp(ALL_LANES);
#pragma unroll
            for (int i = 0; i < KEY; i++) {
                state[i] += error * key[i / 4].v[i % 4];
                out[i % 4] += state[i] * query[i / 4].v[i % 4];
            }
            const size_t to = row * s.outputs() + head * width + column;
            if (mine && outputs) outputs[to] = to_bf16(total(out));
            if (mine && errors) errors[to] = error;
        }
    }
    // Where it goes is found anew: that of every value, kept all the while, would push the state out of the registers.
    const uint32_t slot = runs[blockIdx.x].slot;
    if (slot == NONE || !mine) return;
    float* to = states + slot * stride + head * s.key * width + column;
#pragma unroll
    for (int i = 0; i < KEY; i++) {
        if (i < static_cast<int>(s.key)) *to = state[i];
        to += width;
    }
}

// The tokens of a run from the last to the first, `d` the gradient of the state behind each: gradients of values and of
// the logarithms of rates, and what of those of keys comes from what they write.
template <int KEY>
__device__ void go_back(const float* inputs, const float* gates, const Run* runs, const float* errors,
                        const bf16* d_outputs, float* gradients, float* d_gates, const Sizes& s) {
    SHARED(Four, staged, STAGE * 2 * KEY / 4);
    SHARED(float, sums, STAGE* WARPS * (KEY + 1));
    const Run run = runs[blockIdx.x];
    const uint32_t head = blockIdx.y, column = threadIdx.x, width = s.value, warps = blockDim.x / WARP;
    const bool mine = column < width;
    float d[KEY];
#pragma unroll
    for (int i = 0; i < KEY; i++) d[i] = 0;
    for (uint32_t last = run.count; last > 0;) {
        const uint32_t count = min(static_cast<uint32_t>(STAGE), last);
        last -= count;
        stage<KEY>(s, inputs, run.first + last, count, head / s.group(), reinterpret_cast<float*>(staged));
        __syncthreads();
        for (uint32_t token = count; token-- > 0;) {
            const size_t row = run.first + last + token, at = row * s.outputs() + head * width + column;
            const float decay = gates[row * s.gates() + head], rate = gates[row * s.gates() + s.value_heads + head];
            const float error = mine ? errors[at] : 0.0f, d_output = mine ? to_float(d_outputs[at]) : 0.0f;
            const Four *query = staged + token * 2 * KEY / 4, *key = query + KEY / 4;
            float d_errors[4] = {};
#pragma unroll
            for (int i = 0; i < KEY; i++) {
                d[i] += query[i / 4].v[i % 4] * d_output;
                d_errors[i % 4] += d[i] * key[i / 4].v[i % 4];
            }
            const float d_error = total(d_errors), d_value = rate * d_error;
            float* own = sums + (token * WARPS + warp_id()) * (KEY + 1);
            put_sums(d, error, own);
            const float of_rate = warp_sum(d_error * error);
            if (lane_id() == 0) own[KEY] = of_rate;
#pragma unroll
            for (int i = 0; i < KEY; i++) d[i] = decay * (d[i] - key[i / 4].v[i % 4] * d_value);
            float* values = gradients + row * s.gradients() + 2 * s.value_heads * s.key;
            if (mine) values[head * width + column] = d_value;
        }
        __syncthreads();
        for (uint32_t i = threadIdx.x; i < count * (KEY + 1); i += blockDim.x) {
            const uint32_t token = i / (KEY + 1), at = i % (KEY + 1);
            const size_t row = run.first + last + token;
            float sum = 0;
            for (uint32_t warp = 0; warp < warps; warp++) sum += sums[(token * WARPS + warp) * (KEY + 1) + at];
            if (at < s.key) gradients[row * s.gradients() + (s.value_heads + head) * s.key + at] = sum;
            if (at == KEY) d_gates[row * s.gates() + s.value_heads + head] = sum;
        }
    }
}

// The tokens of a run once more in their order: gradients of queries, and what of those of keys comes from what they
// read, added.
template <int KEY>
__device__ void go_again(const float* inputs, const float* gates, const Run* runs, const float* errors,
                         const bf16* d_outputs, float* gradients, const Sizes& s) {
    SHARED(Four, staged, STAGE * 2 * KEY / 4);
    SHARED(float, sums, STAGE* WARPS * 2 * KEY);
    const Run run = runs[blockIdx.x];
    const uint32_t head = blockIdx.y, column = threadIdx.x, width = s.value, warps = blockDim.x / WARP;
    const bool mine = column < width;
    float state[KEY];
#pragma unroll
    for (int i = 0; i < KEY; i++) state[i] = 0;
    for (uint32_t first = 0; first < run.count; first += STAGE) {
        const uint32_t count = min(static_cast<uint32_t>(STAGE), run.count - first);
        stage<KEY>(s, inputs, run.first + first, count, head / s.group(), reinterpret_cast<float*>(staged));
        __syncthreads();
        for (uint32_t token = 0; token < count; token++) {
            const size_t row = run.first + first + token, at = row * s.outputs() + head * width + column;
            const float decay = gates[row * s.gates() + head];
            const float* values = gradients + row * s.gradients() + 2 * s.value_heads * s.key;
            const float error = mine ? errors[at] : 0.0f, d_output = mine ? to_float(d_outputs[at]) : 0.0f;
            const float d_value = mine ? values[head * width + column] : 0.0f;
            const Four* key = staged + (2 * token + 1) * KEY / 4;
            float* own = sums + (token * WARPS + warp_id()) * 2 * KEY;
#pragma unroll
            for (int i = 0; i < KEY; i++) state[i] *= decay;
            put_sums(state, -d_value, own + KEY);
#pragma unroll
            for (int i = 0; i < KEY; i++) state[i] += error * key[i / 4].v[i % 4];
            put_sums(state, d_output, own);
        }
        __syncthreads();
        for (uint32_t i = threadIdx.x; i < count * 2 * KEY; i += blockDim.x) {
            const uint32_t token = i / (2 * KEY), kind = i / KEY % 2, at = i % KEY;
            if (at >= s.key) continue;
            const float* of_token = sums + token * WARPS * 2 * KEY + kind * KEY + at;
            float sum = 0;
            for (uint32_t warp = 0; warp < warps; warp++) sum += of_token[warp * 2 * KEY];
            const size_t row = run.first + first + token;
            float* to = gradients + row * s.gradients() + (kind * s.value_heads + head) * s.key + at;
            *to = kind == 0 ? sum : *to + sum;
        }
    }
}

}  // namespace delta

// projected (T, row) -> inputs (T, C): silu of what is convolved, queries and keys made as long as they are to be. A
// warp for each of them and of the values.
extern "C" __global__ void __launch_bounds__(128)
    delta_inputs(const bf16* __restrict__ projected, const bf16* __restrict__ taps,
                 const delta::Place* __restrict__ places, const bf16* __restrict__ tails, uint64_t tail_stride,
                 float* __restrict__ inputs, uint32_t tokens, delta::Sizes s) {
    const uint32_t i = blockIdx.x * 4 + warp_id(), token = i / s.vectors();
    if (token >= tokens) return;
    const delta::Vector vector(s, i % s.vectors());
    float x[delta::WARPS], square = 0;
#pragma unroll
    for (int j = 0; j < delta::WARPS; j++) {
        const uint32_t at = j * WARP + lane_id();
        x[j] = 0;
        if (at >= vector.size) continue;
        const float u =
            delta::convolved(s, projected, taps, places[token], tails, tail_stride, token, vector.first + at);
        x[j] = u * delta::sigmoid(u);
        square += x[j] * x[j];
    }
    const float length = sqrtf(warp_sum(square) + delta::EPS);
    const float factor = vector.is_value(s) ? 1.0f : vector.scale(s) / length;
#pragma unroll
    for (int j = 0; j < delta::WARPS; j++) {
        const uint32_t at = j * WARP + lane_id();
        if (at < vector.size) inputs[static_cast<size_t>(token) * s.channels() + vector.first + at] = x[j] * factor;
    }
}
EXPORT(delta_inputs)

// projected (T, row) -> decays, then rates (T, 2 Hv).
extern "C" __global__ void __launch_bounds__(256)
    delta_gates(const bf16* __restrict__ projected, const bf16* __restrict__ decay, const bf16* __restrict__ step,
                float* __restrict__ gates, uint32_t tokens, delta::Sizes s) {
    const uint32_t i = blockIdx.x * 256 + threadIdx.x, token = i / s.value_heads, head = i % s.value_heads;
    if (token >= tokens) return;
    const bf16* row = projected + static_cast<size_t>(token) * s.row + s.rates() + head;
    const float x = to_float(row[s.value_heads]) + to_float(step[head]);
    float* to = gates + static_cast<size_t>(token) * s.gates() + head;
    to[0] = expf(-expf(to_float(decay[head])) * delta::softplus(x));
    to[s.value_heads] = delta::sigmoid(to_float(row[0]));
}
EXPORT(delta_gates)

// Leaves the last projected rows of runs in the tails of their states, behind those that were there.
extern "C" __global__ void __launch_bounds__(256)
    delta_leave(const bf16* __restrict__ projected, const delta::Run* __restrict__ runs, bf16* __restrict__ tails,
                uint64_t tail_stride, delta::Sizes s) {
    const delta::Run run = runs[blockIdx.y];
    const uint32_t channel = blockIdx.x * 256 + threadIdx.x, kept = s.taps - 1;
    if (channel >= s.channels() || run.slot == delta::NONE) return;
    bf16* tail = tails + run.slot * tail_stride + channel;
    for (uint32_t j = 0; j < kept; j++) {
        const uint32_t from = run.count + j;
        const size_t row = static_cast<size_t>(run.first) + from - kept;
        tail[j * s.channels()] = from < kept ? tail[from * s.channels()] : projected[row * s.row + channel];
    }
}
EXPORT(delta_leave)

#define DELTA(KEY)                                                                                                     \
    extern "C" __global__ void __launch_bounds__(32, 8)                                                                \
        delta_advance_##KEY(const float* inputs, const float* gates, const delta::Run* runs, float* states,            \
                            uint64_t stride, bf16* outputs, float* errors, delta::Sizes s) {                           \
        delta::advance<KEY>(inputs, gates, runs, states, stride, outputs, errors, s);                                  \
    }                                                                                                                  \
    EXPORT(delta_advance_##KEY)                                                                                        \
    extern "C" __global__ void __launch_bounds__(128)                                                                  \
        delta_back_##KEY(const float* inputs, const float* gates, const delta::Run* runs, const float* errors,         \
                         const bf16* d_outputs, float* gradients, float* d_gates, delta::Sizes s) {                    \
        delta::go_back<KEY>(inputs, gates, runs, errors, d_outputs, gradients, d_gates, s);                            \
    }                                                                                                                  \
    EXPORT(delta_back_##KEY)                                                                                           \
    extern "C" __global__ void __launch_bounds__(128)                                                                  \
        delta_again_##KEY(const float* inputs, const float* gates, const delta::Run* runs, const float* errors,        \
                          const bf16* d_outputs, float* gradients, delta::Sizes s) {                                   \
        delta::go_again<KEY>(inputs, gates, runs, errors, d_outputs, gradients, s);                                    \
    }                                                                                                                  \
    EXPORT(delta_again_##KEY)

DELTA(16)
DELTA(32)
DELTA(64)
DELTA(128)

// What the logarithm of a token's decay adds to the gradient of those before it: q d_q - v d_v. A warp for each head of
// a token.
extern "C" __global__ void __launch_bounds__(128)
    delta_decay_terms(const float* __restrict__ inputs, const float* __restrict__ gradients,
                      float* __restrict__ d_gates, uint32_t tokens, delta::Sizes s) {
    const uint32_t i = blockIdx.x * 4 + warp_id(), token = i / s.value_heads, head = i % s.value_heads;
    if (token >= tokens) return;
    const float* row = inputs + static_cast<size_t>(token) * s.channels();
    const float *query = row + head / s.group() * s.key, *value = row + 2 * s.keys() + head * s.value;
    const float* d = gradients + static_cast<size_t>(token) * s.gradients();
    const float *d_query = d + head * s.key, *d_value = d + 2 * s.value_heads * s.key + head * s.value;
    float sum = 0;
    for (uint32_t at = lane_id(); at < s.key; at += WARP) sum += query[at] * d_query[at];
    for (uint32_t at = lane_id(); at < s.value; at += WARP) sum -= value[at] * d_value[at];
    sum = warp_sum(sum);
    if (lane_id() == 0) d_gates[static_cast<size_t>(token) * s.gates() + head] = sum;
}
EXPORT(delta_decay_terms)

// In place: these -> gradients of the logarithms of decays, which are the sums of those from a token to the last of its
// run. A warp for each head of a run.
extern "C" __global__ void __launch_bounds__(128)
    delta_decay_sums(float* __restrict__ d_gates, const delta::Run* __restrict__ runs, delta::Sizes s) {
    const delta::Run run = runs[blockIdx.x];
    const uint32_t head = blockIdx.y * 4 + warp_id();
    if (head >= s.value_heads) return;
    float sum = 0;
    for (uint32_t last = run.count; last > 0;) {
        const uint32_t count = min(static_cast<uint32_t>(WARP), last), lane = lane_id();
        last -= count;
        float* own = d_gates + static_cast<size_t>(run.first + last + lane) * s.gates() + head;
        const float term = lane < count ? *own : 0.0f;
        float of_lane = 0;
        for (uint32_t i = count; i-- > 0;) {
            sum += __shfl_sync(ALL_LANES, term, static_cast<int>(i));
            if (i == lane) of_lane = sum;
        }
        if (lane < count) *own = of_lane;
    }
}
EXPORT(delta_decay_sums)

// Gradients of queries, keys and values (T, Hv (2 Dk + Dv)) -> of what silu took in, du (T, C): added up over the value
// heads that share a key, through lengths and silu. A warp for each as in delta_inputs.
extern "C" __global__ void __launch_bounds__(128)
    delta_inputs_back(const bf16* __restrict__ projected, const bf16* __restrict__ taps,
                      const delta::Place* __restrict__ places, const float* __restrict__ gradients,
                      float* __restrict__ du, uint32_t tokens, delta::Sizes s) {
    const uint32_t i = blockIdx.x * 4 + warp_id(), token = i / s.vectors();
    if (token >= tokens) return;
    const delta::Vector vector(s, i % s.vectors());
    const bool value = vector.is_value(s);
    // The head whose key it is, or whose value.
    const uint32_t first = value ? vector.index - 2 * s.key_heads : vector.index % s.key_heads * s.group();
    const uint32_t heads = value ? 1 : s.group(), kind = vector.index / s.key_heads * s.value_heads * s.key;
    const float* d = gradients + static_cast<size_t>(token) * s.gradients() +
                     (value ? 2 * s.value_heads * s.key : kind) + first * vector.size;
    float x[delta::WARPS], slope[delta::WARPS], g[delta::WARPS], square = 0, inner = 0;
#pragma unroll
    for (int j = 0; j < delta::WARPS; j++) {
        const uint32_t at = j * WARP + lane_id();
        x[j] = slope[j] = g[j] = 0;
        if (at >= vector.size) continue;
        const float u = delta::convolved(s, projected, taps, places[token], nullptr, 0, token, vector.first + at);
        const float sigmoid = delta::sigmoid(u);
        x[j] = u * sigmoid;
        slope[j] = sigmoid * (1.0f + u * (1.0f - sigmoid));
        for (uint32_t head = 0; head < heads; head++) g[j] += d[head * vector.size + at];
        square += x[j] * x[j];
        inner += x[j] * g[j];
    }
    const float r = 1.0f / sqrtf(warp_sum(square) + delta::EPS);
    const float shared = warp_sum(inner) * r * r * r, scale = vector.scale(s);
#pragma unroll
    for (int j = 0; j < delta::WARPS; j++) {
        const uint32_t at = j * WARP + lane_id();
        if (at >= vector.size) continue;
        const float of_x = value ? g[j] : scale * (r * g[j] - x[j] * shared);
        du[static_cast<size_t>(token) * s.channels() + vector.first + at] = of_x * slope[j];
    }
}
EXPORT(delta_inputs_back)

// du (T, C) -> the channels of d_projected (T, row): of every token that saw a row, in order.
extern "C" __global__ void __launch_bounds__(256)
    delta_channels_back(const float* __restrict__ du, const bf16* __restrict__ taps,
                        const delta::Place* __restrict__ places, bf16* __restrict__ d_projected, uint32_t tokens,
                        delta::Sizes s) {
    const uint64_t i = static_cast<uint64_t>(blockIdx.x) * 256 + threadIdx.x;
    const uint32_t token = i / s.channels(), channel = i % s.channels();
    if (token >= tokens) return;
    float d = 0;
    for (uint32_t back = 0; back < s.taps && token + back < tokens; back++) {
        if (places[token + back].place < back) break;
        const float w = to_float(taps[channel * s.taps + s.taps - 1 - back]);
        d += w * du[static_cast<size_t>(token + back) * s.channels() + channel];
    }
    d_projected[static_cast<size_t>(token) * s.row + channel] = to_bf16(d);
}
EXPORT(delta_channels_back)

// partial (stretches, C, W): the gradients of taps over the tokens of a stretch. A thread a channel.
extern "C" __global__ void __launch_bounds__(256)
    delta_taps_partials(const float* __restrict__ du, const bf16* __restrict__ projected,
                        const delta::Place* __restrict__ places, float* __restrict__ partial, uint32_t tokens,
                        uint32_t stretch, delta::Sizes s) {
    const uint32_t channel = blockIdx.x * 256 + threadIdx.x;
    if (channel >= s.channels()) return;
    const uint32_t end = min(tokens, (blockIdx.y + 1) * stretch);
    for (uint32_t back = 0; back < s.taps; back++) {
        float sum = 0;
        for (uint32_t token = blockIdx.y * stretch; token < end; token++) {
            if (places[token].place < back) continue;
            const bf16* x = projected + static_cast<size_t>(token - back) * s.row + channel;
            sum += du[static_cast<size_t>(token) * s.channels() + channel] * to_float(*x);
        }
        partial[(static_cast<size_t>(blockIdx.y) * s.channels() + channel) * s.taps + s.taps - 1 - back] = sum;
    }
}
EXPORT(delta_taps_partials)

// Gradients of the logarithms of decays and rates (T, 2 Hv) -> their columns of d_projected (T, row); what each token
// adds to the gradients of A and t takes their place.
extern "C" __global__ void __launch_bounds__(256)
    delta_gates_back(const bf16* __restrict__ projected, const bf16* __restrict__ decay, const bf16* __restrict__ step,
                     const float* __restrict__ gates, float* __restrict__ d_gates, bf16* __restrict__ d_projected,
                     uint32_t tokens, delta::Sizes s) {
    const uint32_t i = blockIdx.x * 256 + threadIdx.x, token = i / s.value_heads, head = i % s.value_heads;
    if (token >= tokens) return;
    const size_t row = static_cast<size_t>(token) * s.row + s.rates() + head;
    const size_t at = static_cast<size_t>(token) * s.gates() + head;
    const float x = to_float(projected[row + s.value_heads]) + to_float(step[head]);
    const float slope = d_gates[at] * -expf(to_float(decay[head])), d_step = slope * delta::sigmoid(x);
    d_projected[row] = to_bf16(d_gates[at + s.value_heads] * (1.0f - gates[at + s.value_heads]));
    d_projected[row + s.value_heads] = to_bf16(d_step);
    d_gates[at] = slope * delta::softplus(x);
    d_gates[at + s.value_heads] = d_step;
}
EXPORT(delta_gates_back)

// partial (2, stretches, Hv): these over the tokens of a stretch.
extern "C" __global__ void __launch_bounds__(64)
    delta_gates_partials(const float* __restrict__ d_gates, float* __restrict__ partial, uint32_t tokens,
                         uint32_t stretch, delta::Sizes s) {
    const uint32_t column = blockIdx.x * 64 + threadIdx.x;
    if (column >= s.gates()) return;
    const uint32_t end = min(tokens, (blockIdx.y + 1) * stretch);
    float sum = 0;
    for (uint32_t token = blockIdx.y * stretch; token < end; token++) {
        sum += d_gates[static_cast<size_t>(token) * s.gates() + column];
    }
    const size_t half = column / s.value_heads * gridDim.y + blockIdx.y;
    partial[half * s.value_heads + column % s.value_heads] = sum;
}
EXPORT(delta_gates_partials)
