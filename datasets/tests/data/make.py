"""Writes the Parquet files beside it, with pyarrow as the hub's tools do: python3 datasets/tests/data/make.py"""

import pathlib

import pyarrow as pa
import pyarrow.parquet as pq

here = pathlib.Path(__file__).parent


def write(name, rows, compression="snappy"):
    pq.write_table(pa.Table.from_pylist(rows), here / f"{name}.parquet", compression=compression)


write("gsm8k", [
    {"question": "Tom has 3 apples and buys 4. How many?", "answer": "3 + 4 = <<3+4=7>>7\n#### 7"},
    {"question": "A car costs 1,000 more than 500. Price?", "answer": "500 + 1000 = 1500\n#### 1,500"},
])
write("math", [
    {"problem": "Halve 1.", "level": "Level 3", "type": "Algebra", "solution": "So $\\boxed{\\frac{1}{2}}$."},
    {"problem": "What is $1+1$?", "level": "Level 1", "type": "Algebra", "solution": "It is $\\boxed 2$."},
], compression="zstd")
write("verl", [
    {
        "data_source": "openai/gsm8k",
        "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "6*7?"}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": "42"},
        "extra_info": {"index": 0, "split": "train"},
    },
])
write("verl_countdown", [
    {
        "data_source": "countdown",
        "prompt": [{"role": "user", "content": "Make 31 from 18, 1 and 13."}],
        "reward_model": {"style": "rule", "ground_truth": {"target": 31, "numbers": [18, 1, 13]}},
    },
])
write("countdown", [{"target": 98, "nums": [44, 19, 35]}, {"target": 64, "nums": [63, 95, 96]}])
write("open_instruct", [
    {"messages": [{"role": "user", "content": "1+1?"}], "ground_truth": ["2"], "dataset": ["gsm8k"]},
    {"messages": [{"role": "user", "content": "2+2?"}], "ground_truth": ["4"], "dataset": ["gsm8k"]},
])
