// Runs CUDA kernels on a CPU, for tests: what the kernels use of the language, and a scheduler of a block's threads.
//
// Each thread of a block is a fiber that runs until it meets a barrier (of the block or of its warp) or ends. Which
// runs next between two barriers follows the launch's order: first to last or last to first, each warp as far ahead of
// the others as the block's barriers let it, or shuffled anew each round, the warps side by side. So a missing barrier
// gives different results in different orders, or reads what was never written: shared memory starts as NaN, and an
// asynchronous copy arrives as late as it may, when it is waited for, and in one of the orders as early. A barrier that
// not all live threads reach ends the launch with an error. Blocks run one after another, in the launch's order too.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __restrict__
#define __launch_bounds__(...)

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};

// bf16 as its 16 bits, rounded to nearest even.
struct __nv_bfloat16 {
    uint16_t bits;
};

inline float __bfloat162float(__nv_bfloat16 x) {
    const uint32_t wide = static_cast<uint32_t>(x.bits) << 16;
    float out;
    memcpy(&out, &wide, 4);
    return out;
}

inline __nv_bfloat16 __float2bfloat16_rn(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    if (x != x) return {0x7fff};
    return {static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
}

inline uint16_t __bfloat16_as_ushort(__nv_bfloat16 x) { return x.bits; }
inline __nv_bfloat16 __ushort_as_bfloat16(uint16_t x) { return {x}; }

namespace host {

constexpr size_t STACK = 128 * 1024;
constexpr unsigned WARP_SIZE = 32;

enum class State { Ready, AtBlockBarrier, AtWarpBarrier, Ended };

struct Copy {
    void* to;
    uint8_t bytes[16];
};

struct Fiber {
    ucontext_t start;
    jmp_buf resume;
    bool started = false;
    State state = State::Ready;
    std::unique_ptr<char[]> stack{new char[STACK]};
    dim3 index;
    std::deque<std::vector<Copy>> groups;
    std::vector<Copy> open;
};

// What the lanes of a warp hand each other. Two boards in turn: a lane may write the next while others still read.
struct Exchange {
    alignas(16) uint8_t slots[2][WARP_SIZE][32];
    unsigned turn[WARP_SIZE];
};

struct Block {
    std::vector<Fiber>* fibers = nullptr;
    unsigned threads = 0;
    Fiber* current = nullptr;
    jmp_buf scheduler;
    std::vector<Exchange> warps;
    std::map<const void*, std::vector<uint64_t>> shared;
    std::vector<uint64_t> dynamic;
    std::function<void()> body;
    const char* error = nullptr;
    // Whether asynchronous copies arrive at once.
    bool eager = false;
};

inline thread_local Block block;
inline thread_local dim3 thread_index, block_index, block_size, grid_size;

inline unsigned lane() { return thread_index.x % WARP_SIZE; }
inline unsigned warp() { return thread_index.x / WARP_SIZE; }

// Gives the processor back to the scheduler until the barrier opens.
inline void wait(State at) {
    Fiber* self = block.current;
    self->state = at;
    if (_setjmp(self->resume) == 0) _longjmp(block.scheduler, 1);
    thread_index = self->index;
}

inline void run_fiber() {
    block.body();
    block.current->state = State::Ended;
    _longjmp(block.scheduler, 1);
}

// Runs one thread until its next barrier.
inline void step(Fiber& fiber) {
    block.current = &fiber;
    thread_index = fiber.index;
    if (_setjmp(block.scheduler) != 0) return;
    if (fiber.started) _longjmp(fiber.resume, 1);
    fiber.started = true;
    getcontext(&fiber.start);
    fiber.start.uc_stack.ss_sp = fiber.stack.get();
    fiber.start.uc_stack.ss_size = STACK;
    fiber.start.uc_link = nullptr;
    makecontext(&fiber.start, run_fiber, 0);
    setcontext(&fiber.start);
}

// The n-th of `count` in an order: 0 as they come, 1 backwards, else shuffled by `order` and `round`.
inline std::vector<unsigned> ordered(unsigned count, unsigned order, uint64_t round) {
    std::vector<unsigned> out(count);
    for (unsigned i = 0; i < count; i++) out[i] = order == 1 ? count - 1 - i : i;
    uint64_t state = round * 0x9e3779b97f4a7c15u + order;
    for (unsigned i = count; order > 1 && i > 1; i--) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        std::swap(out[i - 1], out[(state >> 33) % i]);
    }
    return out;
}

// Opens the barrier of a warp at which all of its threads have arrived: exchanges name all lanes, so all must take part.
inline bool open_warp(std::vector<Fiber>& fibers, unsigned first, unsigned last) {
    for (unsigned i = first; i < last; i++) {
        if (fibers[i].state != State::AtWarpBarrier) return false;
    }
    for (unsigned i = first; i < last; i++) fibers[i].state = State::Ready;
    return true;
}

// Opens the barrier of the block at which all threads have arrived. False if there is none, because all have ended or
// because some wait for others that never come.
inline bool open_block(std::vector<Fiber>& fibers, unsigned threads) {
    unsigned waiting = 0, ended = 0;
    for (unsigned i = 0; i < threads; i++) {
        waiting += fibers[i].state == State::AtBlockBarrier;
        ended += fibers[i].state == State::Ended;
    }
    if (ended == threads) return false;
    if (waiting < threads) {
        block.error = "a barrier was not reached by all threads";
        return false;
    }
    for (unsigned i = 0; i < threads; i++) fibers[i].state = State::Ready;
    return true;
}

// Runs a warp's threads to their next barrier, and where it is the warp's own and `ahead`, on to that of the block.
inline bool run_warp(std::vector<Fiber>& fibers, unsigned first, unsigned last, unsigned order, uint64_t& round, bool ahead) {
    bool any = false, opened;
    do {
        for (unsigned i : ordered(last - first, order, round++)) {
            if (fibers[first + i].state == State::Ready) step(fibers[first + i]);
        }
        opened = open_warp(fibers, first, last);
        any |= opened;
    } while (opened && ahead);
    return any;
}

inline void run_block(unsigned threads, unsigned order, uint64_t round) {
    std::vector<Fiber>& fibers = *block.fibers;
    block.shared.clear();
    std::fill(block.dynamic.begin(), block.dynamic.end(), ~uint64_t{0});
    const unsigned warps = (threads + WARP_SIZE - 1) / WARP_SIZE;
    block.warps.assign(warps, Exchange{});
    for (unsigned i = 0; i < threads; i++) {
        fibers[i].started = false;
        fibers[i].state = State::Ready;
        fibers[i].index = {i, 0, 0};
        fibers[i].groups.clear();
        fibers[i].open.clear();
    }
    bool going;
    do {
        going = false;
        for (unsigned warp : ordered(warps, order, round++)) {
            const unsigned first = warp * WARP_SIZE, last = std::min(first + WARP_SIZE, threads);
            going |= run_warp(fibers, first, last, order, round, order <= 1);
        }
    } while (going || open_block(fibers, threads));
}

inline const char* launch(dim3 grid, unsigned threads, size_t shared, unsigned order, std::function<void()> body) {
    static thread_local std::vector<Fiber> fibers;
    if (fibers.size() < threads) fibers = std::vector<Fiber>(threads);
    block.fibers = &fibers;
    block.error = nullptr;
    block.eager = order == 1;
    block.body = std::move(body);
    block.dynamic.resize((shared + 7) / 8);
    block_size = {threads, 1, 1};
    grid_size = grid;
    uint64_t round = 0;
    for (unsigned i : ordered(grid.x * grid.y * grid.z, order, 0)) {
        block_index = {i % grid.x, i / grid.x % grid.y, i / (grid.x * grid.y)};
        run_block(threads, order, round += 1000);
        if (block.error) break;
    }
    return block.error;
}

// Shared memory of one declaration, the same for all threads of a block; all bits set, which is NaN.
template <class T>
T* shared_array(const void* key, size_t count) {
    std::vector<uint64_t>& place = block.shared[key];
    if (place.empty()) place.assign((count * sizeof(T) + 15) / 8, ~uint64_t{0});
    return reinterpret_cast<T*>(place.data());
}

// Each lane gives a value and gets the board of all 32.
template <class T>
const uint8_t (*exchange(const T& value))[32] {
    static_assert(sizeof(T) <= 32, "a slot holds 32 bytes");
    Exchange& e = block.warps[warp()];
    const unsigned board = e.turn[lane()]++ % 2;
    memcpy(e.slots[board][lane()], &value, sizeof(T));
    wait(State::AtWarpBarrier);
    return e.slots[board];
}

template <class T>
T taken(const uint8_t (*board)[32], unsigned lane) {
    T out;
    memcpy(&out, board[lane], sizeof(T));
    return out;
}

// Kernels by name, called with the addresses of their arguments as the driver's launch is.
using Entry = std::function<std::function<void()>(void**)>;

inline std::map<std::string, Entry>& kernels() {
    static std::map<std::string, Entry> table;
    return table;
}

template <class... A, size_t... I>
std::function<void()> bound(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
    std::tuple<std::decay_t<A>...> values(*static_cast<std::decay_t<A>*>(arguments[I])...);
    return [kernel, values] { std::apply(kernel, values); };
}

template <class... A>
bool add(const char* name, void (*kernel)(A...)) {
    kernels()[name] = [kernel](void** arguments) { return bound(kernel, arguments, std::index_sequence_for<A...>{}); };
    return true;
}

inline float at(const uint32_t* registers, unsigned half) {
    return __bfloat162float({static_cast<uint16_t>(registers[half / 2] >> (half % 2 * 16))});
}

}  // namespace host

