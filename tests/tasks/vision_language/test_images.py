"""Images of every kind that data sets hold, real pictures among them."""

import json
import os
import struct
import zlib

import numpy
import pytest
from PIL import Image

from moslora import runs
from moslora.tasks.image_files import BrokenImage, read_picture
from moslora.tasks.vision_language.image_check import ImageCheck, ImageFacts, count_kinds
from moslora.tasks.vision_language.images import mean_colour, pixels, to_square
from moslora.tasks.vision_language.model import load_processor
from tests.helpers import data_folder

from .conftest import IMAGE_SIZE


@pytest.fixture
def red():
    """12 x 8, the left half red and the right half blue."""
    image = Image.new("RGB", (12, 8), (255, 0, 0))
    image.paste((0, 0, 255), (6, 0, 12, 8))
    return image


def _save(image, path, **settings):
    image.save(path, **settings)
    return path


def _colours(picture):
    """Of the middle of the left half and of the right half."""
    image = picture.image
    return image.getpixel((image.width // 4, image.height // 2)), image.getpixel(
        (3 * image.width // 4, image.height // 2)
    )


def test_kinds_that_are_converted_show_the_same_colours(red, tmp_path):
    files = {
        (): _save(red, tmp_path / "plain.png"),
        ("palette",): _save(red.quantize(4), tmp_path / "palette.png"),
        ("alpha",): _save(red.convert("RGBA"), tmp_path / "alpha.png"),
        ("animated",): _save(red, tmp_path / "frames.png", save_all=True, append_images=[Image.new("RGB", (12, 8))]),
    }
    for kinds, path in files.items():
        picture = read_picture(path)
        assert picture.kinds == kinds
        assert picture.image.mode == "RGB"
        assert _colours(picture) == ((255, 0, 0), (0, 0, 255))


def test_a_gif_with_several_frames_shows_its_first(red, tmp_path):
    path = _save(red, tmp_path / "frames.gif", save_all=True, append_images=[Image.new("RGB", (12, 8))])
    picture = read_picture(path)
    assert "animated" in picture.kinds
    assert _colours(picture) == ((255, 0, 0), (0, 0, 255))


def test_cmyk_as_for_print_becomes_rgb(red, tmp_path):
    picture = read_picture(_save(red.resize((120, 80)).convert("CMYK"), tmp_path / "print.jpg", quality=95))
    assert picture.kinds == ("cmyk",)
    left, right = _colours(picture)
    assert numpy.abs(numpy.subtract(left, (255, 0, 0))).max() < 12
    assert numpy.abs(numpy.subtract(right, (0, 0, 255))).max() < 12


def test_transparent_parts_are_white(tmp_path):
    image = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert read_picture(_save(image, tmp_path / "clear.png")).image.getpixel((0, 0)) == (255, 255, 255)


def test_an_exif_entry_turns_the_image_upright(red, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # was taken with the camera turned: shown a quarter turn clockwise
    picture = read_picture(_save(red, tmp_path / "turned.png", exif=exif))
    assert picture.kinds == ("rotated",)
    assert picture.image.size == (8, 12)
    assert picture.image.getpixel((4, 2)) == (255, 0, 0)  # left is now above


def test_16_bits_are_scaled_not_cut_off(tmp_path):
    values = numpy.array([[0, 32768], [65535, 256]], dtype="uint16")
    picture = read_picture(_save(Image.fromarray(values), tmp_path / "deep.png"))
    assert picture.kinds == ("high-depth",)
    assert [picture.image.getpixel(place)[0] for place in ((0, 0), (1, 0), (0, 1))] == [0, 128, 255]


def test_real_photographs_are_read_whole_and_noticed_when_they_end_early(tmp_path):
    path = sorted(data_folder("dreambooth").glob("dog/*.jpg"))[0]
    picture = read_picture(path)
    with Image.open(path) as image:
        assert picture.image.size == image.size
    content = path.read_bytes()
    with pytest.raises(BrokenImage) as caught:
        read_picture(content[: len(content) // 2])
    assert caught.value.kind == "truncated"
    (tmp_path / "half.jpg").write_bytes(content[:2000])
    with pytest.raises(BrokenImage, match=r"half\.jpg: the file ends early"):
        read_picture(tmp_path / "half.jpg")


def _bomb() -> bytes:
    """A PNG of a few bytes that says it has 40,000 x 40,000 pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 40000, 40000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "kind"), [(b"", "not-an-image"), (b"<html>404</html>", "not-an-image"), (_bomb(), "huge")]
)
def test_files_that_are_no_usable_image(content, kind, tmp_path):
    (tmp_path / "file.jpg").write_bytes(content)
    with pytest.raises(BrokenImage) as caught:
        read_picture(tmp_path / "file.jpg")
    assert caught.value.kind == kind


def test_a_missing_file_and_a_limit_of_ones_own(red, tmp_path):
    with pytest.raises(BrokenImage, match="there is no such file"):
        read_picture(tmp_path / "none.png")
    with pytest.raises(BrokenImage, match=r"more pixels than allowed \(12 x 8, allowed are 95\)"):
        read_picture(_save(red, tmp_path / "red.png"), max_pixels=95)


@pytest.mark.parametrize("size", [(12, 7), (7, 12), (9, 9)])
def test_a_square_has_the_image_in_its_middle(size):
    image = Image.effect_noise(size, 80).convert("RGB")
    square = to_square(image, (1, 2, 3))
    side = max(size)
    left, top = (side - size[0]) // 2, (side - size[1]) // 2
    assert square.size == (side, side)
    assert square.crop((left, top, left + size[0], top + size[1])).tobytes() == image.tobytes()
    outside = {square.getpixel((0, 0)), square.getpixel((side - 1, side - 1))} if size[0] != size[1] else {(1, 2, 3)}
    assert outside == {(1, 2, 3)}


def test_padding_becomes_zero_and_no_edge_is_cut_off(red, tiny_llava):
    processor = load_processor(str(tiny_llava))
    padded = pixels(red, processor, pad_to_square=True)
    assert padded.shape == (3, IMAGE_SIZE, IMAGE_SIZE)
    assert padded[:, 0].abs().max() < 0.02  # the mean colour, to one of 255 steps
    assert mean_colour(processor.image_processor) == (122, 116, 104)
    cut = pixels(red, processor, pad_to_square=False)
    assert cut[:, 0].abs().min() > 0.1


def test_every_image_is_looked_at_once_and_again_when_it_changes(red, tmp_path, monkeypatch):
    for name in ("a.png", "b.png"):
        _save(red, tmp_path / name)
    (tmp_path / "c.png").write_bytes(b"no image")
    names, known = ["a.png", "b.png", "c.png", "d.png"], tmp_path / "known.jsonl"
    looked = []
    real = ImageCheck._decode
    monkeypatch.setattr(ImageCheck, "_decode", lambda self, name: looked.append(name) or real(self, name))

    found = ImageCheck(tmp_path, known, 10_000).look(names)
    assert [found[name].broken for name in names] == ["", "", "not-an-image", "missing"]
    assert found["a.png"] == ImageFacts()
    assert count_kinds(found) == {"broken": {"not-an-image": 1, "missing": 1}, "converted": {}}
    assert sorted(looked) == names

    looked.clear()
    assert ImageCheck(tmp_path, known, 10_000).look(names) == found
    assert looked == []
    _save(red.quantize(4), tmp_path / "b.png")
    os.utime(tmp_path / "b.png", ns=(1, 1))
    _save(red, tmp_path / "d.png")
    again = ImageCheck(tmp_path, known, 10_000).look(names)
    assert sorted(looked) == ["b.png", "d.png"]
    assert (again["b.png"].kinds, again["d.png"].broken) == (("palette",), "")
    looked.clear()
    ImageCheck(tmp_path, known, 50).look(["a.png"])
    assert looked == ["a.png"]  # another limit
    assert json.loads(known.read_text().splitlines()[0])["image"] == "a.png"
    assert len(runs.read_rows(known)) == 7
