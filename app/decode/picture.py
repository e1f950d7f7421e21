"""Decode one picture: from an untrusted file to the pixels of the model and a thumbnail. Runs in a decode child."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import AvifImagePlugin, Image, ImageChops, ImageCms, ImageFile
from PIL.TiffImagePlugin import PHOTOMETRIC_INTERPRETATION

from app.core.errors import ImageCorrupt, ImageTooLarge, SightlineError, from_os_error
from app.core.picture_formats import Format
from app.core.types import CameraData, Preprocessing
from app.decode.camera_data import camera_data_to_json, merge_camera_data
from app.decode.colours import find_nclx_profile
from app.decode.decoders import extract_preview, open_image
from app.decode.exif import read_camera_data, read_raw_camera_data
from app.decode.headers import PictureHeader, check_size, read_header
from app.decode.limits import PictureLimits
from app.decode.perceptual_hash import compute_perceptual_hash

Pixels = npt.NDArray[np.uint8]


class File(Protocol):
    """A Path, or a file that another process has opened."""

    @property
    def suffix(self) -> str: ...

    def open(self, mode: str, /) -> IO[Any]: ...


Size = tuple[int, int]

# libjpeg may decode a JPEG at a smaller scale, but no smaller than this many times the size that is needed. Measured on
# 0.3 to 12 megapixels: at 2 the normalised pixels of the model keep a cosine of >= 0.9997 with a full decode (0.998 to
# 0.95 at 1). JPEG quality 95 on the model's own input costs more (0.995 to 0.987).
DRAFT_MARGIN = 2.0
# By the suffix of the file. For a photograph WebP takes three times as long as to decode 640 x 480, and saves a fifth
# of the bytes; for a drawing it halves them. Method 4 takes twice the time of method 2 for 2 % fewer bytes.
THUMBNAIL_OPTIONS: dict[str, dict[str, Any]] = {
    ".jpg": {"format": "JPEG", "quality": 85},
    ".webp": {"format": "WEBP", "quality": 80, "method": 2},
}
THUMBNAIL_GAP = 1.0  # averaging for whole factors, bicubic for the rest: a seventh of the time of bicubic alone
_MAX_WHOLE_SQUARES = 16  # a strip of more squares than this is cropped before the resize
TOO_LITTLE_MEMORY = "the picture needs more memory than a decode child may have (SIGHTLINE_DECODE_MEMORY)"
WHITE = (255, 255, 255)
HEAT = (255, 110, 0)  # of a heat map where it is 1
# Whose decoders must find the size that our header check found. In the others it may be turned already, or cropped.
_EXACT = frozenset({"jpeg", "png", "webp", "gif", "bmp"})
_UPRIGHT = frozenset({"heic", "jxl"})  # whose decoders turn the picture; EXIF repeats what the file says elsewhere
_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
_ROTATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, slots=True, eq=False)
class DecodedPicture:
    """`pixels` is uint8 [size, size, 3] in sRGB; `width` and `height` are those of the upright picture.

    `perceptual_hash` is that of the thumbnail. It and `camera_data` are None if none was written.
    """

    pixels: Pixels
    width: int
    height: int
    format: Format
    animated: bool
    perceptual_hash: bytes | None = None
    camera_data: CameraData | None = None


def decode_picture(
    path: File,
    preprocessing: Preprocessing,
    limits: PictureLimits,
    thumbnail: File | None = None,
    thumbnail_size: int = 320,
) -> DecodedPicture:
    """Decode the first frame of the picture at `path`: upright, over white, in sRGB.

    Also writes a picture of at most `thumbnail_size` pixels a side to `thumbnail` (.jpg or .webp), if given.
    Raises ImageCorrupt, ImageTooLarge or UnsupportedMediaType for the picture; BlobMissing, StorageFull, ReadOnly or
    Overloaded for the disk.
    """
    with _map_decode_errors(limits) as seen, path.open("rb") as file:
        header = seen.header = read_header(file, limits)
        small = None if thumbnail is None else thumbnail_size
        upright, animated, size = _decode(file, header, preprocessing, limits, small, seen if small else None)
        pixels = np.asarray(resize_for_model(upright, preprocessing))
        hashed = None
        if thumbnail is not None:
            hashed = _write_thumbnail(upright, thumbnail, thumbnail_size)
    return DecodedPicture(pixels, *size, header.format, animated, hashed, seen.camera_data)


def hash_picture(path: File, limits: PictureLimits, thumbnail_size: int = 320) -> str:
    """The perceptual hash of the picture at `path`, or of its thumbnail, as hex digits. Raises as `decode_picture`."""
    with _map_decode_errors(limits) as seen, path.open("rb") as file:
        header = seen.header = read_header(file, limits)
        upright, _, _ = _decode(file, header, Preprocessing(1), limits, thumbnail_size)
        return compute_perceptual_hash(_make_thumbnail(upright, thumbnail_size)).hex()


def describe_picture(path: File, limits: PictureLimits) -> dict[str, Any]:
    """The camera data of the picture at `path`, as JSON has it (see `camera_data_from_json`). Raises as
    `decode_picture`."""
    with _map_decode_errors(limits) as seen, path.open("rb") as file:
        header = seen.header = read_header(file, limits)
        _decode(file, header, Preprocessing(1), limits, 1, seen)
    return camera_data_to_json(seen.camera_data or CameraData())


def read_jpeg(path: File, limits: PictureLimits, side: int) -> str:
    """The picture at `path` as the base64 of a JPEG of at most `side` pixels a side, without metadata, to be sent to
    another server. Raises as `decode_picture`."""
    with _map_decode_errors(limits) as seen, path.open("rb") as file:
        header = seen.header = read_header(file, limits)
        upright, _, _ = _decode(file, header, Preprocessing(1), limits, side)
        small, out = _make_thumbnail(upright, side), io.BytesIO()
        small.info.clear()
        small.save(out, **THUMBNAIL_OPTIONS[".jpg"])
    return base64.b64encode(out.getvalue()).decode()


def draw_heat_map(
    path: File, grid: Sequence[Sequence[float]], preprocessing: Preprocessing, limits: PictureLimits, side: int
) -> str:
    """The picture at `path` with a heat map, as the base64 of a PNG of at most `side` pixels a side.

    `grid` covers what the model sees of the picture, with 0 (cold, the picture in grey) to 1. Raises as
    `decode_picture`.
    """
    with _map_decode_errors(limits) as seen, path.open("rb") as file:
        header = seen.header = read_header(file, limits)
        upright, _, size = _decode(file, header, Preprocessing(1), limits, side)
        small, out = _make_thumbnail(upright, side), io.BytesIO()
        heat = _stretch_grid(np.asarray(grid, np.float32), find_seen_area(size, preprocessing), small.size)
        grey = np.asarray(small.convert("L").convert("RGB"), np.float32)
        warm = heat[:, :, None] * (0.6 * np.asarray(small, np.float32) + 0.4 * np.array(HEAT, np.float32))
        mixed = grey * 0.75 * (1 - heat[:, :, None]) + warm
        Image.fromarray(mixed.clip(0, 255).astype(np.uint8)).save(out, format="PNG")
    return base64.b64encode(out.getvalue()).decode()


def _stretch_grid(
    grid: npt.NDArray[np.float32], area: tuple[float, float, float, float], size: Size
) -> npt.NDArray[np.float32]:
    """The grid over its area of a picture of `size`, smoothed, 0 outside: float32 [height, width]."""
    left, top, width, height = area
    rows, columns = grid.shape
    x = ((np.arange(size[0]) + 0.5) / size[0] - left) / width * columns - 0.5
    y = ((np.arange(size[1]) + 0.5) / size[1] - top) / height * rows - 0.5
    inside = ((y > -0.5) & (y < rows - 0.5))[:, None] & ((x > -0.5) & (x < columns - 0.5))[None]
    across = np.stack([np.interp(x, np.arange(columns), row) for row in grid])
    stretched = np.stack([np.interp(y, np.arange(rows), column) for column in across.T], axis=1)
    return np.asarray(np.where(inside, stretched, 0.0), np.float32)


@dataclass(slots=True)
class _Seen:
    """What is known of a picture so far."""

    header: PictureHeader | None = None
    camera_data: CameraData | None = None


@contextmanager
def _map_decode_errors(limits: PictureLimits) -> Iterator[_Seen]:
    """Raise our errors for those of Pillow, of the decoders and of the system."""
    seen = _Seen()
    try:
        yield seen
    except SightlineError:
        raise
    except MemoryError as error:
        raise ImageTooLarge(TOO_LITTLE_MEMORY) from error
    except Image.DecompressionBombError as error:
        raise ImageTooLarge("the picture has more pixels than its header says") from error
    except OSError as error:
        if error.errno is None:  # raised by Pillow; errors of the system carry a number
            if seen.header is not None and seen.header.width * seen.header.height > limits.max_pixels:
                raise ImageTooLarge(f"{TOO_LITTLE_MEMORY}, or is damaged") from error  # libjpeg does not say which
            raise ImageCorrupt("the picture is cut off or damaged") from error
        raise from_os_error(error) from error
    except Exception as error:  # on hostile bytes decoders raise errors of any kind
        raise ImageCorrupt("the picture is damaged") from error


def harden_pillow(max_pixels: int) -> None:
    """Set the options of Pillow for this process, so that it refuses more than `max_pixels` by itself."""
    # Pillow warns above MAX_IMAGE_PIXELS and raises above twice that; its early check of WebP only raises. At half our
    # limit the error comes exactly at the limit.
    Image.MAX_IMAGE_PIXELS = (max_pixels + 1) // 2
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1


def _decode(
    file: IO[bytes],
    header: PictureHeader,
    preprocessing: Preprocessing,
    limits: PictureLimits,
    thumbnail_size: int | None,
    seen: _Seen | None = None,
) -> tuple[Image.Image, bool, Size]:
    """The upright RGB picture (perhaps scaled down), whether it is animated, and its full upright size.

    `seen` gets the camera data of a picture that is decoded for a thumbnail.
    """
    harden_pillow(limits.pixels_of(header.format))
    if header.format == "raw":
        return _decode_preview(file, preprocessing, limits, thumbnail_size, seen)
    file.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with open_image(file, header.format) as image:
            check_size(*image.size, header.format, limits)
            if header.format in _EXACT and image.size != (header.width, header.height):
                raise ImageCorrupt("the picture is not of the size that its header says")
            animated = header.animated
            if animated is None:
                animated = bool(getattr(image, "is_animated", False))  # not n_frames, which reads all frames
            turn = _read_orientation(image) if header.format == "jpeg" else 1
            size = image.size
            if header.format == "jpeg":
                image.draft(None, _draft_size(size, turn, preprocessing, thumbnail_size))
            if seen is not None and header.format != "png":  # which may store EXIF after the pixels
                seen.camera_data = read_camera_data(image)
            image.load()
            if seen is not None and header.format == "png":
                seen.camera_data = read_camera_data(image)
            if header.format != "jpeg":  # PNG may store EXIF after the pixels; TIFF and HEIC may be turned by now
                size, turn = image.size, _find_turn(image, header)
                check_size(*size, header.format, limits)
            upright = flatten_to_srgb(image)
    return _turn_upright(upright, turn), animated, size[::-1] if turn >= 5 else size


def _decode_preview(
    file: IO[bytes],
    preprocessing: Preprocessing,
    limits: PictureLimits,
    thumbnail_size: int | None,
    seen: _Seen | None = None,
) -> tuple[Image.Image, bool, Size]:
    """The preview in a RAW file, with the size of the whole picture."""
    preview = extract_preview(file)
    check_size(*preview.size, "raw", limits)
    whole = CameraData()
    if seen is not None:
        whole = seen.camera_data = read_raw_camera_data(file)
    if isinstance(preview.content, Image.Image):
        return _turn_upright(flatten_to_srgb(preview.content), preview.turn), False, preview.size
    content = io.BytesIO(preview.content)
    header = read_header(content, limits)
    if header.format != "jpeg":
        raise ImageCorrupt("the preview in the RAW file is no JPEG")
    upright, _, (width, height) = _decode(content, header, preprocessing, limits, thumbnail_size, seen)
    if seen is not None and seen.camera_data is not None:
        seen.camera_data = merge_camera_data((whole, seen.camera_data))
    if preview.turn > 1 and not _says_orientation(content):
        upright = _turn_upright(upright, preview.turn)
        width, height = (height, width) if preview.turn >= 5 else (width, height)
    return (
        upright,
        False,
        preview.size if (width >= height) == (preview.size[0] >= preview.size[1]) else (width, height),
    )


def _turn_upright(image: Image.Image, turn: int) -> Image.Image:
    return image.transpose(_ROTATIONS[turn]) if turn in _ROTATIONS else image


def _find_turn(image: Image.Image, header: PictureHeader) -> int:
    """How EXIF turns a loaded picture that its decoder has not turned; a JPEG inside JPEG XL comes as it is."""
    if header.format in _UPRIGHT and not getattr(image, "jpeg", False):
        return 1
    return _read_orientation(image)


def _says_orientation(file: IO[bytes]) -> bool:
    file.seek(0)
    with open_image(file, "jpeg") as image:
        return 0x0112 in image.getexif()


def _read_orientation(image: Image.Image) -> int:
    try:
        turn = image.getexif().get(0x0112, 1)
    except Exception:
        return 1
    return turn if isinstance(turn, int) and turn in _ROTATIONS else 1


def _draft_size(size: Size, turn: int, preprocessing: Preprocessing, thumbnail_size: int | None) -> Size:
    """The smallest size, before EXIF turns it, that is large enough for the model and the thumbnail."""
    needs = [_resized_size(size, preprocessing) if turn < 5 else _resized_size(size[::-1], preprocessing)[::-1]]
    if thumbnail_size is not None:
        needs.append(_thumbnail_size(size, thumbnail_size))
    return (
        max(1, round(DRAFT_MARGIN * max(need[0] for need in needs))),
        max(1, round(DRAFT_MARGIN * max(need[1] for need in needs))),
    )


def flatten_to_srgb(image: Image.Image) -> Image.Image:
    """Convert any loaded picture to RGB in sRGB, with white behind transparent pixels."""
    profile = _read_profile(image)
    if image.mode == "F":
        image = _convert_floats(image)
    if image.mode.startswith("I"):
        return _convert_16_bit(image)
    if image.mode == "La":
        image = image.convert("LA")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        rgb = _to_srgb(rgba.convert("RGB"), profile)
        white = Image.new("RGB", image.size, WHITE)
        white.paste(rgb, mask=rgba.getchannel("A"))
        return white
    if image.mode == "CMYK" and image.format in ("JPEG", "MPO") and "adobe" not in image.info:
        image = ImageChops.invert(image)  # Pillow inverts every CMYK JPEG, as if all were Adobe's
    if image.mode == "LAB" and profile is None:
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    if image.mode not in ("L", "RGB", "CMYK", "LAB"):
        image = image.convert("RGB")
    return _to_srgb(image, profile)


def _convert_16_bit(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    if (
        getattr(image, "tag_v2", {}).get(PHOTOMETRIC_INTERPRETATION) == 0
    ):  # white is 0, which Pillow heeds for 8 bits only
        values = 65535 - values
    grey = Image.fromarray((np.clip(values, 0, 65535).astype(np.uint16) >> 8).astype(np.uint8))
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey.paste(255, mask=Image.fromarray((values == clear).astype(np.uint8) * 255))
    return grey.convert("RGB")


def _convert_floats(image: Image.Image) -> Image.Image:
    """Grey from floating-point numbers: of 0 to 1, or of 0 to 255 if any is above 1."""
    values = np.nan_to_num(np.asarray(image), nan=0.0, posinf=0.0, neginf=0.0)
    scale = 255.0 if values.max(initial=0.0) <= 1.0 else 1.0
    return Image.fromarray(np.clip(values * scale, 0, 255).astype(np.uint8))


def _read_profile(image: Image.Image) -> ImageCms.ImageCmsProfile | None:
    """The colour profile; None if it is missing, broken, or sRGB."""
    data = image.info.get("icc_profile") or find_nclx_profile(image.info.get("nclx_profile"))
    if not isinstance(data, bytes) or len(data) < 128:
        return None
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
        return None if "srgb" in ImageCms.getProfileDescription(profile).lower() else profile
    except Exception:
        return None


def _to_srgb(image: Image.Image, profile: ImageCms.ImageCmsProfile | None) -> Image.Image:
    if profile is not None:
        try:
            out = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
            if out is not None:
                return out
        except (ImageCms.PyCMSError, ValueError, OSError):
            pass  # the profile does not fit the pixels: ignore it
    return image if image.mode == "RGB" else image.convert("RGB")  # convert() copies


def _resized_size(size: Size, preprocessing: Preprocessing) -> Size:
    """Width and height after the resize and before crop or pad, rounded as torchvision and open_clip do."""
    (width, height), side = size, preprocessing.size
    if preprocessing.resize == "squash":
        return side, side
    if preprocessing.resize == "longest":
        ratio = max(width / side, height / side)
        return max(1, round(width / ratio)), max(1, round(height / ratio))
    if width <= height:
        return side, int(side * height / width)
    return int(side * width / height), side


def resize_for_model(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """Resize an RGB picture to `size` × `size`, with the same pixels as open_clip's `image_transform`.

    Of a long strip only the part that the crop keeps is computed, so that a picture of 1 × 16,384 costs no more than a
    square one. Its pixels differ by a few levels of 255: the corners of Pillow's box are single floats.
    """
    side, filter_ = preprocessing.size, _FILTERS[preprocessing.interpolation]
    width, height = _resized_size(image.size, preprocessing)
    if preprocessing.resize == "longest":
        canvas = Image.new("RGB", (side, side), (preprocessing.fill,) * 3)
        canvas.paste(image.resize((width, height), filter_), ((side - width) // 2, (side - height) // 2))
        return canvas
    left, top = round((width - side) / 2.0), round((height - side) / 2.0)
    if width * height <= _MAX_WHOLE_SQUARES * side * side:
        return image.resize((width, height), filter_).crop((left, top, left + side, top + side))
    across, down = image.width / width, image.height / height
    box = (left * across, top * down, (left + side) * across, (top + side) * down)
    box = (box[0], box[1], min(box[2], image.width), min(box[3], image.height))
    return image.resize((side, side), filter_, box=box)


def find_seen_area(size: Size, preprocessing: Preprocessing) -> tuple[float, float, float, float]:
    """What the model sees of an upright picture: left, top, width and height, in shares of the picture's sides.

    It is larger than the picture where that is padded.
    """
    (width, height), side = _resized_size(size, preprocessing), preprocessing.size
    return (width - side) / 2 / width, (height - side) / 2 / height, side / width, side / height


def crop_padding(decoded: DecodedPicture, preprocessing: Preprocessing) -> Pixels:
    """The pixels of a picture that was decoded with the resize `longest`, without what pads them to a square."""
    side = preprocessing.size
    width, height = _resized_size((decoded.width, decoded.height), preprocessing)
    left, top = (side - width) // 2, (side - height) // 2
    return decoded.pixels[top : top + height, left : left + width]


def _thumbnail_size(size: Size, longest: int) -> Size:
    scale = min(1.0, longest / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _make_thumbnail(image: Image.Image, longest: int) -> Image.Image:
    return image.resize(_thumbnail_size(image.size, longest), Image.Resampling.BICUBIC, reducing_gap=THUMBNAIL_GAP)


def _write_thumbnail(image: Image.Image, path: File, longest: int) -> bytes:
    """Write the thumbnail; returns its perceptual hash."""
    small = _make_thumbnail(image, longest)
    small.info.clear()  # the profile is applied already, and EXIF may hold a place
    with path.open("wb") as file:
        small.save(file, **THUMBNAIL_OPTIONS[path.suffix])
    return compute_perceptual_hash(small)
