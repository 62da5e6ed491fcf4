"""Everything that reads what a stranger made: how it is called, and valid examples of what it reads.

A reader takes the content of a file and an empty folder. It may return, or raise one of the package's own errors, which
say what is wrong. Anything else is a crash.
"""

import base64
import contextlib
import gzip
import io
import json
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import pyarrow
import pyarrow.parquet
import torch
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save

from moslora.checkpoint import export_adapter, import_adapter, load_adapter, mix_adapters
from moslora.checkpoint.base import find_base
from moslora.checkpoint.projectors import new_projector, read_projector
from moslora.checkpoint.shards import Weights
from moslora.errors import MoSLoRAError
from moslora.methods.from_file import read_config
from moslora.recipes import FOLDER, configure, load_recipe
from moslora.tasks.commonsense.config import CommonsenseTrainConfig
from moslora.tasks.commonsense.data import read_items
from moslora.tasks.image_files import read_image, read_picture
from moslora.tasks.subject.config import SubjectTrainConfig
from moslora.tasks.subject.prompts import read_prompts
from moslora.tasks.subject.rating.folders import read_folder
from moslora.tasks.vision_language.config import VisionLanguageDataConfig, VisionLanguageTrainConfig
from moslora.tasks.vision_language.evaluation import mathvista, tsv
from moslora.tasks.vision_language.evaluation.images import decode_image
from moslora.tasks.vision_language.images import to_square
from moslora.tasks.vision_language.training_set import load_training_set

from ..checkpoint.adapters import adapted_toy
from . import damage
from .server import ask_all, requests

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"

Damage = Callable[[Sequence[bytes]], st.SearchStrategy[bytes]]


class Reader(NamedTuple):
    """One way in for a stranger's file."""

    read: Callable[[bytes, Path], object]
    seeds: Callable[[], list[bytes]]
    damage: Damage


@cache
def _adapters() -> list[dict[str, bytes]]:
    """Files of adapters with layers of every kind: plain, learned and butterfly mixers."""
    found = []
    for settings in ({"mixer": "identity"}, {"mixer": "learnable"}, {"mixer": "butterfly", "use_rslora": True}):
        with tempfile.TemporaryDirectory() as folder:
            adapted_toy(Path(folder), r=4, rank_pattern={"first": 2}, **settings)
            found.append({name: (Path(folder) / name).read_bytes() for name in (CONFIG, WEIGHTS)})
    return found


def _first_that_works(*attempts: Callable[[], object]) -> object:
    """What the first attempt without one of our errors gives; the last error if there is none."""
    for attempt in attempts[:-1]:
        with contextlib.suppress(MoSLoRAError):
            return attempt()
    return attempts[-1]()


def _read_adapter(name: str) -> Callable[[bytes, Path], object]:
    """Reads one of the two files of an adapter beside the other, valid one, of each kind in turn."""
    other = WEIGHTS if name == CONFIG else CONFIG

    def read(content: bytes, folder: Path) -> None:
        def load(files: dict[str, bytes]) -> object:
            (folder / other).write_bytes(files[other])
            return load_adapter(folder)

        (folder / name).write_bytes(content)
        _first_that_works(*(partial(load, files) for files in _adapters()))
        with contextlib.suppress(MoSLoRAError):  # plain LoRA cannot hold every layer of the toy
            export_adapter(folder, folder / "exported")
        with contextlib.suppress(MoSLoRAError):  # nor can every layer be added
            mix_adapters([folder, folder], folder / "mixed")

    return read


def _authors() -> list[bytes]:
    tensors = {
        "unet.block.attn.to_q.lora.down.weight": torch.ones(4, 8),
        "unet.block.attn.to_q.lora.downB.weight": torch.eye(4),
        "unet.block.attn.to_q.lora.up.weight": torch.ones(8, 4),
    }
    return [save(tensors)]


def _import_authors(content: bytes, folder: Path) -> None:
    file = folder / "pytorch_lora_weights.safetensors"
    file.write_bytes(content)
    import_adapter(file, folder / "imported")


def _read_projector(content: bytes, folder: Path) -> None:
    file = folder / "projector.safetensors"
    file.write_bytes(content)
    read_projector(file).check_shapes(8, 4, "the model")


def _projectors() -> list[bytes]:
    tensors = new_projector(8, 4, 0).tensors
    return [save({f"multi_modal_projector.{part}": tensor for part, tensor in tensors.items()})]


def _read_shards(content: bytes, folder: Path) -> None:
    (folder / "part-1.safetensors").write_bytes(save({"one": torch.ones(2)}))
    (folder / INDEX).write_bytes(content)
    weights = Weights(folder)
    for key in weights.places:
        weights.load(key)


def _shards() -> list[bytes]:
    return [damage.to_json({"metadata": {"total_size": 8}, "weight_map": {"one": "part-1.safetensors"}})]


