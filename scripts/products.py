"""GFLOP/s of the products that `cargo bench --bench products` measures, by PyTorch, whose matrix products on a CPU are
oneDNN's: forward, gradient of the input, gradient of the weights; the best of several calls.

    pip install torch; python scripts/products.py [ROWS]
"""

import sys
import time

import torch

SHAPES = [("qkv", 960, 576), ("output", 576, 576), ("gate and up", 3072, 576), ("down", 576, 1536), ("head", 49152, 576)]


def rate(flops, work):
    best = float("inf")
    for _ in range(8):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return flops / best / 1e9


def main():
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 512
    print(f"{rows} rows, GFLOP/s: forward, gradient of the input, gradient of the weights")
    for dtype, word in [(torch.float32, "fp32"), (torch.bfloat16, "bf16")]:
        for threads in sorted({1, torch.get_num_threads()}):
            torch.set_num_threads(threads)
            for name, n, k in SHAPES:
                x, w, dy = (torch.randn(shape).to(dtype) for shape in [(rows, k), (n, k), (rows, n)])
                works = [lambda: x @ w.T, lambda: dy @ w, lambda: dy.T @ x]
                figures = " ".join(f"{rate(2 * rows * n * k, work):7.0f}" for work in works)
                print(f"{word} {threads} threads  {name:<12} {n:>6} x {k:<5} {figures}", flush=True)


if __name__ == "__main__":
    main()
