// What all kernels share: types, loads and stores of eight values, sums over a warp and a block, and the few
// instructions of tensor cores and asynchronous copies. Compiled by nvcc for a card, and by a C++ compiler over
// host_cuda.h for tests; a kernel itself never asks which.
//
// Rules of every kernel: bf16 in and out, sums in fp32 in one fixed order (no floating-point atomics), so that the
// same card gives the same bits again; outputs are written, gradients of weights are added to.
#pragma once

#ifndef __CUDACC__
#include "host_cuda.h"
#else
#include <cuda_bf16.h>
#include <cstdint>
#define EXPORT(kernel)
#define SHARED(type, name, count) __shared__ type name[count]
#define SHARED_DYNAMIC(type, name)                                                                                     \
    extern __shared__ __align__(16) unsigned char dynamic_shared[];                                                    \
    type* name = reinterpret_cast<type*>(dynamic_shared)
#endif

using bf16 = __nv_bfloat16;

constexpr int WARP = 32;
constexpr unsigned ALL_LANES = 0xffffffffu;
constexpr float LOG2_E = 1.4426950408889634f;
constexpr float LN_2 = 0.6931471805599453f;

__device__ inline int lane_id() { return threadIdx.x % WARP; }
__device__ inline int warp_id() { return threadIdx.x / WARP; }
__device__ inline float to_float(bf16 x) { return __bfloat162float(x); }
__device__ inline bf16 to_bf16(float x) { return __float2bfloat16_rn(x); }

// Eight bf16 values: one access of 16 bytes.
struct alignas(16) Eight {
    bf16 v[8];
};

__device__ inline void load_eight(const bf16* from, float (&out)[8]) {
    const Eight values = *reinterpret_cast<const Eight*>(from);
#pragma unroll
    for (int i = 0; i < 8; i++) out[i] = to_float(values.v[i]);
}

__device__ inline void store_eight(bf16* to, const float (&in)[8]) {
    Eight values;
#pragma unroll
    for (int i = 0; i < 8; i++) values.v[i] = to_bf16(in[i]);
    *reinterpret_cast<Eight*>(to) = values;
}

// Two bf16 values side by side at an even place: one access of 4 bytes.
struct alignas(4) Two {
    bf16 v[2];
};

__device__ inline void load_two(const bf16* from, float& first, float& second) {
    const Two values = *reinterpret_cast<const Two*>(from);
    first = to_float(values.v[0]);
    second = to_float(values.v[1]);
}

// Two values in one register, the first in the low half: how tensor cores take them.
__device__ inline uint32_t pack_two(float low, float high) {
    return static_cast<uint32_t>(__bfloat16_as_ushort(to_bf16(low))) |
           static_cast<uint32_t>(__bfloat16_as_ushort(to_bf16(high))) << 16;
}

// Every lane gets the sum (largest) of its `WIDTH` neighbours, added as a tree: the same bits in all of them.
template <int WIDTH = WARP>
__device__ inline float warp_sum(float x) {
#pragma unroll
    for (int offset = WIDTH / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(ALL_LANES, x, offset);
    return x;
}

template <int WIDTH = WARP>
__device__ inline float warp_max(float x) {
#pragma unroll
    for (int offset = WIDTH / 2; offset > 0; offset /= 2) x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, offset));
    return x;
}

// The same over a block of whole warps. All threads call it; `scratch` holds a value a warp and may be used again after.
__device__ inline float block_sum(float x, float* scratch) {
    x = warp_sum(x);
    if (lane_id() == 0) scratch[warp_id()] = x;
    __syncthreads();
    float total = 0;
    for (int w = 0; w < static_cast<int>(blockDim.x) / WARP; w++) total += scratch[w];
    __syncthreads();
    return total;
}

__device__ inline float block_max(float x, float* scratch) {
    x = warp_max(x);
    if (lane_id() == 0) scratch[warp_id()] = x;
    __syncthreads();
    float largest = scratch[0];
    for (int w = 1; w < static_cast<int>(blockDim.x) / WARP; w++) largest = fmaxf(largest, scratch[w]);
    __syncthreads();
    return largest;
}

#ifdef __CUDACC__

// d (16, 8) += a (16, 16) b (16, 8). With g = lane / 4, t = lane % 4: d holds rows g and g + 8, columns 2t and 2t + 1;
// a holds rows g, g + 8, g, g + 8 at columns 2t (twice) and 2t + 8 (twice); b holds column g at rows 2t and 2t + 8.
__device__ inline void mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Four 8 x 8 matrices from shared memory; lane l names row l % 8 of matrix l / 8. A lane gets, of each, the two values
// at row lane / 4, columns 2 (lane % 4) and the next; transposed, those at column lane / 4.
__device__ inline void load_matrices(uint32_t (&r)[4], const bf16* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(row)))
                 : "memory");
}

__device__ inline void load_matrices_transposed(uint32_t (&r)[4], const bf16* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(row)))
                 : "memory");
}

// Starts a copy of 16 bytes to shared memory, or of zeros where not `wanted`; `from` is a valid address all the same.
__device__ inline void copy_async(bf16* to, const bf16* from, bool wanted) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(
                     static_cast<uint32_t>(__cvta_generic_to_shared(to))),
                 "l"(from), "r"(wanted ? 16 : 0)
                 : "memory");
}

// Closes a group of copies; waits until at most `PENDING` groups are under way. Others' copies need a barrier after.
__device__ inline void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int PENDING>
__device__ inline void copy_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

#endif
