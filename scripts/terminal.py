#!/usr/bin/env python3
"""Draws what a run shows on a terminal, from a real one: `scripts/terminal.py > docs/terminal.svg`.

Runs `target/release/reckon train` in a terminal of its own, 88 columns wide, and draws two moments: half-way, and the end.
`--keep FILE` keeps the recording, `--from FILE` draws a kept one; what follows `--` is added to the command.
"""

import argparse
import os
import pty
import re
import struct
import fcntl
import sys
import tempfile
import termios
from html import escape

COLUMNS, ROWS = 88, 50
CELL, LINE, MARGIN = 7.8, 18, 14


def record(command, path):
    """Runs `command` in a terminal and writes all that it shows to `path`."""
    pid, terminal = pty.fork()
    if pid == 0:
        fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        os.execvp(command[0], command)
    with open(path, "wb") as out:
        while True:
            try:
                piece = os.read(terminal, 65536)
            except OSError:  # the end of a terminal
                break
            if not piece:
                break
            out.write(piece)
    if os.waitpid(pid, 0)[1] != 0:
        sys.exit(f"{' '.join(command)} failed: see {path}")


class Screen:
    """The rows of a terminal that knows the few control sequences which a progress bar needs."""

    def __init__(self):
        self.rows, self.row, self.column = [[]], 0, 0

    def put(self, char):
        if self.column >= COLUMNS:
            self.feed()
            self.column = 0
        line = self.rows[self.row]
        line.extend(" " * (self.column + 1 - len(line)))
        line[self.column] = char
        self.column += 1

    def feed(self):
        self.row += 1
        while len(self.rows) <= self.row:
            self.rows.append([])

    def control(self, number, letter):
        if letter == "A":
            self.row = max(0, self.row - (number or 1))
        elif letter == "B":
            for _ in range(number or 1):
                self.feed()
        elif letter == "G":
            self.column = (number or 1) - 1
        elif letter == "K":
            line = self.rows[self.row]
            del line[0 if number == 2 else self.column:]
        elif letter == "J":
            del self.rows[self.row + 1:]

    def text(self):
        lines = ["".join(line).rstrip() for line in self.rows]
        while lines and not lines[-1]:
            lines.pop()
        return lines


def moments(raw):
    """The lines half-way through the run, and at its end."""
    screen, half = Screen(), None
    for control, letter, text in re.findall(r"\x1b\[\??(\d*)[\d;]*([A-Za-z])|(.)", raw, re.DOTALL):
        if letter:
            screen.control(int(control or 0), letter)
        elif text == "\r":
            screen.column = 0
        elif text == "\n":
            screen.feed()
        else:
            screen.put(text)
        if half is None and text == "\n" or letter:
            for line in screen.text()[-3:]:
                found = re.search(r"\b(\d+)/(\d+)\b.* left", line)
                if found and 2 * int(found[1]) >= int(found[2]) and len(screen.text()) > screen.row:
                    half = half or screen.text()
    return half or [], screen.text()


def svg(lines):
    """Light text on a dark ground; every line as wide as its cells."""
    width, height = 2 * MARGIN + COLUMNS * CELL, 2 * MARGIN + len(lines) * LINE
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" width="{width:.0f}" height="{height}" '
        'font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, monospace" font-size="13">'
    )
    yield '<rect width="100%" height="100%" rx="8" fill="#16181d"/>'
    for index, line in enumerate(lines):
        if line.strip():
            colour = "#8fd18f" if line.startswith("$") else "#7d8590" if line.strip() == "..." else "#e6e8eb"
            y = MARGIN + (index + 0.75) * LINE
            yield (
                f'<text x="{MARGIN}" y="{y:.1f}" fill="{colour}" xml:space="preserve" '
                f'textLength="{len(line) * CELL:.1f}">{escape(line)}</text>'
            )
    yield "</svg>"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default="target/release/reckon")
    parser.add_argument("--keep", metavar="FILE")
    parser.add_argument("--from", metavar="FILE", dest="kept")
    parser.add_argument("more", nargs="*", help="added to `reckon train`, after --")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = args.kept or args.keep or os.path.join(folder, "raw")
        if not args.kept:
            record([args.binary, "train", *args.more], path)
        with open(path, encoding="utf-8", newline="") as file:
            half, end = moments(file.read())
    same = sum(1 for _ in zip_equal(half, end))
    print("\n".join(svg([" ".join(["$ reckon train", *args.more]), *half, "", "...", "", *end[same:]])))


def zip_equal(a, b):
    """The pairs of lines that both begin with."""
    for pair in zip(a, b):
        if pair[0] != pair[1]:
            return
        yield pair


if __name__ == "__main__":
    main()
