"""`verify attack`: only the attack, at one radius."""

from pathlib import Path
from typing import Annotated

import typer

from verify.cli.options import AttackOptions, DataOptions, Model, OutputOptions, Radius, RunOptions

FOUND = 1
Save = Annotated[
    Path | None,
    typer.Option(
        "--save",
        metavar="FILE.npz",
        help="Write the counterexamples: x, original, label, index.",
        show_default=False,
    ),
]


def attack(
    model: Model,
    eps: Radius,
    data: DataOptions,
    attacks: AttackOptions,
    output: OutputOptions,
    runs: RunOptions,
    save: Save = None,
) -> int:
    """Look for a misclassified input within --eps of each input.

    What is found is replayed in ONNX Runtime, in float32, inside ball and input range, before it
    counts. Finding nothing proves nothing: that is what `verify certify` is for.

    \b
    Examples:
      verify attack examples/digits_conv.onnx --eps 0.1 --limit 50
      verify attack net.onnx --data test.npz --eps 8/255 --attack-steps 100 --save found.npz

    Exit code: 0 none found, 1 some found, 2 bad input.
    """
    # Not before: `verify --help` need not wait for torch.
    from verify.cli import parsing
    from verify.cli.attacking import attacked_accuracy, save_witnesses, writable
    from verify.cli.falsifiers import falsifier_of
    from verify.cli.jobs import attack_job
    from verify.cli.presenting import presenter
    from verify.cli.running import Running
    from verify.cli.session import open_session, stamp
    from verify.errors import SettingError
    from verify.values.result import Verdict

    show = presenter(output)
    if falsifier_of(attacks, None) is None:
        raise SettingError("--attack none leaves nothing to do; choose another, as pgd")
    if save is not None:
        writable(save)
    session = open_session(model, data, parsing.radius(eps))
    show.say(session.notes)
    settings = {
        **session.settings,
        "eps": float(session.asked.eps[0]),
        "attack": attacks.attack,
        "attack_steps": attacks.attack_steps,
        "restarts": attacks.restarts,
        "seed": attacks.seed,
    }
    with Running(runs, attack_job(session, settings, attacks), show) as running:
        done = running.collect()
    found = [result for result in done.results if result.verdict is Verdict.FALSIFIED]
    accuracy = attacked_accuracy(done.results)
    record = show.record(
        "attack",
        stamp(session),
        settings,
        done.results,
        {
            "clean_accuracy": accuracy.clean,
            "attacked_accuracy": accuracy.attacked,
            "interrupted": done.interrupted,
            **running.summary(),
        },
    )
    if save is not None:
        save_witnesses(save, found, session)
    show.publish(record)
    if done.results:
        show.say([accuracy.text()])
    return running.exit_code(done, FOUND if found else 0)
