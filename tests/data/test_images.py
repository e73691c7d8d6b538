"""jt_nanodet.data.images: files that are not pictures, or not whole ones."""

import pickle

import cv2
import numpy as np
import pytest

from jt_nanodet.data.images import UnreadableImage, image_size, list_images, read_image
from jt_nanodet.errors import UserError

PICTURE = np.random.RandomState(0).randint(0, 256, (40, 56, 3)).astype(np.uint8)


@pytest.fixture(params=[".jpg", ".png", ".bmp"])
def path(request, tmp_path):
    file = tmp_path / f"a{request.param}"
    assert cv2.imwrite(str(file), PICTURE)
    return file


def test_reads_as_opencv_does_and_knows_the_size(path):
    assert np.array_equal(read_image(path), cv2.imread(str(path)))
    assert image_size(path) == (56, 40)


def test_progressive_jpeg(tmp_path):
    file = str(tmp_path / "a.jpg")
    cv2.imwrite(file, PICTURE, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])
    assert read_image(file).shape == PICTURE.shape and image_size(file) == (56, 40)


@pytest.mark.parametrize("ending", [".jpg", ".png"])
@pytest.mark.parametrize("part", [0.02, 0.3, 0.99])
def test_cut_short(tmp_path, ending, part):
    file = tmp_path / f"a{ending}"
    cv2.imwrite(str(file), PICTURE)
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(UnreadableImage, match=f"a{ending}"):
        read_image(file)


def test_jpeg_with_a_thumbnail_that_ends_is_still_cut_short(tmp_path):
    whole = cv2.imencode(".jpg", PICTURE)[1].tobytes()
    thumbnail = b"\xff\xe1" + (2 + len(whole)).to_bytes(2, "big") + whole  # its end marker lies before the first scan
    file = tmp_path / "a.jpg"
    file.write_bytes(whole[:2] + thumbnail + whole[2:])
    assert np.array_equal(read_image(file), cv2.imdecode(np.frombuffer(whole, np.uint8), 1))
    file.write_bytes((whole[:2] + thumbnail + whole[2:])[:-200])
    with pytest.raises(UnreadableImage, match="cut short"):
        read_image(file)


def test_bytes_after_the_end_do_no_harm(tmp_path):
    file = tmp_path / "a.jpg"
    file.write_bytes(cv2.imencode(".jpg", PICTURE)[1].tobytes() + b"moving picture" * 1000)
    assert read_image(file).shape == PICTURE.shape


@pytest.mark.parametrize("data,words", [(b"", "empty"), (b"not a picture", "not a picture"), (None, "no such file")])
def test_unreadable_is_named_and_says_what_to_do(tmp_path, data, words):
    file = tmp_path / "a.jpg"
    if data is not None:
        file.write_bytes(data)
    with pytest.raises(UnreadableImage) as caught:
        read_image(file)
    assert (
        str(file) in str(caught.value)
        and words in str(caught.value)
        and str(caught.value).endswith("replace or remove it")
    )
    assert isinstance(caught.value, UserError)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.path, again.reason, str(again)) == (caught.value.path, caught.value.reason, str(caught.value))


def test_listing_a_folder(tmp_path):
    for name in ("b.PNG", "a.jpg", "notes.txt", ".hidden.jpg"):
        (tmp_path / name).write_bytes(b"")
    assert list_images(tmp_path) == [str(tmp_path / "a.jpg"), str(tmp_path / "b.PNG")]
    (tmp_path / "empty").mkdir()
    for folder, words in (
        (tmp_path / "empty", "holds no image"),
        (tmp_path / "none", "no such folder"),
        (tmp_path / "a.jpg", "is a file"),
    ):
        with pytest.raises(UserError, match=words):
            list_images(folder)
