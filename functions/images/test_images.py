import io
from pathlib import Path

import main
import pytest
from main import Tile, decode, encode
from PIL import Image, ImageChops
from tiles import cuts, fit, shrink, side_of_tiles

PHOTO = (Path(__file__).parent / "photo" / "retina.jpg").read_bytes()


def one_shot(content, size):
    with Image.open(io.BytesIO(content)) as picture:
        return picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)


def difference(one, other):
    """The largest difference of any pixel, in grey levels."""
    return max(high for _, high in ImageChops.difference(one, other).getextrema())


# --- a function at a time -----------------------------------------------------------------------------------


def test_a_picture_is_split_into_one_group(client_for):
    tiles = client_for("split").send("image.uploaded", PHOTO, id="photo", datacontenttype="image/jpeg")

    assert len(tiles) == 64
    assert {tile.get_type() for tile in tiles} == {"image.tile"}
    assert len({tile.get_attributes()["fanoutid"] for tile in tiles}) == 1
    covered = sorted(Tile.model_validate(tile.get_data()).cut.target for tile in tiles)
    assert covered == sorted(
        (x, y, x + 256, y + 256) for x in range(0, 2048, 256) for y in range(0, 2048, 256)
    )


def test_what_is_no_picture_is_refused(client_for):
    with pytest.raises(OSError, match="cannot identify image file"):
        client_for("split").send("image.uploaded", b"no picture", datacontenttype="image/png")


# --- all of them, with the events between -------------------------------------------------------------------


def test_the_result_equals_one_resize_of_the_whole(platform):
    uploaded = platform.put_blob(PHOTO, "image/jpeg")
    platform.send("image.uploaded", dataref=uploaded)

    assert len(platform.events("image.tile")) == len(platform.events("image.tile.resized")) == 64
    [resized] = platform.events("image.resized")
    assert resized.get_attributes()["datacontenttype"] == "image/png"
    picture = decode(platform.get_blob(resized.get_attributes()["dataref"]))
    assert difference(picture, one_shot(PHOTO, (2048, 2048))) <= 1
    assert platform.dead_letters() == []


def test_pictures_do_not_mix(platform):
    colours = {"red": (255, 0, 0), "blue": (0, 0, 255)}
    for name, colour in colours.items():
        content = encode(Image.new("RGB", (300, 200), colour))
        platform.send("image.uploaded", content, id=name, datacontenttype="image/png")

    resized = platform.events("image.resized")
    seen = [decode(platform.get_blob(event.get_attributes()["dataref"])).getcolors() for event in resized]
    assert seen == [[(2048 * 1365, colour)] for colour in colours.values()]


def test_a_tile_that_fails_for_a_while_is_tried_again(platform, monkeypatch):
    attempts = []

    def unwell(tile, cut):
        attempts.append(cut)
        if len(attempts) <= 3:
            raise RuntimeError("out of memory")
        return shrink(tile, cut)

    monkeypatch.setattr(main, "shrink", unwell)
    platform.send("image.uploaded", PHOTO, datacontenttype="image/jpeg")
    assert platform.events("image.resized") == []

    platform.advance(1.0)  # the first retry comes after 0.4 s

    assert len(platform.events("image.resized")) == 1
    assert len(attempts) == 64 + 3


def test_a_picture_that_can_not_be_read_becomes_a_dead_letter(platform):
    platform.send("image.uploaded", b"no picture", id="odd", datacontenttype="image/png")
    platform.advance(3600)

    [letter] = platform.dead_letters()
    assert letter.get_id() == "odd"
    assert "answered 500" in letter.get_attributes()["torporerror"]


# --- the geometry -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "longest_side"),
    [
        ((640, 480), 300),
        ((480, 641), 1000),
        ((97, 1003), 256),
        ((333, 333), 333),
        ((1, 1), 64),
        ((5, 2000), 500),
    ],
)
def test_tiles_fit_without_a_seam_in_any_order(size, longest_side):
    source = Image.effect_noise(size, 90).convert("RGB")
    whole = fit(size, longest_side)
    pieces = list(cuts(size, whole, side_of_tiles(whole, 64, 16)))
    pieces = pieces[::3] + pieces[1::3] + pieces[2::3]
    picture = Image.new("RGB", whole)
    for cut in pieces:
        picture.paste(shrink(source.crop(cut.crop), cut), cut.target)
    assert difference(picture, source.resize(whole, Image.Resampling.LANCZOS)) <= 1


@pytest.mark.parametrize("whole", [(2048, 2048), (2048, 1365), (1365, 2048), (2048, 5), (2048, 1), (64, 64)])
def test_there_are_enough_tiles_to_share_the_work(whole):
    assert len(list(cuts(whole, whole, side_of_tiles(whole, 256, 16)))) >= 16
