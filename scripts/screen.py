#!/usr/bin/env python3
"""Draws a terminal's screen as SVG, colours and all, from what tmux captures of it:

    tmux new-session -d -s shot -x 100 -y 30 'target/release/reckon watch runs/countdown'; sleep 2
    tmux capture-pane -t shot -e -p | scripts/screen.py > docs/lab/watch.svg; tmux kill-session -t shot
"""

import re
import sys
from html import escape

CELL, LINE, MARGIN = 7.8, 16, 12
BACK, TEXT = "#16181d", "#e6e8eb"
PALETTE = ["#3b4048", "#e06c75", "#8fd18f", "#e5c07b", "#61afef", "#c792ea", "#56c8d8", "#c8ccd4"]
BRIGHT = ["#7d8590", "#ff8a93", "#a8e6a8", "#ffd98f", "#82c4ff", "#dcb0ff", "#7ce0ee", "#ffffff"]


def cells(line, style):
    """The characters of a line with the style of each; a style goes on into the next line."""
    for code, char in re.findall(r"\x1b\[([\d;]*)m|(.)", line):
        if char:
            yield char, dict(style)
            continue
        numbers = [int(number or 0) for number in code.split(";")]
        while numbers:
            number = numbers.pop(0)
            if number == 0:
                style.clear()
            elif number == 1:
                style["bold"] = True
            elif number in (38, 48) and numbers and numbers.pop(0) == 5:
                index = numbers.pop(0)
                style["fg" if number == 38 else "bg"] = (PALETTE + BRIGHT)[index] if index < 16 else TEXT
            elif 30 <= number <= 37 or 40 <= number <= 47:
                style["fg" if number < 40 else "bg"] = PALETTE[number % 10]
            elif 90 <= number <= 97 or 100 <= number <= 107:
                style["fg" if number < 100 else "bg"] = BRIGHT[number % 10]
            elif number in (39, 49):
                style.pop("fg" if number == 39 else "bg", None)


def main():
    lines, style, shapes, columns = sys.stdin.read().rstrip("\n").split("\n"), {}, [], 0
    for row, line in enumerate(lines):
        all_cells = list(cells(line, style))
        columns = max(columns, len(all_cells))
        start = 0
        for at in range(1, len(all_cells) + 1):
            if at < len(all_cells) and all_cells[at][1] == all_cells[start][1]:
                continue
            text, look = "".join(char for char, _ in all_cells[start:at]), all_cells[start][1]
            x, y, width = MARGIN + start * CELL, MARGIN + row * LINE, (at - start) * CELL
            if "bg" in look:
                shapes.append(f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{LINE}" fill="{look["bg"]}"/>')
            if text.strip():
                bold = ' font-weight="bold"' if "bold" in look else ""
                shapes.append(f'<text x="{x:.1f}" y="{y + 12.5}" fill="{look.get("fg", TEXT)}"{bold} xml:space="preserve" '
                              f'textLength="{width:.1f}" lengthAdjust="spacingAndGlyphs">{escape(text)}</text>')
            start = at
    width, height = 2 * MARGIN + columns * CELL, 2 * MARGIN + len(lines) * LINE
    print(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" width="{width:.0f}" '
          f'height="{height}" font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, monospace" font-size="13">')
    print(f'<rect width="100%" height="100%" rx="8" fill="{BACK}"/>')
    print("\n".join(shapes))
    print("</svg>")


main()
