"""Photographs: upright, cut to buckets, encoded once."""

import pytest
import torch
from PIL import Image

from moslora.errors import DataError
from moslora.tasks.image_files import read_image
from moslora.tasks.subject.draws import draw
from moslora.tasks.subject.images import Size, bucket_sizes, find_pictures, nearest_bucket, prepare
from moslora.tasks.subject.pictures import SUBJECT, encode_folder, micro_batches
from moslora.tasks.subject.pipeline import (
    LatentDistribution,
    decode_latents,
    encode_pixels,
    load_pipeline,
    size_multiple,
)
from tests.helpers import data_folder
from tests.tasks.subject.conftest import settings

CUT = {"resolution": 64, "multiple": 8, "buckets": True, "crop": "center", "seed": 0}


def test_a_photograph_taken_with_a_turned_camera_is_turned_back(tmp_path):
    upright = Image.new("RGB", (20, 40), "red")
    upright.paste("blue", (0, 0, 20, 10))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 270 degrees
    upright.rotate(90, expand=True).save(tmp_path / "turned.png", exif=exif)
    assert list(read_image(tmp_path / "turned.png").getdata()) == list(upright.getdata())


def test_transparent_and_grey_pictures_become_rgb(tmp_path):
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    Image.new("L", (4, 4), 7).save(tmp_path / "grey.png")
    assert read_image(tmp_path / "clear.png").getpixel((0, 0)) == (255, 255, 255)
    assert read_image(tmp_path / "grey.png").getpixel((0, 0)) == (7, 7, 7)


def test_buckets_hold_at_most_the_pixels_of_the_square_in_multiples_and_both_ways():
    for resolution, multiple in [(1024, 32), (512, 64), (64, 8)]:
        sizes = bucket_sizes(resolution, multiple)
        assert (resolution, resolution) in sizes
        assert all(width % multiple == height % multiple == 0 for width, height in sizes)
        assert all(width * height <= resolution**2 for width, height in sizes)
        assert {(height, width) for width, height in sizes} == set(sizes)


def test_a_picture_goes_to_the_bucket_of_its_shape_and_loses_little():
    sizes = bucket_sizes(1024, 32)
    assert nearest_bucket(Size(3000, 2000), sizes) == (1216, 832)


def test_a_cut_picture_says_where_it_was_cut(tmp_path):
    """SDXL's six numbers: a column-wise ramp shows which columns are left."""
    ramp = Image.linear_gradient("L").rotate(90).resize((256, 64)).convert("RGB")
    ramp.save(tmp_path / "ramp.png")
    picture = prepare(tmp_path / "ramp.png", **{**CUT, "buckets": False})
    assert picture.time_ids().tolist() == [64, 256, 0, 96, 64, 64]
    columns = [picture.image.getpixel((x, 30))[0] for x in (0, 63)]
    assert columns == [ramp.getpixel((x, 30))[0] for x in (96, 96 + 63)]
    random = [
        prepare(tmp_path / "ramp.png", **{**CUT, "buckets": False, "crop": "random", "seed": s}).left for s in range(20)
    ]
    assert random[0] == prepare(tmp_path / "ramp.png", **{**CUT, "buckets": False, "crop": "random"}).left
    assert len(set(random)) > 10
    assert all(0 <= left <= 192 for left in random)


def test_pixels_run_from_minus_one_to_one(tmp_path):
    image = Image.new("RGB", (64, 64), (0, 255, 0))
    image.putpixel((5, 9), (255, 0, 255))
    image.save(tmp_path / "p.png")
    pixels = prepare(tmp_path / "p.png", **CUT).pixels()
    assert pixels.shape == (3, 64, 64)
    assert pixels[:, 0, 0].tolist() == [-1, 1, -1]
    assert pixels[:, 9, 5].tolist() == [1, -1, 1]


def test_a_folder_without_pictures_and_a_damaged_one_are_refused(tmp_path):
    with pytest.raises(DataError, match="holds no picture"):
        find_pictures(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        find_pictures(tmp_path / "absent")
    (tmp_path / "cut.jpg").write_bytes((data_folder("dreambooth") / "dog" / "00.jpg").read_bytes()[:2000])
    with pytest.raises(DataError, match=r"Cannot read the picture .*cut\.jpg"):
        read_image(tmp_path / "cut.jpg")


def test_every_photograph_of_the_real_data_can_be_cut():
    folder = data_folder("dreambooth")
    for subject in sorted(path for path in folder.iterdir() if path.is_dir()):
        for path in find_pictures(subject):
            picture = prepare(path, **CUT)
            assert picture.image.width * picture.image.height <= 64 * 64
            assert picture.pixels().std() > 0.05, f"{path} is blank"


def test_cached_latents_are_those_computed_on_the_fly(sdxl, photographs):
    """The VAE runs at the moment of use, with the noise of that step."""
    pipeline = load_pipeline(sdxl, torch.float32)
    pictures = encode_folder(pipeline, photographs, settings(sdxl, photographs), 0, stream=SUBJECT)
    for step in (0, 4):
        options = {"seed": 0, "batch_size": 4, "timesteps": 1000}
        (batch,) = micro_batches(pictures, step, micro_batch_size=4, **options)
        for place, (index, found) in enumerate(zip(batch.indices, batch.latents, strict=True)):
            path = photographs / pictures.names[index]
            pixels = prepare(path, **{**CUT, "resolution": 32, "multiple": size_multiple(pipeline)}).pixels()
            with torch.no_grad():
                encoded = pipeline.vae.encode(pixels[None]).latent_dist
            now = LatentDistribution(encoded.mean[0] * 0.13025, encoded.std[0] * 0.13025)
            drawn = draw(now, 1000, seed=0, stream=SUBJECT, step=step, place=place, offset=0.0)
            assert torch.equal(found, drawn.latents)
            assert torch.equal(batch.noise[place], drawn.noise)


def test_latents_are_normalised_with_the_mean_and_deviation_of_the_vae_if_it_has_them(sdxl, photographs):
    pipeline = load_pipeline(sdxl, torch.float32)
    pixels = prepare(photographs / "00.jpg", **{**CUT, "resolution": 32}).pixels()
    plain = encode_pixels(pipeline, pixels)
    mean, std = [0.1, -0.2, 0.3, 0.0], [1.0, 2.0, 0.5, 4.0]
    pipeline.vae.register_to_config(latents_mean=mean, latents_std=std)
    shifted = encode_pixels(pipeline, pixels)
    mean, std = (torch.tensor(each).view(4, 1, 1) for each in (mean, std))
    torch.testing.assert_close(shifted.mean, (plain.mean / 0.13025 - mean) * 0.13025 / std)
    torch.testing.assert_close(shifted.std, plain.std / std)


def test_a_vae_that_overflows_in_16_bits_stays_in_float32_and_another_may_take_its_place(sdxl, tmp_path):
    exact, half = (load_pipeline(sdxl, dtype) for dtype in (torch.float32, torch.bfloat16))
    assert half.unet.dtype == half.text_encoder_2.dtype == torch.bfloat16
    assert half.vae.dtype == torch.float32
    latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    assert decode_latents(half, latents)[0].tobytes() == decode_latents(exact, latents)[0].tobytes()
    exact.vae.register_to_config(force_upcast=False)
    exact.vae.save_pretrained(tmp_path)
    other = load_pipeline(sdxl, torch.bfloat16, str(tmp_path))
    assert other.vae.dtype == torch.bfloat16
    assert decode_latents(other, latents)[0].size == (32, 32)
