"""Reads a run's TensorBoard and Weights & Biases files back with the two programs' own code, and holds them to its records.

    python scripts/read_logs.py RUN            # a run made with --set log.tensorboard=true --set log.wandb=true
    python scripts/read_logs.py --fixture      # writes lab/tests/fixtures/events.bin with tensorboard's own writer

Needs the packages tensorboard and wandb. wandb's reader of its files is part of a program that it ships: this script reads
the frames itself and the records with wandb's protobuf classes, and then has `wandb sync` send the run to a server of its
own on this machine, which says yes to everything and keeps what comes.
"""

import gzip
import json
import math
import os
import struct
import subprocess
import sys
import threading
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path


def records_of(run):
    """The numbers of metrics.jsonl, by name and step."""
    numbers = {}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        step = record.pop("step")
        for name, value in record.items():
            if value is not None:
                numbers[name, step] = value
    return numbers


def tensorboard_of(run):
    """The same as TensorBoard's backend reads them; it checks every checksum."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {(tag, event.step): event.value for tag in events.Tags()["scalars"] for event in events.Scalars(tag)}


def frames(path):
    """The records in a .wandb file, every checksum checked."""
    data = path.read_bytes()
    assert data[:7] == b":W&B\xe1\xbe\x00", data[:7]
    at, record = 7, b""
    while at < len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
        checksum, length, kind = struct.unpack("<IHB", data[at : at + 7])
        piece = data[at + 7 : at + 7 + length]
        assert zlib.crc32(piece, zlib.crc32(bytes([kind]))) == checksum, f"checksum at {at}"
        at += 7 + length
        record += piece
        if kind in (1, 4):
            yield record
            record = b""


def wandb_of(run):
    """The same as wandb's protobuf classes read them, with the kinds of records that there are."""
    from wandb.proto.wandb_internal_pb2 import Record

    [path] = run.glob("wandb/offline-run-*/run-*.wandb")
    numbers, kinds = {}, []
    for frame in frames(path):
        record = Record()
        record.ParseFromString(frame)
        kinds.append(record.WhichOneof("record_type"))
        if kinds[-1] == "history":
            for item in record.history.item:
                if not item.nested_key[0].startswith("_"):
                    numbers[item.nested_key[0], record.history.step.num] = json.loads(item.value_json)
    return numbers, kinds, path.parent


class Server(BaseHTTPRequestHandler):
    """Answers as much of the interface of Weights & Biases as `wandb sync` asks for."""

    protocol_version = "HTTP/1.1"
    history = []
    configs = []

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        try:
            asked = json.loads(body)
        except ValueError:
            asked = {}
        for name, file in asked.get("files", {}).items():
            if name == "wandb-history.jsonl":
                self.history.extend(json.loads(line) for line in file["content"])
        if asked.get("variables", {}).get("config"):
            self.configs.append(json.loads(asked["variables"]["config"]))
        project = {"id": "p", "name": "reckon", "entity": {"id": "e", "name": "me"}}
        run = {"id": "r", "name": "run", "displayName": "run", "project": project, "historyLineCount": 0, "config": "{}"}
        files = {"runID": "r", "uploadHeaders": [], "files": []}
        answer = {"data": {"upsertBucket": {"bucket": run, "inserted": True}, "createRunFiles": files}}
        text = json.dumps({} if self.path.endswith("file_stream") else answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


def synced(folder):
    """The numbers that `wandb sync` sends of an offline run, and its config."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    environment = {**os.environ, "WANDB_BASE_URL": address, "WANDB_API_KEY": "a" * 40, "WANDB_ENTITY": "me"}
    command = ["wandb", "sync", "--yes", "--entity", "me", "--project", "reckon", folder]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "Finished syncing" in done.stderr + done.stdout, done.stderr
    numbers = {}
    for row in Server.history:
        numbers.update({(key, row["_step"]): value for key, value in row.items() if not key.startswith("_")})
    return numbers, Server.configs[0]


def fixture():
    """What the test of lab/src/log/tensorboard.rs expects, as tensorboard itself writes it."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    path = Path("lab/tests/fixtures/events.bin")
    with path.open("wb") as file:
        writer = RecordWriter(file)
        writer.write(Event(wall_time=1.0, file_version="brain.Event:2").SerializeToString())
        summary = Summary(value=[Summary.Value(tag="a", simple_value=0.5)])
        writer.write(Event(wall_time=2.0, step=3, summary=summary).SerializeToString())
    print(path, path.stat().st_size, "bytes, tensorboard", version("tensorboard"))


def main():
    if sys.argv[1] == "--fixture":
        return fixture()
    run = Path(sys.argv[1])
    expected = records_of(run)
    found = tensorboard_of(run)
    # TensorBoard's numbers are floats of 32 bits.
    close = lambda a, b: math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-30)
    assert found.keys() == expected.keys(), found.keys() ^ expected.keys()
    assert all(close(found[key], expected[key]) for key in expected)
    print("tensorboard", version("tensorboard"), "reads", len(found), "numbers, all equal to metrics.jsonl at 32 bits")
    found, kinds, folder = wandb_of(run)
    assert found == expected, found.keys() ^ expected.keys()
    print("wandb", version("wandb"), "reads", len(found), "numbers, all equal to metrics.jsonl;", kinds[0], kinds[1],
          kinds.count("history"), "history,", " ".join(kinds[-2:]))
    sent, config = synced(folder)
    assert sent == expected, sent.keys() ^ expected.keys()
    keys = sorted(key for key in config if not key.startswith("_"))
    print("wandb sync sends", len(sent), "numbers, all equal to metrics.jsonl, and the config:", " ".join(keys))


main()
