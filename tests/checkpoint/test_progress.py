"""The bar of slow work."""

import time

from moslora.checkpoint import progress


def test_a_bar_appears_on_stderr_only_when_work_takes_longer_than_its_patience(capsys, monkeypatch):
    assert list(progress.track("abc", 3, "verify")) == ["a", "b", "c"]
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(progress, "PATIENCE_SECONDS", 0.01)
    for _ in progress.track(range(3), 3, "verify"):
        time.sleep(0.02)
    printed = capsys.readouterr()
    assert "verify" in printed.err
    assert printed.out == ""
