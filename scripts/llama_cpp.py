"""Runs llama.cpp beside Reckon: what it says of GGUF files that Reckon wrote, its own quantizer, its speed.

llama.cpp is the library that the npm package node-llama-cpp brings as a binary, called by ctypes:

    npm install node-llama-cpp --ignore-scripts          (in any folder; nothing is compiled)
    pip install numpy
    export LLAMA_CPP=FOLDER/node_modules/@node-llama-cpp/linux-x64/bins/linux-x64

    reckon sample --model MODEL --file prompts.txt --temperature 0 --max-new-tokens 256 --json > ours.jsonl
    llama_cpp.py greedy FILE.gguf ours.jsonl       the likeliest tokens behind each prompt, which have to be ours
    llama_cpp.py near EXACT.gguf FILE.gguf TEXT    mean KL and equal likeliest tokens behind each token of a text
    llama_cpp.py quantize IN.gguf OUT.gguf TYPE    llama.cpp's own quantizer: q8_0, q6_k, q5_k_m, q4_k_m, q4_0
    llama_cpp.py speed FILE.gguf [THREADS]         tokens a second of one row, and of 64 rows

Keys and values are kept in fp32 unless CACHE=f16 is set, which is llama.cpp's own default.
"""

import ctypes
import glob
import json
import os
import sys
import time
from ctypes import POINTER, Structure, byref, c_bool, c_char_p, c_float, c_int8, c_int32, c_uint32, c_void_p

import numpy as np

FILE_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q8_0": 7, "q4_k_m": 15, "q5_k_m": 17, "q6_k": 18}
THREADS = int(os.environ.get("THREADS", "2"))


class ModelParams(Structure):
    """Larger than what the library has: it is taken as it comes and never looked into."""

    _fields_ = [("bytes", c_int8 * 256)]


class ContextParams(Structure):
    """The fields that are set here; what lies between and behind them stays as the library gave it."""

    _fields_ = [("n_ctx", c_uint32), ("n_batch", c_uint32), ("n_ubatch", c_uint32), ("rest", c_int8 * 500)]


class QuantizeParams(Structure):
    _fields_ = [("threads", c_int32), ("file_type", c_int32), ("output_type", c_int32), ("embedding_type", c_int32),
                ("allow_requantize", c_bool), ("rest", c_int8 * 255)]


class Batch(Structure):
    _fields_ = [("n_tokens", c_int32), ("token", POINTER(c_int32)), ("embd", c_void_p), ("pos", POINTER(c_int32)),
                ("n_seq_id", POINTER(c_int32)), ("seq_id", POINTER(POINTER(c_int32))), ("logits", POINTER(c_int8))]


def library():
    folder = os.environ.get("LLAMA_CPP") or sys.exit("set LLAMA_CPP to the folder of libllama: see the head of this file")
    ggml = ctypes.CDLL(glob.glob(f"{folder}/libggml.v*.so")[0], mode=ctypes.RTLD_GLOBAL)
    ggml.ggml_backend_load_all_from_path.argtypes = [c_char_p]
    ggml.ggml_backend_load_all_from_path(folder.encode())
    llama = ctypes.CDLL(glob.glob(f"{folder}/libllama.v*.so")[0])
    pointers = "model_load_from_file init_from_model get_logits_ith model_get_vocab get_memory"
    for name in pointers.split():
        getattr(llama, f"llama_{name}").restype = c_void_p
    llama.llama_get_logits_ith.restype = POINTER(c_float)
    llama.llama_model_default_params.restype = ModelParams
    llama.llama_context_default_params.restype = ContextParams
    llama.llama_model_quantize_default_params.restype = QuantizeParams
    llama.llama_batch_init.restype = Batch
    llama.llama_model_load_from_file.argtypes = [c_char_p, ModelParams]
    llama.llama_init_from_model.argtypes = [c_void_p, ContextParams]
    llama.llama_model_quantize.argtypes = [c_char_p, c_char_p, POINTER(QuantizeParams)]
    llama.llama_decode.argtypes = [c_void_p, Batch]
    llama.llama_get_logits_ith.argtypes = [c_void_p, c_int32]
    llama.llama_vocab_n_tokens.argtypes = llama.llama_model_get_vocab.argtypes = [c_void_p]
    llama.llama_get_memory.argtypes = [c_void_p]
    llama.llama_memory_clear.argtypes = [c_void_p, c_bool]
    llama.llama_set_n_threads.argtypes = [c_void_p, c_int32, c_int32]
    llama.llama_tokenize.argtypes = [c_void_p, c_char_p, c_int32, POINTER(c_int32), c_int32, c_bool, c_bool]
    log = ctypes.CFUNCTYPE(None, c_int32, c_char_p, c_void_p)
    llama.quiet = log(lambda level, text, _: level >= 4 and sys.stderr.write(text.decode(errors="replace")))
    llama.llama_log_set(llama.quiet, None)
    return llama