def _read_model_config(content: bytes, folder: Path) -> None:
    (folder / SINGLE).write_bytes(save({"one": torch.ones(2)}))
    (folder / "config.json").write_bytes(content)
    if not re.search(rb"\d{5}", content):  # a model of many layers takes its time
        find_base(str(folder))


def _model_configs() -> list[bytes]:
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    return [
        damage.to_json({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 8, **sizes}),
        damage.to_json({"model_type": "vit", "architectures": ["ViTModel"], "image_size": 8, "patch_size": 4, **sizes}),
    ]


def _read_method(content: bytes, folder: Path) -> None:
    (folder / "method.json").write_bytes(content)
    read_config(folder / "method.json")


def _methods() -> list[bytes]:
    ours = json.loads(_adapters()[1][CONFIG]) | {"auto_mapping": None}
    return [
        damage.to_json(ours),
        damage.to_json({"peft_type": "LORA", "r": 8, "target_modules": ["q_proj"]}),
        damage.to_json({"peft_type": "ADALORA", "init_r": 8, "target_r": 4, "total_step": 10}),
        damage.to_json({"peft_type": "LOHA", "r": 8, "alpha": 8}),
    ]


def _read_recipe(content: bytes, folder: Path) -> None:
    (folder / "recipe.toml").write_bytes(content)
    values = load_recipe(str(folder / "recipe.toml"))
    tasks = (CommonsenseTrainConfig, VisionLanguageTrainConfig, SubjectTrainConfig)
    _first_that_works(*(partial(configure, config, {**values, "model": "model"}) for config in tasks))


def _recipes() -> list[bytes]:
    return [path.read_bytes() for path in sorted(FOLDER.rglob("*.toml"))]


_ITEMS = [
    {
        "instruction": "Is it so?\n\nAnswer format: true/false",
        "input": "",
        "output": "the correct answer is true",
        "answer": "true",
    },
    {"instruction": 'Größe, "quoted"', "output": "the correct answer is option1", "answer": "option1"},
]


def _read_items(suffix: str) -> Callable[[bytes, Path], object]:
    def read(content: bytes, folder: Path) -> object:
        (folder / f"data{suffix}").write_bytes(content)
        return read_items(folder / f"data{suffix}", ("instruction", "output"), {"output": "output"})

    return read


def _parquet() -> list[bytes]:
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(_ITEMS), stream)
    return [stream.getvalue()]


def _csv() -> list[bytes]:
    return [b'instruction,output\n"Is it, so?",yes\nWhy?,"a\nb"\n', b"\xef\xbb\xbfinstruction,output,extra\na,b,c\n"]


def _talk(*texts: str) -> list[dict[str, str]]:
    return [{"from": speaker, "value": text} for speaker, text in zip(("human", "gpt"), texts, strict=True)]


_TALKS = [
    {"id": "1", "image": "a.png", "conversations": _talk("<image>\nWhat?", "A cat.")},
    {"id": 2, "conversations": _talk("Who?", "Ada.")},
]


def _read_talks(suffix: str) -> Callable[[bytes, Path], object]:
    def read(content: bytes, folder: Path) -> None:
        (folder / f"data{suffix}").write_bytes(content)
        (folder / "images").mkdir()
        (folder / "images" / "a.png").write_bytes(_pictures()[0])
        config = VisionLanguageDataConfig(
            data=(str(folder / f"data{suffix}"),), images=str(folder / "images"), skip_broken=True
        )
        found = load_training_set(config)
        for number in found.usable:
            found.rows[number]

    return read


def _table() -> list[bytes]:
    picture = base64.b64encode(_pictures()[0])
    heads = b"index\timage\tquestion\tanswer\tchoices\tquestion_type\tanswer_type\tprecision\tA\tB\n"
    return [
        heads
        + (b"0\t" + picture + b"\tHow many?\t3.5\t['1', '3.5']\tmulti_choice\tfloat\t1\tone\ttwo\n")
        + b"1\t0\tHow much?\t3\t\tfree_form\tinteger\t\tone\ttwo\n"
    ]


def _read_table(content: bytes, folder: Path) -> None:
    (folder / "bench.tsv").write_bytes(content)
    needs = ("question", "question_type", "answer_type", "answer")
    for row in tsv.read_rows(folder / "bench.tsv", needs, images=True):
        tsv.options(row)
        mathvista.question_text(row)
        mathvista.score_mathvista([{**row, "extraction": mathvista.extract_plainly(row["question"], row)}])
        mathvista.score_mathvista([{**row, "extraction": row["answer"]}])
        decode_image(row["image"], "row", max_pixels=10_000)