#define threadIdx host::thread_index
#define blockIdx host::block_index
#define blockDim host::block_size
#define gridDim host::grid_size

#define EXPORT(kernel) static const bool kernel##_exported = host::add(#kernel, kernel);
#define SHARED(type, name, count)                                                                                      \
    static const char name##_key = 0;                                                                                  \
    type* name = host::shared_array<type>(&name##_key, count)
#define SHARED_DYNAMIC(type, name) type* name = reinterpret_cast<type*>(host::block.dynamic.data())

inline void __syncthreads() { host::wait(host::State::AtBlockBarrier); }
inline void __syncwarp(unsigned = 0) { host::wait(host::State::AtWarpBarrier); }
template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
    return host::taken<T>(host::exchange(value), host::lane() ^ mask);
}
template <class T>
T __shfl_sync(unsigned, T value, int from) {
    return host::taken<T>(host::exchange(value), from);
}

inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
using std::max;
using std::min;

struct RegistersOfLane {
    uint32_t a[4], b[2];
};

// As the instruction of the same name: every lane computes its own four values from the others' registers.
inline void mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    const auto board = host::exchange(RegistersOfLane{{a[0], a[1], a[2], a[3]}, {b0, b1}});
    const unsigned group = host::lane() / 4, pair = host::lane() % 4;
    for (unsigned i = 0; i < 4; i++) {
        const unsigned row_half = i / 2, column = 2 * pair + i % 2;
        for (unsigned k = 0; k < 16; k++) {
            // Value k of row `group (+ 8)` lies with lane 4 group + k % 8 / 2, in register 2 (k / 8) + row_half.
            const auto left = host::taken<RegistersOfLane>(board, 4 * group + k % 8 / 2);
            const auto right = host::taken<RegistersOfLane>(board, 4 * column + k % 8 / 2);
            d[i] += host::at(left.a, 2 * (2 * (k / 8) + row_half) + k % 2) * host::at(right.b, 2 * (k / 8) + k % 2);
        }
    }
}

