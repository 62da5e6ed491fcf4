"""Checkpoints: only those that are exactly as they were written count."""

import pytest

from moslora.errors import MoSLoRAWarning
from moslora.resume import COMPLETE, Checkpoints, damage

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def checkpoints(tmp_path):
    made = Checkpoints(tmp_path)
    for step in (9, 10):
        _write(made, step)
        made.seal(step, limit=2)
    return made


def _write(checkpoints: Checkpoints, step: int) -> None:
    folder = checkpoints.folder(step) / "rank0"
    folder.mkdir(parents=True)
    (folder / "state.bin").write_bytes(CONTENT)
    (folder.parent / "state.json").write_text(f'{{"step": {step}}}')


def _names(checkpoints: Checkpoints) -> list[str]:
    return [path.name for path in checkpoints.complete()]


def test_a_checkpoint_counts_once_it_is_sealed_and_older_ones_go_then(checkpoints):
    assert _names(checkpoints) == ["checkpoint-9", "checkpoint-10"]
    _write(checkpoints, 11)
    assert _names(checkpoints) == ["checkpoint-9", "checkpoint-10"]
    checkpoints.seal(11, limit=2, keep=None)
    assert _names(checkpoints) == ["checkpoint-10", "checkpoint-11"]
    _write(checkpoints, 12)
    checkpoints.seal(12, limit=1, keep=str(checkpoints.folder(10)))
    assert _names(checkpoints) == ["checkpoint-10", "checkpoint-12"]


def test_what_is_half_written_is_removed(checkpoints):
    _write(checkpoints, 11)
    checkpoints.drop_unfinished()
    assert not checkpoints.folder(11).exists()
    assert len(checkpoints.complete()) == 2


def test_every_flipped_bit_and_every_cut_is_found(checkpoints):
    path = checkpoints.folder(10) / "rank0" / "state.bin"
    for place in range(0, len(CONTENT), 997):
        for bit in range(8):
            changed = bytearray(CONTENT)
            changed[place] ^= 1 << bit
            path.write_bytes(changed)
            assert "content of rank0/state.bin has changed" in damage(checkpoints.folder(10))
        path.write_bytes(CONTENT[:place])
        assert f"rank0/state.bin has {place:,} bytes, {len(CONTENT):,} were written" in damage(checkpoints.folder(10))
    path.write_bytes(CONTENT)
    assert damage(checkpoints.folder(10)) is None
    path.unlink()
    assert "rank0/state.bin is missing" in damage(checkpoints.folder(10))


@pytest.mark.parametrize("text", ["", "step 10\n", "[]", '{"files": ', '{"files": null}', "\x00" * 50])
def test_a_damaged_list_of_files_damages_the_checkpoint(checkpoints, text):
    (checkpoints.folder(10) / COMPLETE).write_text(text)
    assert "list of files cannot be read" in damage(checkpoints.folder(10))


def test_damaged_checkpoints_are_set_aside_up_to_a_sound_one(checkpoints):
    _write(checkpoints, 11)
    checkpoints.seal(11, limit=3)
    for step in (10, 11):
        (checkpoints.folder(step) / "state.json").write_text('{"step": 99}')
    with pytest.warns(MoSLoRAWarning, match=r"checkpoint-1[01] is damaged.*state\.json") as warned:
        checkpoints.set_damaged_aside()
    assert len(warned) == 2
    assert _names(checkpoints) == ["checkpoint-9"]
    assert (checkpoints.root / "damaged-checkpoint-10" / "state.json").exists()
