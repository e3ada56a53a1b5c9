"""Damaged files of every kind: each must end in one clear error or in a reading, within limits.

    python -m benchmarks.malformed --files 10000

ONNX, VNN-LIB, CSV, npz and certificates are damaged at random (bytes flipped, cut, doubled, words
swapped) or by design (huge sizes, files elsewhere, sparse tensors, functions, archives that
unpack to gigabytes, pickled objects). Each is read in a child process with a limit of memory and an
alarm. Anything but a reading or an error meant for users counts, with the seed that repeats it.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import multiprocessing
import pickle
import resource
import signal
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch

from verify.certificates.proving import certificate, claim
from verify.check.__main__ import main as check
from verify.errors import InputError
from verify.network import load
from verify.readers.datasets import load_dataset
from verify.readers.examples import example_path
from verify.readers.vnnlib import read_vnnlib
from verify.values.budget import Budget

SECONDS = 10
MEMORY = 4 * 2**30
"""Address space of a child; torch and ONNX Runtime reserve over 1 GiB of it."""
CHUNK = 100
KINDS = ("onnx", "vnnlib", "csv", "npz", "certificate")
HUGE = 2**40
Damage = Callable[[bytes, np.random.Generator], bytes]


class Late(Exception):
    """The alarm went off."""


def flipped(data: bytes, generator: np.random.Generator) -> bytes:
    """A few bytes changed."""
    raw = bytearray(data)
    for place in generator.integers(0, len(raw), int(generator.integers(1, 9))):
        raw[place] = int(generator.integers(0, 256))
    return bytes(raw)


def cut(data: bytes, generator: np.random.Generator) -> bytes:
    """The end missing, or a piece in the middle."""
    first, last = sorted(generator.integers(0, len(data) + 1, 2).tolist())
    return data[:first] if generator.random() < 0.5 else data[:first] + data[last:]


def doubled(data: bytes, generator: np.random.Generator) -> bytes:
    """A piece repeated, up to a thousand times."""
    first = int(generator.integers(0, len(data)))
    last = first + int(generator.integers(1, 200))
    times = int(10 ** generator.uniform(0, 3))
    return data[:first] + data[first:last] * times + data[last:]


def words(data: bytes, generator: np.random.Generator) -> bytes:
    """Numbers, brackets and names exchanged for strange ones."""
    strange = (
        b"1e999999999",
        b"nan",
        b"-inf",
        b"(" * 5000,
        b")",
        b"1/0",
        b"",
        b"\xff\xfe",
        b"9" * 5000,
    )
    parts = data.split(b" ")
    for place in generator.integers(0, len(parts), 3):
        parts[place] = strange[int(generator.integers(0, len(strange)))]
    return b" ".join(parts)


def model_changed(data: bytes, generator: np.random.Generator) -> bytes:
    """One thing in the model's structure made impossible."""
    proto = onnx.load_from_string(data)
    graph = proto.graph
    node = graph.node[int(generator.integers(0, len(graph.node)))]
    tensor = graph.initializer[int(generator.integers(0, len(graph.initializer)))]
    way = int(generator.integers(0, 11))
    if way == 0:
        tensor.dims[0] = int(generator.choice([HUGE, -1, 0, 2**62]))
    elif way == 1:
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", "../../../etc/passwd"), ("offset", "0"), ("length", "64")):
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value
    elif way == 2:
        node.op_type = str(generator.choice(["If", "Loop", "Conv", "Einsum", "Nope", "Reshape"]))
    elif way == 3:
        node.input[0] = node.output[0]
    elif way == 4:
        node.domain = "somewhere.else"
    elif way == 5:
        graph.sparse_initializer.add().dims.extend([HUGE, HUGE])
    elif way == 6:
        function = proto.functions.add()
        function.name, function.domain = node.op_type, ""
    elif way == 7:
        dim = graph.input[0].type.tensor_type.shape.dim
        dim[-1].dim_value = int(generator.choice([HUGE, -5, 0, 3]))
    elif way == 8:
        graph.node.append(node)
    elif way == 9:
        tensor.data_type = int(generator.integers(0, 30))
    else:
        proto.opset_import[0].version = int(generator.choice([0, -3, 1, 99, 2**40]))
    return bytes(proto.SerializeToString())


def archive_changed(data: bytes, generator: np.random.Generator) -> bytes:
    """An archive of arrays that is a bomb, holds objects, or lies about its sizes."""
    way, held = int(generator.integers(0, 4)), io.BytesIO()
    if way == 0:
        with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as file:
            head = b"\x93NUMPY\x01\x00v\x00"
            text = "{'descr': '<f4', 'fortran_order': False, 'shape': (4194304, 64), }"
            with file.open("x.npy", "w", force_zip64=True) as member:
                member.write(head + text.ljust(117).encode() + b"\n")
                for _ in range(64):
                    member.write(bytes(2**20))
        return held.getvalue()
    if way == 1:
        with zipfile.ZipFile(held, "w") as file:
            objects = io.BytesIO()
            np.save(objects, np.array([{"a": 1}], dtype=object), allow_pickle=True)
            file.writestr("x.npy", objects.getvalue())
        return held.getvalue()
    if way == 2:
        return pickle.dumps({"x": [1.0]})
    shape = (int(generator.integers(0, 3)), int(generator.integers(0, 80)))
    kind = str(generator.choice(["f8", "c8", "U5", "i8", "?"]))
    np.savez(held, x=np.zeros(shape, dtype=kind), y=np.full(shape[0], generator.integers(-2, 99)))
    return held.getvalue()