inline void load_matrices(uint32_t (&r)[4], const __nv_bfloat16* row) {
    const auto board = host::exchange(row);
    for (unsigned m = 0; m < 4; m++) {
        const auto from = host::taken<const __nv_bfloat16*>(board, 8 * m + host::lane() / 4) + 2 * (host::lane() % 4);
        r[m] = from[0].bits | static_cast<uint32_t>(from[1].bits) << 16;
    }
    __syncwarp();
}

inline void load_matrices_transposed(uint32_t (&r)[4], const __nv_bfloat16* row) {
    const auto board = host::exchange(row);
    for (unsigned m = 0; m < 4; m++) {
        const unsigned first = 8 * m + 2 * (host::lane() % 4), column = host::lane() / 4;
        const auto low = host::taken<const __nv_bfloat16*>(board, first)[column];
        const auto high = host::taken<const __nv_bfloat16*>(board, first + 1)[column];
        r[m] = low.bits | static_cast<uint32_t>(high.bits) << 16;
    }
    __syncwarp();
}

inline void copy_async(__nv_bfloat16* to, const __nv_bfloat16* from, bool wanted) {
    host::Copy copy{to, {}};
    if (wanted) memcpy(copy.bytes, from, 16);
    if (host::block.eager) memcpy(to, copy.bytes, 16);
    host::block.current->open.push_back(copy);
}

inline void copy_commit() {
    host::Fiber* self = host::block.current;
    self->groups.push_back(std::move(self->open));
    self->open.clear();
}

template <int PENDING>
void copy_wait() {
    auto& groups = host::block.current->groups;
    for (; groups.size() > PENDING; groups.pop_front()) {
        for (const host::Copy& copy : groups.front()) memcpy(copy.to, copy.bytes, 16);
    }
}

// Runs a kernel of this library; null, or what went wrong.
extern "C" __attribute__((used)) inline const char* host_launch(const char* name, const unsigned* grid, unsigned threads, size_t shared,
                                          unsigned order, void** arguments) {
    const auto found = host::kernels().find(name);
    if (found == host::kernels().end()) return "no kernel of this name";
    return host::launch({grid[0], grid[1], grid[2]}, threads, shared, order, found->second(arguments));
}
