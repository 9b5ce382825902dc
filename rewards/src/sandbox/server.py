"""A prepared interpreter: forks one process for each script, so that none pays for Python's start. It runs nothing but
this file, in a tree of files that is read-only; what it is told comes from the host alone. Each process it forks has
namespaces and a folder of its own and puts itself under every layer of the sandbox, in the order of the helper, before
it reads what it is to run."""

import atexit
import builtins
import ctypes
import gc
import json
import os
import resource
import socket
import struct
import sys
import types

# What programs import most, where it holds no state of its own: no random numbers.
import bisect
import collections
import functools
import heapq
import itertools
import math
import operator
import re
import string
import typing

plan, uids = json.loads(sys.argv[1]), sys.argv[2]
control = socket.socket(fileno=os.dup(0))
libc = ctypes.CDLL(None, use_errno=True)


def kernel(name, *arguments):
    """A system call, or an error that names it."""
    result = libc.syscall(plan["calls"][name], *(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")
    return result


def serve():
    """Forks for each order; comes back in the child alone, with the order."""
    own = os.pidfd_open(os.getpid())
    while True:
        order, pipes, _, _ = socket.recv_fds(control, 16, 3)
        if not order:
            # The host is gone.
            os._exit(0)
        kernel("unshare", plan["processes"])
        child = os.fork()
        if child == 0:
            return order, pipes
        # The next child gets a namespace of its own too.
        kernel("setns", own, plan["processes"])
        for pipe in pipes:
            os.close(pipe)
        # Comes back when all that the child started has ended with it.
        _, status = os.waitpid(child, 0)
        control.sendall(b"ended %d\n" % status)


def enter(user):
    """What a process has of its own, and then all that it may not."""
    kernel("unshare", plan["spaces"])
    options = f"{plan['options']},uid={user},gid={user}".encode()
    kernel("mount", b"tmpfs", plan["home"].encode(), b"tmpfs", plan["flags"], options)
    os.chdir(plan["home"])
    os.setsid()
    if user:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    kernel("capset", struct.pack("<II", 0x20080522, 0), bytes(24))
    for limit in plan["limits"]:
        resource.setrlimit(limit[0], tuple(limit[1:]))
    for option in plan["options_of_process"]:
        kernel("prctl", *option)
    landlock()
    program = ctypes.create_string_buffer(bytes.fromhex(plan["seccomp"]))
    filters = struct.pack("HP", len(program) // 8, ctypes.addressof(program))
    kernel("seccomp", 1, 0, filters)


def landlock():
    """The newest rules that the kernel knows."""
    for attributes in plan["rulesets"]:
        attributes = bytes.fromhex(attributes)
        try:
            ruleset = kernel("landlock_create_ruleset", attributes, len(attributes), 0)
            break
        except OSError as error:
            refused = error
    else:
        raise refused
    handled = struct.unpack_from("<Q", attributes)[0]
    for path, access in plan["rules"]:
        try:
            file = os.open(path, os.O_PATH)
        except FileNotFoundError:
            # A device that the machine lacks.
            continue
        kernel("landlock_add_rule", ruleset, 1, struct.pack("<Qi", access & handled, file), 0)
        os.close(file)
    kernel("landlock_restrict_self", ruleset, 0)


def read(size):
    """Not a byte more: what follows is the program's."""
    parts = []
    while size:
        part = os.read(0, min(size, 1 << 20))
        if not part:
            raise EOFError("the order was cut")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def prepare(order, pipes):
    """In the child: what it is to run, when nothing else is in reach any more."""
    for target, pipe in enumerate(pipes):
        os.dup2(pipe, target)
    enter(int(order) if uids == "fresh" else 0)
    script = json.loads(read(struct.unpack("<Q", read(8))[0]))
    for name, text in script["files"]:
        with open(name, "w", encoding="utf-8", newline="") as file:
            file.write(text)
    return script


def run(code, scope):
    """Runs a script as the interpreter would; its exit status."""
    try:
        exec(code, scope)
        return 0
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return (end.code or 0) & 255
        print(end.code, file=sys.stderr)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    return 1


def leave(status):
    """Ends as the interpreter would, but for the objects that were there before the script: to take them apart would
    copy every page that is shared with the next one."""
    try:
        if "threading" in sys.modules:
            sys.modules["threading"]._shutdown()
        atexit._run_exitfuncs()
        # Files that the script left open are written to their end.
        for name in [name for name in main.__dict__ if name != "__builtins__"]:
            main.__dict__[name] = None
        gc.collect()
        sys.stdout.flush()
        sys.stderr.flush()
    except (AttributeError, OSError, ValueError):
        # The script closed or replaced what this needs.
        pass
    finally:
        os._exit(status)


for capability in range(64):
    try:
        kernel("prctl", 24, capability, 0, 0, 0)
    except OSError:
        # Newer than this kernel.
        break
codes = [compile(text, "<string>", "exec") for text in plan["scripts"]]
control.sendall(b"ready\n")
gc.collect()
gc.freeze()
order = serve()
try:
    script = prepare(*order)
    control.sendall(b"ready\n")
except BaseException as error:
    control.sendall(b"!" + repr(error).encode())
    os._exit(1)
os.closerange(3, 256)
control.detach()
sys.argv[:] = ["-c", *script["arguments"]]
main = sys.modules["__main__"] = types.ModuleType("__main__")
main.__builtins__ = builtins
leave(run(codes[script["script"]], main.__dict__))
