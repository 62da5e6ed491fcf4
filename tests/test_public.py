import subprocess
import sys

import pytest

import moslora


def test_every_public_name_resolves_and_all_is_sorted():
    for name in moslora.__all__:
        assert getattr(moslora, name).__name__ == name
    assert moslora.__all__ == sorted(moslora.__all__)
    assert set(moslora.__all__) <= set(dir(moslora))
    with pytest.raises(AttributeError, match="no attribute 'Moslora'"):
        _ = moslora.Moslora


@pytest.mark.parametrize("first", ["import moslora, peft", "import peft, moslora"])
def test_importing_the_package_registers_the_method_in_either_order(first):
    code = f"{first}\nprint(peft.PeftConfig.from_peft_type(peft_type='MOSLORA').__class__.__name__)"
    printed = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert printed.stdout == "MosLoraConfig\n"


def test_importing_the_package_alone_costs_no_import_of_torch():
    code = "import sys, moslora; print({'torch', 'peft'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