def samples(folder: Path) -> dict[str, list[bytes]]:
    """Good files to damage."""
    models = [example_path(f"digits_{kind}.onnx").read_bytes() for kind in ("dense", "conv")]
    lines = [f"(declare-const X_{i} Real)" for i in range(64)]
    lines += [f"(declare-const Y_{i} Real)" for i in range(10)]
    lines += [f"(assert (>= X_{i} 0.5 ))(assert (<= X_{i} 0.501 ))" for i in range(64)]
    prop = "\n".join(
        [*lines, "(assert (or (and (>= Y_0 1000.0 )) (and (>= Y_1 1000.0 ))))"]
    ).encode()
    (folder / "model.onnx").write_bytes(models[0])
    (folder / "p.vnnlib").write_bytes(prop)
    held = io.BytesIO()
    generator = np.random.default_rng(0)
    x = generator.random((3, 64)).astype(np.float32)
    np.savez(held, x=x, y=np.array([1, 2, 3]))
    table = "\n".join(f"{i}," + ",".join(f"{v:.3f}" for v in row) for i, row in enumerate(x))
    proof = certificate(claim(models[0], prop), Budget().within(30))
    return {
        "onnx": models,
        "vnnlib": [prop],
        "csv": [table.replace(",", " , ").encode()],
        "npz": [held.getvalue()],
        "certificate": [proof],
    }


def damaged(kind: str, data: bytes, generator: np.random.Generator) -> bytes:
    """One damaged file."""
    own: dict[str, tuple[Damage, ...]] = {
        "onnx": (model_changed, model_changed),
        "vnnlib": (words, words),
        "csv": (words,),
        "npz": (archive_changed,),
        "certificate": (),
    }
    ways = (flipped, cut, doubled, *own[kind])
    changed = data
    while changed == data:  # a piece of no length, or taken once, changes nothing
        changed = ways[int(generator.integers(0, len(ways)))](data, generator)
    return changed


def read(kind: str, path: Path, folder: Path) -> str:
    """What came of one file: "read", "refused", or what must not be."""
    started = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        if kind == "onnx":
            load(path)
        elif kind == "vnnlib":
            read_vnnlib(path)
        elif kind == "certificate":
            with contextlib.redirect_stdout(io.StringIO()) as said:
                beside = (str(folder / "model.onnx"), str(folder / "p.vnnlib"))
                code = check([str(path), *beside])
            if code not in (0, 1) or said.getvalue().count("\n") != 1:
                return f"check ended with {code}: {said.getvalue()[:80]}"
            return "refused" if code else "read"
        else:
            load_dataset(str(path), input_shape=(64,), classes=10)
    except InputError as error:
        return "refused" if str(error).strip() else "an empty message"
    except Late:
        return f"no answer in {time.monotonic() - started:.0f} s"
    except BaseException as error:  # whatever it is, it is what we look for
        return f"{type(error).__name__}: {str(error)[:120]}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return "read"


def late(number: int, frame: object) -> None:
    """The alarm."""
    raise Late


def chunk(kind: str, first: int, count: int, folder: Path, good: list[bytes], told: object) -> None:
    """Read some damaged files, in a process of their own; tells of each as it begins and ends."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGALRM, late)
    torch.set_num_threads(1)
    for seed in range(first, first + count):
        generator = np.random.default_rng([KINDS.index(kind), seed])
        path = folder / f"bad.{kind}"
        path.write_bytes(damaged(kind, good[seed % len(good)], generator))
        told.send((seed, "died"))  # type: ignore[attr-defined]
        told.send((seed, read(kind, path, folder)))  # type: ignore[attr-defined]


def run(kind: str, files: int, folder: Path, good: list[bytes], first: int = 0) -> Counter[str]:
    """All files of a kind; what came of them, and how often."""
    context = multiprocessing.get_context("fork")
    found: dict[int, str] = {}
    seed, end = first, first + files
    while seed < end:
        ours, theirs = context.Pipe(duplex=False)
        count = min(CHUNK, end - seed)
        child = context.Process(target=chunk, args=(kind, seed, count, folder, good, theirs))
        child.start()
        theirs.close()
        with contextlib.suppress(EOFError):
            while True:
                number, outcome = ours.recv()
                found[number] = outcome
        child.join()
        seed = max([seed, *found]) + 1
    for number, outcome in sorted(found.items()):
        if outcome not in ("read", "refused"):
            print(f"{kind} seed {number}: {outcome}", file=sys.stderr)
    return Counter(o if o in ("read", "refused") else "wrong" for o in found.values())


def main(arguments: list[str] | None = None) -> int:
    """Damage, read and count."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=1000, help="in total, over all kinds")
    parser.add_argument("--first", type=int, default=0, help="first seed")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    wrong = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        good = samples(folder)
        print(f"{'files':14}{'read':>8}{'refused':>9}{'wrong':>7}{'seconds':>9}")
        for kind in KINDS:
            started = time.monotonic()
            came = run(kind, asked.files // len(KINDS), folder, good[kind], asked.first)
            spent = time.monotonic() - started
            print(f"{kind:14}{came['read']:8}{came['refused']:9}{came['wrong']:7}{spent:9.1f}")
            wrong += came["wrong"]
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
