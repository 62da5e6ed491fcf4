"""Loaded before anything else, also by the process that hands tests out to others.

That process has a thread for each of the others and imports there what their warnings are instances of. moslora and
peft, first imported by two threads at once, would wait for each other.
"""

import peft  # noqa: F401

import moslora  # noqa: F401
