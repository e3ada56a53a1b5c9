"""`python -m verify.check CERTIFICATE MODEL PROPERTY`: 0 if the proof holds, 1 if not.

The exit code is 2 if a file cannot be read.

In place of a certificate, a counterexample as `verify prop --out` writes it is checked as well.
"""

import errno
import hashlib
import sys
from pathlib import Path

import numpy as np

from verify.check.certificate import read_certificate
from verify.check.network import Network
from verify.check.onnx_bytes import MOST_BYTES, read_model, unpacked
from verify.check.operators import read_network
from verify.check.refusal import Refusal
from verify.check.tree import check_case
from verify.check.vnnlib import Case, read_property
from verify.check.witness import check_witness


def content(path: str) -> bytes:
    """A file's bytes."""
    if Path(path).stat().st_size > MOST_BYTES:
        raise OSError(errno.EFBIG, f"it is larger than {MOST_BYTES} bytes", path)
    return Path(path).read_bytes()


def check(certificate: bytes, model: bytes, prop: bytes) -> str:
    """What was proved, in one line; raises Refusal if anything is missing."""
    model, prop = unpacked(model), unpacked(prop)
    if certificate.lstrip().startswith(b"sat"):
        network, cases = subject(model, prop)
        return check_witness(certificate.decode("ascii", "replace"), network, cases)
    cert = read_certificate(certificate)
    for what, data, stated in (("model", model, cert.model), ("property", prop, cert.property)):
        if hashlib.sha256(data).hexdigest() != stated:
            raise Refusal(f"the certificate is about another {what}")
    network, cases = subject(model, prop)
    # Absurd hints may overflow or end in NaN, which proves nothing.
    with np.errstate(all="ignore"):
        leaves = sum(check_case(cert, number, network, case) for number, case in enumerate(cases))
    meaning = "in real arithmetic only" if cert.real else "for every float32 execution"
    return f"the property holds {meaning} ({len(cases)} case(s), {leaves} leaves)"


def subject(model: bytes, prop: bytes) -> tuple[Network, list[Case]]:
    """The network and the property's cases, from the unpacked files."""
    network = read_network(read_model(model))
    sizes = network.size(network.input_name), network.size(network.output_name)
    try:
        return network, read_property(prop.decode("utf-8"), *sizes)
    except UnicodeDecodeError:
        raise Refusal("the property is no text") from None


def main(arguments: list[str]) -> int:
    """Check one certificate and print what came of it."""
    if len(arguments) != 3:
        print("usage: python -m verify.check CERTIFICATE MODEL PROPERTY", file=sys.stderr)
        return 2
    try:
        files = [content(path) for path in arguments]
    except OSError as error:
        why = f"{error.filename} cannot be read: {error.strerror}"
        print(f"error: {why}; check the path", file=sys.stderr)
        return 2
    try:
        print("accepted:", check(*files))
    except Exception as error:  # whatever is wrong with a file, it proves nothing
        kind = "" if isinstance(error, Refusal) else f"{type(error).__name__}: "
        print(f"rejected: {kind}{str(error)[:300]}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
