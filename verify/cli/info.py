"""`verify info`: what a model consists of, and what of it is supported."""

from verify.cli.options import Model, OutputOptions


def info(model: Model, output: OutputOptions) -> int:
    """Show a model's layers, operators and parameters, and whether it can be certified.

    A model that cannot be read is shown as well: which of its operators are supported and which
    are not.

    \b
    Examples:
      verify info examples/digits_conv.onnx
      verify info net.onnx --json -

    Exit code: 0 the model can be certified, 2 it cannot.
    """
    # Not before: `verify --help` need not wait for torch.
    from verify.cli.inspecting import print_model, print_unsupported, record_of
    from verify.cli.presenting import presenter
    from verify.errors import UnsupportedOperator
    from verify.readers.onnx import read_onnx
    from verify.runtime import Runtime, cross_check

    show = presenter(output)
    try:
        found = read_onnx(model)
    except UnsupportedOperator:
        print_unsupported(model, show)
        raise
    check = cross_check(found, Runtime(found))
    show.write(record_of(found, check))
    if not output.quiet:
        print_model(found, check, show)
    return 0
