#!/usr/bin/env python3
"""Draws a run's reward, completion length and held-out accuracy over its steps as an SVG: scripts/curve.py RUN > docs/curve.svg

Only the standard library is needed. Each series has its own scale; its first and last values stand beside it.
"""
import json
import pathlib
import sys

WIDTH, HEIGHT, LEFT, RIGHT, TOP, GAP = 760, 150, 70, 70, 30, 46
SERIES = [
    ("reward/mean", "mean reward of a step", "#2563eb", 1.0),
    ("completion/len_mean", "tokens per completion", "#d97706", None),
    ("behaviour/waits", "waits per completion", "#059669", None),
]
EVALUATION = "eval/pass@1"


def points(records, name):
    return [(record["step"], record[name]) for record in records if name in record and record["step"] > 0]


def panel(index, records, last_step, name, title, colour, top):
    values = points(records, name)
    top = top or 1.1 * max(value for _, value in values)
    base = TOP + index * (HEIGHT + GAP) + HEIGHT

    def place(step, value):
        return f"{LEFT + (WIDTH - LEFT - RIGHT) * step / last_step:.1f},{base - HEIGHT * value / top:.1f}"

    line = " ".join(place(step, value) for step, value in values)
    parts = [
        f'<text x="{LEFT}" y="{base - HEIGHT - 8}" font-weight="bold">{title}</text>',
        f'<path d="M{LEFT},{base - HEIGHT} V{base} H{WIDTH - RIGHT}" fill="none" stroke="#9ca3af"/>',
        f'<text x="{LEFT - 8}" y="{base - HEIGHT + 5}" text-anchor="end">{top:.3g}</text>',
        f'<text x="{LEFT - 8}" y="{base + 4}" text-anchor="end">0</text>',
        f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.6"/>',
        f'<text x="{WIDTH - RIGHT + 8}" y="{base - HEIGHT * values[-1][1] / top + 4:.1f}">{values[-1][1]:.3g}</text>',
    ]
    if index == 0:
        for step, value in [(r["step"], r[EVALUATION]) for r in records if EVALUATION in r]:
            x, y = place(step, value).split(",")
            parts.append(f'<circle cx="{x}" cy="{y}" r="4" fill="#111827"/>')
            parts.append(f'<text x="{x}" y="{float(y) - 9:.1f}" text-anchor="middle">{value:.2f}</text>')
        parts.append(f'<text x="{WIDTH - RIGHT}" y="{base - HEIGHT - 8}" text-anchor="end">● held-out accuracy</text>')
    for step in range(0, last_step + 1, max(1, last_step // 4)):
        x = place(step, 0).split(",")[0]
        parts.append(f'<text x="{x}" y="{base + 18}" text-anchor="middle">{step}</text>')
    return "\n".join(parts)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    path = pathlib.Path(sys.argv[1]) / "metrics.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    last_step = records[-1]["step"]
    height = TOP + len(SERIES) * (HEIGHT + GAP)
    print(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">')
    print(f'<rect width="{WIDTH}" height="{height}" fill="white"/>')
    for index, series in enumerate(SERIES):
        print(panel(index, records, last_step, *series))
    print("</svg>")


main()
