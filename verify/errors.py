"""Everything this package raises on purpose.

VerifyError
├── InputError              the user can mend it: one clear line, exit code 2
│   ├── ModelError          the model file cannot be read or is not what it claims
│   │   ├── UnsupportedOperator
│   │   └── MismatchError   our reading and the runtime's disagree
│   ├── DataError           inputs, labels or their file
│   ├── PropertyError       a property file cannot be read, or does not fit the model
│   ├── SettingError        an option or argument out of its range
│   ├── RunError            a stored run cannot be written, read, or is another one
│   └── ShapeError          tensors that do not fit each other
└── InternalError           one of our own promises is broken: a bug, please report
"""


class VerifyError(Exception):
    """Base of every exception raised on purpose by `verify`."""


class InputError(VerifyError):
    """Something the user gave cannot be used; the message says what, where and what to do."""


class ModelError(InputError):
    """The model cannot be read, or is not a network this tool can bound."""


class UnsupportedOperator(ModelError):
    """The model uses an operator (or a form of it) that has no sound rule here."""


class MismatchError(ModelError):
    """Our reading of the model and its own runtime give different outputs."""


class DataError(InputError):
    """Inputs or labels are missing, malformed or out of range."""


class PropertyError(InputError):
    """A property is malformed, beyond what is supported, or does not fit the model."""


class SettingError(InputError):
    """An option or argument is out of its range."""


class RunError(InputError):
    """A stored run cannot be opened, read or written, or is not the run that was asked for."""


class ShapeError(InputError):
    """Two tensors, or a tensor and a model, do not fit each other."""


class InternalError(VerifyError):
    """A promise of this package is broken; the result must not be used."""
