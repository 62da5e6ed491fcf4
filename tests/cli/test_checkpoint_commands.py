"""`moslora export`, `import`, `merge` and `inspect`: what they print, write and refuse."""

import json
import re

import pytest
import safetensors.torch
import torch
from peft import PeftModel

from moslora.cli import main
from moslora.report.mixers import draw_mixers
from tests.checkpoint.adapters import adapt, adapted_toy
from tests.helpers import tiny_llama

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    root = tmp_path_factory.mktemp("cli")
    base = tiny_llama()
    base.save_pretrained(root / "base")
    base.name_or_path = str(root / "base")
    adapt(base, root / "adapter", target_modules=["q_proj", "v_proj"], r=4, mixer_pattern={"v_proj": "butterfly"})
    return root / "adapter"


@pytest.mark.parametrize("command", ["export", "import", "merge", "inspect"])
def test_help_shows_an_example_to_paste_and_says_what_is_written(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    examples = [line for line in lines if line.startswith(f"moslora {command} ")]
    assert examples
    assert all(len(line.split()) >= 4 for line in examples)


@pytest.mark.parametrize(("format", "name"), [("peft", "lora"), ("gguf", "lora.gguf")])
def test_export_prints_the_largest_difference_and_what_loads_the_result(adapter, format, name, tmp_path, capsys):
    assert main(["export", str(adapter), str(tmp_path / name), "--format", format]) == 0
    printed = capsys.readouterr().out
    difference = float(re.search(r"largest relative difference of delta W (\S+),", printed)[1])
    assert 0 <= difference < 1e-6
    assert "4 layers" in printed
    last = printed.splitlines()[-1]
    assert last.startswith("next: ")
    assert str(tmp_path / name) in last
    assert (tmp_path / name).exists()


def test_export_refuses_what_is_there_in_one_line(adapter, tmp_path, capsys):
    assert main(["export", str(adapter), str(tmp_path)]) == 1
    message = f"error: {tmp_path} exists already, and nothing is overwritten: choose another path or remove it.\n"
    assert capsys.readouterr().err == message


def test_the_line_after_import_loads_the_adapter(tmp_path, capsys):
    state = {}
    for number in range(2):
        module = f"base_model.model.model.layers.{number}.self_attn.q_proj"
        shapes = {"lora_A": (4, 32), "lora_AB": (4, 4), "lora_B": (32, 4)}
        state |= {f"{module}.{key}.weight": torch.randn(shape) for key, shape in shapes.items()}
    (tmp_path / "theirs").mkdir()
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "lora_use_mixer": True}
    (tmp_path / "theirs" / "adapter_config.json").write_text(json.dumps(config))
    torch.save(state, tmp_path / "theirs" / "adapter_model.bin")
    arguments = ["import", str(tmp_path / "theirs"), str(tmp_path / "ours")]
    assert main(arguments) == 1
    assert "--allow-pickle" in capsys.readouterr().err
    assert main([*arguments, "--allow-pickle"]) == 0
    printed = capsys.readouterr().out
    assert "2 layers, 2 of them with a mixer" in printed
    code = printed.splitlines()[-1].removeprefix("next: ")
    names = {"base": tiny_llama()}
    exec(code.replace("import moslora;", "import moslora, peft;"), names)
    assert isinstance(names["model"], PeftModel)
    stored = names["model"].get_base_model().model.layers[0].self_attn.q_proj.lora_A["default"].mixer
    assert torch.equal(stored, state["base_model.model.model.layers.0.self_attn.q_proj.lora_AB.weight"])


def test_the_line_after_merge_loads_the_model(adapter, tmp_path, capsys):
    import transformers

    assert main(["merge", str(adapter), str(tmp_path / "merged")]) == 0
    code = capsys.readouterr().out.splitlines()[-1].removeprefix("next: ")
    names = {"transformers": transformers}
    exec(code, names)
    base = tiny_llama().state_dict()
    changed = {name for name, value in names["model"].state_dict().items() if not torch.equal(value, base[name])}
    assert changed == {f"model.layers.{n}.self_attn.{part}_proj.weight" for n in range(2) for part in "qv"}


def test_inspect_prints_a_row_a_layer_with_numbers_that_numpy_confirms(adapter, capsys):
    assert main(["inspect", str(adapter)]) == 0
    rows = {}
    for line in capsys.readouterr().out.splitlines():
        cells = [cell.strip() for cell in line.strip("│┃ ").split("│")]
        if cells[0].startswith("model."):
            rows[cells[0]] = cells[1:]
    assert len(rows) == 4
    tensors = safetensors.torch.load_file(adapter / "adapter_model.safetensors")
    for name, (rank, mixer, high, low, condition, size) in rows.items():
        A, B = (tensors[f"base_model.model.{name}.lora_{part}"].double() for part in ("A.raw", "B.weight"))
        if name.endswith("v_proj"):
            assert (mixer, condition) == ("butterfly", "inf")
            half = torch.eye(2, dtype=torch.float64)
            M = torch.cat([torch.cat([half, half], 1)] * 2)
        else:
            assert mixer == "learnable"
            M = tensors[f"base_model.model.{name}.lora_A.mixer"].double()
            assert float(condition) == pytest.approx(torch.linalg.cond(M).item(), rel=1e-2)
        sigma = torch.linalg.svdvals(M)
        assert rank == "4"
        assert float(high) == pytest.approx(sigma[0].item(), rel=1e-2)
        assert float(low) == pytest.approx(sigma[-1].item(), rel=1e-2, abs=1e-12)
        assert float(size) == pytest.approx((2 * B @ M @ A).norm().item(), rel=1e-2)


def test_inspect_draws_every_mixer_and_never_over_a_picture(tmp_path, capsys):
    adapted_toy(tmp_path / "a", r=4)
    picture = tmp_path / "deep" / "mixers.png"
    assert main(["inspect", str(tmp_path / "a"), "--plot", str(picture)]) == 0
    assert picture.read_bytes().startswith(PNG)
    assert str(picture) in capsys.readouterr().out
    svg = tmp_path / "mixers.svg"
    assert main(["inspect", str(tmp_path / "a"), "--plot", str(svg)]) == 0
    # first, second, conv, grouped, embed, and three experts each of up and down, and the bar of colours
    assert svg.read_text().count("<image ") == 5 + 6 + 1
    assert main(["inspect", str(tmp_path / "a"), "--plot", str(picture)]) == 1
    assert main(["inspect", str(tmp_path / "a"), "--plot", str(tmp_path / "x.docx")]) == 1
    assert not (tmp_path / "x.docx").exists()


def test_an_adapter_without_learned_mixers_has_nothing_to_draw(tmp_path, capsys):
    adapted_toy(tmp_path / "a", r=4, mixer="butterfly")
    assert main(["inspect", str(tmp_path / "a"), "--plot", str(tmp_path / "x.png")]) == 1
    assert "no learned mixer" in capsys.readouterr().err


def test_the_colours_are_white_at_zero_and_one_scale_for_all(tmp_path):
    import numpy
    from PIL import Image

    draw_mixers({"a": numpy.zeros((2, 2)), "b": numpy.full((2, 2), 3.0)}, tmp_path / "x.png")
    pixels = numpy.asarray(Image.open(tmp_path / "x.png").convert("RGB")).reshape(-1, 3)
    darkest_red = (pixels == (103, 0, 31)).all(1).sum()
    near_white = (pixels == (246, 247, 247)).all(1).sum() + (pixels == (247, 246, 246)).all(1).sum()
    assert darkest_red > 10_000
    assert near_white > 10_000