class Model:
    """A file, opened, with a context of so many tokens and sequences."""

    def __init__(self, path, tokens=2048, sequences=1, threads=THREADS):
        self.llama = library()
        self.model = self.llama.llama_model_load_from_file(path.encode(), self.llama.llama_model_default_params())
        if not self.model:
            sys.exit(f"llama.cpp does not read {path}")
        params = self.llama.llama_context_default_params()
        known = bytes(params)
        # The numbers of the defaults tell where they lie, whatever the release.
        if (params.n_batch, params.n_ubatch) != (2048, 512):
            sys.exit("this release of llama.cpp begins its settings otherwise: adapt ContextParams")
        params.n_ctx = tokens
        words = (c_uint32 * (len(known) // 4)).from_buffer(params)
        words[3] = sequences
        if os.environ.get("CACHE") != "f16":
            at = next(i for i in range(20, 60) if words[i] == 1 and words[i + 1] == 1)
            words[at] = words[at + 1] = 0
            words[13] = 0  # no fused attention, which rounds to fp16 whatever the cache is
        self.context = self.llama.llama_init_from_model(self.model, params)
        self.llama.llama_set_n_threads(self.context, threads, threads)
        self.vocab = self.llama.llama_model_get_vocab(self.model)
        self.size = self.llama.llama_vocab_n_tokens(self.vocab)
        self.batch = self.llama.llama_batch_init(max(tokens, sequences), 0, 1)

    def tokens(self, text):
        raw, room = text.encode(), len(text.encode()) + 8
        out = (c_int32 * room)()
        return list(out[: self.llama.llama_tokenize(self.vocab, raw, len(raw), out, room, True, True)])

    def decode(self, tokens, positions, sequences, wanted):
        """Logits behind the tokens of a batch that are wanted."""
        batch = self.batch
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.n_seq_id[i] = token, positions[i], 1
            batch.seq_id[i][0], batch.logits[i] = sequences[i], wanted[i]
        code = self.llama.llama_decode(self.context, batch)
        if code:
            sys.exit(f"llama_decode returns {code}")
        rows = [i for i, want in enumerate(wanted) if want]
        return [np.ctypeslib.as_array(self.llama.llama_get_logits_ith(self.context, i), (self.size,)) for i in rows]

    def clear(self):
        self.llama.llama_memory_clear(self.llama.llama_get_memory(self.context), True)

    def likeliest(self, prompt, count):
        self.clear()
        last = [0] * (len(prompt) - 1) + [1]
        logits, out = self.decode(prompt, range(len(prompt)), [0] * len(prompt), last)[0], []
        while len(out) < count:
            out.append(int(np.argmax(logits)))
            logits = self.decode(out[-1:], [len(prompt) + len(out) - 1], [0], [1])[0]
        return out

    def logprobs(self, tokens):
        """Log-probabilities (T, V) behind each token of a text."""
        self.clear()
        n = len(tokens)
        logits = np.array(self.decode(tokens, range(n), [0] * n, [1] * n), dtype=np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def greedy(path, ours):
    model, equal, whole, total, rows = Model(path), 0, 0, 0, 0
    for line in open(ours):
        line = json.loads(line)
        prompt, tokens = line["prompt"], line["tokens"]
        theirs = model.likeliest(model.tokens(prompt), len(tokens))
        same = next((i for i, pair in enumerate(zip(tokens, theirs)) if pair[0] != pair[1]), len(tokens))
        equal, whole, total, rows = equal + same, whole + (same == len(tokens)), total + len(tokens), rows + 1
        if same < len(tokens):
            print(f"differs at token {same} of {len(tokens)}: {prompt[:50]!r}")
    print(f"{whole} of {rows} texts are equal to the last token, {equal} of {total} tokens before the first difference")
    sys.exit(whole < rows)


def near(exact, path, text):
    text = open(text).read()
    exact = Model(exact)
    tokens = exact.tokens(text)[:512]
    p, q = exact.logprobs(tokens), Model(path).logprobs(tokens)
    kl = (np.exp(p) * (p - q)).sum(axis=1).mean()
    same = (p.argmax(axis=1) == q.argmax(axis=1)).mean()
    size = os.path.getsize(path) / 2**20
    print(f"{path}: {size:.1f} MiB; {len(tokens)} tokens: mean KL {kl:.3e}, {100 * same:.1f}% of the likeliest tokens equal")


def quantize(source, out, kind):
    llama = library()
    params = llama.llama_model_quantize_default_params()
    params.threads, params.file_type, params.allow_requantize = THREADS, FILE_TYPES[kind], True
    code = llama.llama_model_quantize(source.encode(), out.encode(), byref(params))
    print(f"{out}: {os.path.getsize(out)} bytes" if code == 0 else f"llama_model_quantize returns {code}")
    sys.exit(code)


def speed(path, threads=THREADS):
    for rows, count in [(1, 128), (64, 32)]:
        model = Model(path, tokens=rows * 192, sequences=rows, threads=int(threads))
        best = 0
        for _ in range(3):
            model.clear()
            start = time.perf_counter()
            for position in range(count):
                model.decode([position + 100] * rows, [position] * rows, range(rows), [1] * rows)
            best = max(best, rows * count / (time.perf_counter() - start))
        print(f"{rows} rows, {threads} threads: {best:.0f} tokens a second")


COMMANDS = {"greedy": greedy, "near": near, "quantize": quantize, "speed": speed}

if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] not in COMMANDS:
        sys.exit(__doc__)
    COMMANDS[sys.argv[1]](*sys.argv[2:])
