"""Print versions, devices, what will be fast here and what is known to be wrong on this machine.

    moslora doctor
    moslora doctor --json > report.json

The exit code is 0 unless something makes the package unusable. --json is for bug reports; it holds no paths and no
names of users.
"""

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..doctor import Machine


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """Arguments of `moslora doctor`."""

    json: bool = False
    """Print everything as JSON."""

    def run(self) -> None:
        """Print what was found.

        Raises:
            UnsupportedError: the package cannot be used here.
        """
        import json

        from .. import doctor
        from ..errors import UnsupportedError

        machine = doctor.examine()
        if self.json:
            print(json.dumps(doctor.as_json(machine), indent=2))
        else:
            print_machine(machine)
        if fatal := [finding for finding in doctor.diagnose(machine) if finding.fatal]:
            raise UnsupportedError("; ".join(f"{each.condition}: {each.do}" for each in fatal))


def print_machine(machine: "Machine") -> None:
    """Print versions, devices, what is fast and what is wrong."""
    from rich.table import Table

    from .. import doctor
    from ._console import wide_console

    console = wide_console(140)
    versions = Table("package", "version")
    for name, version in machine.versions.items():
        versions.add_row(name, version or "not installed")
    console.print(versions)
    console.print(f"CPU: {machine.cpu}, {machine.cores} cores", markup=False)
    for gpu in machine.gpus:
        capability = ".".join(map(str, gpu.capability))
        bf16 = "bfloat16" if gpu.bf16 else "no bfloat16"
        memory = f"{gpu.memory_bytes / 2**30:.1f} GiB"
        console.print(f"GPU: {gpu.name}, {memory}, compute capability {capability}, {bf16}", markup=False)
    if not machine.gpus:
        console.print("GPU: none")
    fast = Table("setting", "here", "why")
    for row in doctor.fast_here(machine):
        fast.add_row(*row)
    console.print(fast)
    findings = Table("known to be wrong here", "what", "what to do", show_lines=True)
    for finding in doctor.diagnose(machine):
        findings.add_row(finding.condition, finding.what, finding.do)
    console.print(findings if findings.row_count else "nothing is known to be wrong here")
