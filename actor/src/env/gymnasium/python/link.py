# The worker's link to its actor. It uses nothing but the standard library, so that it can tell what is missing.
#
# First part of the worker's program, which is link.py, spaces.py, copies.py, film.py, alone.py and worker.py one after another, and of
# that which lists what there is, link.py and listing.py. It is started with a socket to the actor for standard input and the shared
# memory for standard output. Both sides say a length (u32) and JSON until the copies are ready; from then on the actor rings with one
# byte (r to reset, s to step, t to time steps), and the worker answers with one (.), or with ! and a failure in JSON.

import ctypes
import importlib.util
import json
import os
import re
import signal
import socket
import struct
import sys
import traceback


class Unsupported(Exception):
    """Something that the actor has no form for."""


class Bell:
    """The socket to the actor."""

    def __init__(self, socket):
        self.wait, self.answer = socket.recv, socket.sendall

    def receive(self):
        (length,) = struct.unpack("<I", self.exactly(4))
        return json.loads(self.exactly(length))

    def exactly(self, length):
        data = b""
        while len(data) < length:
            more = self.wait(length - len(data))
            if not more:
                sys.exit()  # The actor has gone.
            data += more
        return data

    def send(self, mark, value):
        text = json.dumps(value).encode()
        self.answer(mark + struct.pack("<I", len(text)) + text)


def end_with_parent():
    """The operating system ends this process with the actor's, even while it is in a step that does not return."""
    try:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    except (OSError, AttributeError):
        pass  # The socket tells of the actor's end as soon as the step returns.


def failure(error):
    """What went wrong, for the actor to explain."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    chain = [error]
    while link := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(link)
    modules = [link.name for link in chain if isinstance(link, ModuleNotFoundError) and link.name]
    advice = re.search(r"pip install ([^`]+)`", str(error))
    told = {"message": str(error)}
    if "Unsupported" in kinds:
        return told | {"kind": "unsupported"}
    old = bool(kinds & {"DeprecatedEnv", "VersionNotFound"}) or has_moved(error)
    if old or "UnregisteredEnv" in kinds or "No registered env" in str(error):
        return told | {"kind": "unknown", "old": old, "known": sorted(spec.id for spec in known())}
    if modules or "DependencyNotInstalled" in kinds:
        package = modules[-1] if modules else advice[1].strip(" \"'") if advice else ""
        return told | {"kind": "missing", "package": package}
    text = "".join(traceback.format_exception(error))
    return {"kind": "exception", "message": text}


def has_moved(error):
    """Whether an environment is registered only to say that it is elsewhere now."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return isinstance(error, ImportError) and trace is not None and trace.tb_frame.f_code.co_name.startswith("_raise_")


def known():
    """What Gymnasium can make: without names that only raise an error, and those of old for the emulator's games."""
    gymnasium = sys.modules["gymnasium"]
    if importlib.util.find_spec("ale_py"):
        gymnasium.register_envs(importlib.import_module("ale_py"))
    for spec in gymnasium.registry.values():
        entry = spec.entry_point or spec.vector_entry_point
        module, _, name = entry.partition(":") if isinstance(entry, str) else (entry.__module__, "", entry.__name__)
        if not name.startswith("_raise_") and not (module.startswith("ale_py") and spec.namespace is None):
            yield spec


def report(kind, error, trace):
    try:
        bell.send(b"!", failure(error))
    except OSError:
        pass  # The actor has gone.


memory, bell = os.dup(1), Bell(socket.socket(fileno=os.dup(0)))
sys.excepthook = report
# Whatever an environment prints is for people; what it reads is nothing.
os.dup2(2, 1)
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
signal.signal(signal.SIGINT, signal.SIG_IGN)  # A terminal's Ctrl-C ends the actor, and that this.
end_with_parent()
