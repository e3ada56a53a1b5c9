"""An independent checker of certificates: NumPy and the standard library, nothing of the project.

It believes no number of a certificate. A certificate holds a tree of splits and, as hints, slopes
and multipliers; every bound is computed here, from the bytes of the model and of the property, and
any hint gives a valid bound, so a wrong one can only make a check fail. There is no tolerance.

    python -m verify.check CERTIFICATE MODEL.onnx PROPERTY.vnnlib
"""