@cache
def _pictures() -> list[bytes]:
    """A small picture in every format and in many modes."""
    found = []
    for mode, kinds in {
        "RGB": ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"),
        "RGBA": ("PNG", "WEBP", "TIFF"),
        "P": ("PNG", "GIF", "TIFF"),
        "LA": ("PNG",),
        "I;16": ("PNG", "TIFF"),
        "F": ("TIFF",),
        "1": ("PNG", "BMP"),
        "CMYK": ("JPEG", "TIFF"),
    }.items():
        picture = Image.linear_gradient("L").resize((9, 7)).convert(mode)
        exif = Image.Exif()
        exif[0x0112] = 6
        for kind in kinds:
            stream = io.BytesIO()
            several = {"save_all": True, "append_images": [picture]} if kind == "GIF" else {}
            picture.save(stream, kind, **({"exif": exif} if kind in ("PNG", "JPEG", "WEBP") else {}), **several)
            found.append(stream.getvalue())
    return found


def _read_picture(content: bytes, folder: Path) -> None:
    to_square(read_picture(content, max_pixels=100_000).image, (1, 2, 3))


def _read_subject_picture(content: bytes, folder: Path) -> None:
    (folder / "a.png").write_bytes(content)
    read_image(folder / "a.png")


def _read_prompts(content: bytes, folder: Path) -> None:
    (folder / "prompts.txt").write_bytes(content)
    names = (f"{folder / 'prompts.txt'}:object", str(folder / "prompts.txt"))
    _first_that_works(*(partial(read_prompts, name, "sks dog") for name in names))


def _prompts() -> list[bytes]:
    return [
        b"a {} in the snow\n# no prompt\n\na {} at night\n",
        b"Object Prompts\nprompt_list = [\n'a {0} {1} in the jungle'.format(unique_token, class_token),\n]\n",
    ]


def _read_generated(content: bytes, folder: Path) -> None:
    (folder / "0.png").write_bytes(_pictures()[0])
    (folder / "images.jsonl").write_bytes(content)
    read_folder(folder)


def _generated() -> list[bytes]:
    rows = [{"file": "0.png", "prompt_index": 0, "prompt": "a dog", "seed": seed} for seed in (0, 1)]
    return _lines(rows)


def _serve(content: bytes, folder: Path) -> None:
    with contextlib.suppress(ValueError):  # a case that is no JSON is no request
        ask_all(json.loads(content))


def _lines(rows: Sequence[object]) -> list[bytes]:
    return [b"\n".join(map(damage.to_json, rows))]


READERS = {
    "adapter config": Reader(
        _read_adapter(CONFIG), lambda: [each[CONFIG] for each in _adapters()], damage.damaged_json
    ),
    "adapter weights": Reader(
        _read_adapter(WEIGHTS), lambda: [each[WEIGHTS] for each in _adapters()], damage.damaged_safetensors
    ),
    "authors' weights": Reader(_import_authors, _authors, damage.damaged_safetensors),
    "projector": Reader(_read_projector, _projectors, damage.damaged_safetensors),
    "index of shards": Reader(_read_shards, _shards, damage.damaged_json),
    "model config": Reader(_read_model_config, _model_configs, damage.damaged_json),
    "method file": Reader(_read_method, _methods, damage.damaged_json),
    "recipe": Reader(_read_recipe, _recipes, damage.damaged_bytes),
    "questions, JSON": Reader(_read_items(".json"), lambda: [damage.to_json(_ITEMS)], damage.damaged_json),
    "questions, JSON lines": Reader(_read_items(".jsonl"), lambda: _lines(_ITEMS), damage.damaged_lines),
    "questions, CSV": Reader(_read_items(".csv"), _csv, damage.damaged_bytes),
    "questions, Parquet": Reader(_read_items(".parquet"), _parquet, damage.damaged_bytes),
    "questions, gzip": Reader(
        _read_items(".json.gz"), lambda: [gzip.compress(damage.to_json(_ITEMS))], damage.damaged_bytes
    ),
    "conversations, JSON": Reader(_read_talks(".json"), lambda: [damage.to_json(_TALKS)], damage.damaged_json),
    "conversations, JSON lines": Reader(_read_talks(".jsonl"), lambda: _lines(_TALKS), damage.damaged_lines),
    "benchmark table": Reader(_read_table, _table, damage.damaged_table),
    "picture": Reader(_read_picture, _pictures, damage.damaged_bytes),
    "picture of a subject": Reader(_read_subject_picture, _pictures, damage.damaged_bytes),
    "prompts": Reader(_read_prompts, _prompts, damage.damaged_bytes),
    "rating server": Reader(_serve, lambda: [damage.to_json(each) for each in requests()], damage.damaged_json),
    "list of pictures": Reader(_read_generated, _generated, damage.damaged_lines),
}


@contextlib.contextmanager
def empty_folder() -> Iterator[Path]:
    """A new folder in memory where there is one, since every case needs its own."""
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shm if shm.is_dir() else None) as folder:
        yield Path(folder)
