import io

import numpy as np
import pytest
from PIL import Image

from unclip.data.render import Unusable, draw, reduce, render

HEAD = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'


def svg(body: str, width: float | str = 16, height: float | str = 16, box: str = "") -> bytes:
    view = f' viewBox="{box}"' if box else ""
    return f'{HEAD} width="{width}" height="{height}"{view}>{body}</svg>'.encode()


def alpha(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture)[..., 3]


def test_aspect_is_kept_and_the_picture_centred():
    wide = draw(svg('<rect width="32" height="16" fill="red"/>', 32), 64)
    assert wide.size == (64, 64)
    rows = alpha(wide).any(axis=1)
    assert rows.sum() == 32
    assert rows[16:48].all()
    tall = draw(svg('<rect width="16" height="64" fill="red"/>', 16, 64), 64)
    assert alpha(tall).any(axis=0)[24:40].all()
    assert alpha(tall).any(axis=0).sum() == 16


def test_sizes_in_points_are_drawn():
    assert alpha(draw(svg('<rect width="99" height="99" fill="red"/>', "30pt", "30pt"), 32)).min() == 255


def test_the_small_picture_is_the_area_average_of_premultiplied_colour():
    rng = np.random.default_rng(0)
    big = rng.integers(0, 256, (32, 32, 4), dtype=np.uint8)
    small = np.asarray(reduce(Image.fromarray(big, "RGBA"), 8)).astype(float)
    exact = big.astype(float)
    exact[..., :3] *= exact[..., 3:] / 255
    exact = exact.reshape(8, 4, 8, 4, 4).mean(axis=(1, 3))
    assert np.abs(small[..., 3] - exact[..., 3]).max() <= 1
    premultiplied = small[..., :3] * small[..., 3:] / 255
    assert np.abs(premultiplied - exact[..., :3]).max() <= 2


def test_transparent_edges_do_not_darken():
    """A white disc on transparent black stays white where it fades out."""
    disc = draw(svg('<circle cx="8" cy="8" r="6" fill="#fff"/>'), 64)
    small = np.asarray(reduce(disc, 16))
    edge = small[(small[..., 3] > 20) & (small[..., 3] < 250)]
    assert len(edge)
    assert edge[:, :3].min() >= 250


def test_a_bitmap_is_not_enlarged():
    data = io.BytesIO()
    Image.new("RGB", (64, 48), "red").save(data, "PNG")
    assert list(render(data.getvalue(), False, (16, 64, 256)).images) == [16, 64]
    assert list(render(data.getvalue(), False, (128, 256)).images) == [128]  # rather than none
    assert list(render(svg('<rect width="9" height="9" fill="red"/>'), False, (16, 1024)).images) == [16, 1024]


def test_all_sizes_come_from_one_drawing():
    drawn = render(svg('<circle cx="8" cy="8" r="6" fill="#36c"/>'), False, (16, 64))
    assert not drawn.reason
    sizes = {size: Image.open(io.BytesIO(data)) for size, data in drawn.images.items()}
    assert {size: picture.size for size, picture in sizes.items()} == {16: (16, 16), 64: (64, 64)}
    assert all(picture.format == "WEBP" and picture.mode == "RGBA" for picture in sizes.values())
    exact = reduce(draw(svg('<circle cx="8" cy="8" r="6" fill="#36c"/>'), 64), 16)
    assert np.array_equal(alpha(sizes[16].convert("RGBA")), alpha(exact))  # alpha is stored without loss


def test_the_hash_tells_pixels_apart_not_files():
    one = render(svg('<rect width="9" height="9" fill="red"/>'), False, (16,))
    same = render(svg('<g><rect width="9" height="9" fill="#f00"/></g>'), False, (16,))
    other = render(svg('<rect width="9" height="9" fill="#e00"/>'), False, (16,))
    assert one.pixels == same.pixels != other.pixels


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"<svg", "does not render"),
        (b"neither SVG nor bitmap", "does not render"),
        (b"", "does not render"),
        (b"RIFF\x10\0\0\0WEBPVP8 \0", "does not render"),
        (b"<svg \xff\xfe", "does not render"),
        (svg(""), "blank, or white on white"),
        (svg('<rect width="16" height="16" fill="white"/>'), "blank, or white on white"),
        (svg('<image xlink:href="file:///etc/x.png" width="9" height="9"/>'), "needs a file outside the SVG"),
        (svg('<text y="9">words</text>'), "needs a font"),
        (svg('<text y="9"><tspan>words</tspan></text>'), "needs a font"),
    ],
)
def test_what_cannot_be_used_has_a_reason(data, reason):
    drawn = render(data, False, (16,))
    assert drawn.images == {}
    assert drawn.reason == reason


def test_a_text_element_without_text_does_no_harm():
    body = '<text y="9"><tspan/> </text><flowRoot/><rect width="9" height="9" fill="red"/><title>words</title>'
    assert not render(svg(body), False, (16,)).reason


def test_files_outside_are_never_opened(tmp_path):
    Image.new("RGB", (8, 8), "red").save(tmp_path / "x.png")
    with pytest.raises(Unusable):
        draw(svg(f'<image width="9" height="9" href="{tmp_path / "x.png"}"/>'), 16)


def test_a_small_drawing_on_a_large_page_is_brought_close():
    body = '<rect x="80" y="10" width="10" height="5" fill="red"/>'
    far, near = draw(svg(body, 100, 100), 64), draw(svg(body, 100, 100), 64, trim=True)
    assert alpha(far).any(axis=0).sum() < 10
    columns, rows = alpha(near).any(axis=0), alpha(near).any(axis=1)
    assert 36 <= columns.sum() <= 62  # six times larger at most
    assert abs(np.flatnonzero(columns).mean() - 31.5) <= 1
    assert abs(np.flatnonzero(rows).mean() - 31.5) <= 1
    assert columns.sum() == pytest.approx(2 * rows.sum(), abs=2)


def test_a_drawing_that_fills_its_page_is_left_as_it_is():
    body = svg('<rect x="10" y="10" width="80" height="80" fill="red"/>', 100, 100)
    assert draw(body, 64, trim=True).tobytes() == draw(body, 64).tobytes()


def test_bitmaps_are_resized():
    buffer = io.BytesIO()
    Image.new("RGBA", (32, 16), (255, 0, 0, 255)).save(buffer, "PNG")
    for size in (8, 64):
        picture = draw(buffer.getvalue(), size)
        assert picture.size == (size, size)
        assert alpha(picture).any(axis=1).sum() == size // 2
