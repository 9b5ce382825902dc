// Sums over the experts of a row on a card; how rows are dealt out is in dispatch.rs.
#include "../device/device.cuh"

// Row t of out (rows, k) += rows places[t active ..] of y, in their order: best first. A warp a row.
extern "C" __global__ void __launch_bounds__(128)
    experts_add_up(const bf16* __restrict__ y, const uint32_t* __restrict__ places, bf16* __restrict__ out,
                   uint32_t rows, uint32_t active, uint32_t k) {
    const uint32_t row = blockIdx.x * 4 + warp_id();
    if (row >= rows) return;
    const uint32_t* from = places + static_cast<size_t>(row) * active;
    bf16* to = out + static_cast<size_t>(row) * k;
    for (uint32_t i = lane_id() * 8; i < k; i += WARP * 8) {
        float sum[8], part[8];
        load_eight(to + i, sum);
        for (uint32_t a = 0; a < active; a++) {
            load_eight(y + static_cast<size_t>(from[a]) * k + i, part);
#pragma unroll
            for (int j = 0; j < 8; j++) sum[j] += part[j];
        }
        store_eight(to + i, sum);
    }
}
EXPORT(experts_add_up)
