"""Writes the files beside it, with pyarrow as the hub's tools do: python3 datasets/tests/data/make.py"""

import decimal
import gzip
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

# One table in every compression, with the types that public files have.
kinds = pa.table({
    "question": pa.array(["1+1?", "1+2?"], pa.large_string()),
    "answer": pa.array([decimal.Decimal("2.00"), decimal.Decimal("3.00")], pa.decimal128(20, 2)),
    "level": pa.array(["easy", "hard"]).dictionary_encode(),
    "big": pa.array([decimal.Decimal("123456789012345678901234567890"), None], pa.decimal128(38, 0)),
    "parts": pa.array([[{"z": 1, "a": "x"}, {"z": 2, "a": None}], []]),
})
for compression in ["none", "gzip", "brotli", "lz4", "zstd"]:
    pq.write_table(kinds, here / f"kinds_{compression}.parquet", compression=compression, store_schema=False)

# Shards of one set of rows: another order of columns, one more column, and no row.
write("shard_0", [{"question": "1+1?", "answer": "2"}])
write("shard_1", [{"source": "x", "answer": "3", "question": "1+2?"}])
pq.write_table(pa.table({"question": pa.array([], pa.string()), "answer": pa.array([], pa.string())}),
               here / "shard_empty.parquet")

lines = b'{"question": "1+1?", "answer": 2}\n{"question": "1+2?", "answer": 3}\n'
(here / "lines.jsonl.gz").write_bytes(gzip.compress(lines, mtime=0))
# Two members, as `cat a.gz b.gz` makes them.
first, second = lines.splitlines(keepends=True)
(here / "members.json.gz").write_bytes(gzip.compress(first, mtime=0) + gzip.compress(second, mtime=0))
(here / "lines.jsonl.zst").write_bytes(pa.compress(lines, codec="zstd", asbytes=True))
