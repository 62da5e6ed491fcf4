"""Every error this package raises on purpose.

MoSLoRAError
├── ShapeError        factors that cannot belong to one layer (also a ValueError)
├── ConfigError       a setting, recipe or flag that cannot be used (also a ValueError)
├── UnsupportedError  a request that MoSLoRA cannot fulfil, with the reason (also a ValueError)
├── CheckpointError   an adapter file that is truncated, foreign, incomplete or damaged (also a ValueError)
├── DataError         a data file that cannot be read as what it should be (also a ValueError)
├── RunError          a run folder in the wrong state, or a run that cannot go on (also a RuntimeError)
└── Stopped           a run that was asked to stop, and did

A message says what was found, what was expected and what to do.
"""


class MoSLoRAError(Exception):
    """Parent of every error this package raises on purpose."""


class ShapeError(MoSLoRAError, ValueError):
    """Factors that cannot belong to one layer."""


class ConfigError(MoSLoRAError, ValueError):
    """A setting, recipe or flag that cannot be used."""


class UnsupportedError(MoSLoRAError, ValueError):
    """A request that MoSLoRA cannot fulfil."""


class CheckpointError(MoSLoRAError, ValueError):
    """An adapter file that is truncated, foreign, incomplete or damaged."""


class DataError(MoSLoRAError, ValueError):
    """A data file that cannot be read as what it should be."""


class RunError(MoSLoRAError, RuntimeError):
    """A run folder in the wrong state."""


class Stopped(MoSLoRAError):
    """A run that was asked to stop, and did. `signal` is the number of the signal that asked."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal


class MoSLoRAWarning(UserWarning):
    """Allowed, but probably not what was meant."""
