"""`verify certify`: a verdict for each input at one radius."""

from pathlib import Path
from typing import Annotated

import typer

from verify.cli.options import (
    AttackOptions,
    BoundOptions,
    DataOptions,
    Model,
    OutputOptions,
    Radius,
    RunOptions,
    Semantics,
)

FALSIFIED, UNKNOWN = 1, 3

Complete = Annotated[
    bool,
    typer.Option(
        "--complete",
        help="Search on what no bound decides, to the end or to --timeout (norm inf only).",
    ),
]

Confidence = Annotated[
    bool,
    typer.Option(
        "--confidence",
        help="Certify the confidence instead of the class: 'verify confidence' with its defaults.",
    ),
]

Folder = Annotated[
    Path | None,
    typer.Option(
        "--certificate",
        metavar="DIR",
        help="Write a property file and a certificate for each verified input; see 'verify check'.",
        show_default=False,
    ),
]


def certify(
    model: Model,
    eps: Radius,
    data: DataOptions,
    bounds: BoundOptions,
    attacks: AttackOptions,
    output: OutputOptions,
    runs: RunOptions,
    confidence: Confidence = False,
    certificate: Folder = None,
    complete: Complete = False,
    semantics: Semantics = "float32",
) -> int:
    """Decide for each input whether its class holds everywhere within --eps.

    An attack looks for a counterexample first, which counts if it is misclassified in ONNX Runtime
    too; what withstands it is bounded. "verified" is a proof, for every float32 execution of the
    file; "unknown" is neither proved nor refuted.

    \b
    Examples:
      verify certify examples/digits_dense.onnx --eps 0.03
      verify certify net.onnx --data test.npz --eps 8/255 --norm inf --limit 100 --json out.json
      verify certify net.onnx --data photos/ --eps 0.5 --norm 2 --mean 0.49,0.48,0.45 --std 0.25
      verify certify net.onnx --data test.npz --eps 0.03 --run overnight --workers 8

    Exit code: 0 all verified, 1 some falsified, 2 bad input, 3 some unknown (and none falsified).
    """
    # Not before: `verify --help` need not wait for torch.
    from verify.cli import parsing
    from verify.cli.certifying import Certifying, folder_of
    from verify.cli.falsifiers import falsifier_of
    from verify.cli.jobs import certify_job
    from verify.cli.presenting import presenter
    from verify.cli.running import Running
    from verify.cli.session import bound_arguments, open_session, stamp
    from verify.errors import SettingError
    from verify.values.result import Verdict
    from verify.values.semantics import semantics_of

    kind = semantics_of(semantics)
    if not kind.executed and certificate is not None:
        raise SettingError(
            f"--semantics {semantics} and --certificate exclude each other: a certificate is about "
            "every float32 execution"
        )
    if confidence:
        from verify.cli.confidence import certify_confidence

        return certify_confidence(model, eps, data, bounds, attacks, output, runs, semantics)
    show, arguments = presenter(output), bound_arguments(bounds)
    falsifier_of(attacks, None)  # a misspelt attack is refused before the model is read
    session = open_session(model, data, parsing.radius(eps))
    show.say(session.notes)
    settings: dict[str, object] = {
        **session.settings,
        "eps": float(session.asked.eps[0]),
        **arguments.settings(attacks),
        "complete": complete,
        "semantics": semantics,
    }
    job = certify_job(session, settings, arguments, attacks, complete=complete, semantics=semantics)
    brought = Certifying()
    job = job if certificate is None else brought.job(job, session)
    with Running(runs, job, show) as running:
        folder = folder_of(certificate, session, running.shelf(), brought)
        done = running.collect(folder.following)
        summary = {
            "correct": sum(r.label == r.predicted for r in done.results),
            "interrupted": done.interrupted,
            **folder.summary(),
            **running.summary(),
        }
    show.publish(show.record("certify", stamp(session), settings, done.results, summary))
    show.say(folder.notes())
    verdicts = {result.verdict for result in done.results}
    code = UNKNOWN if Verdict.UNKNOWN in verdicts else 0
    return running.exit_code(done, FALSIFIED if Verdict.FALSIFIED in verdicts else code)
