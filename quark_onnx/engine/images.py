"""Image files as model inputs: decode, fit to the model's size, normalise. The only home of PIL.

value = (pixel · scale − mean) / std        per channel, in float32; pixel is 0 … 255

Images are what a browser shows on a white page: turned as their EXIF says, white where they are transparent, 16 bits
brought to 8. Profiles of colors are not applied.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from quark_onnx.core.errors import ConfigError, DataError, nearest, reading
from quark_onnx.core.resource_faults import let_out

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp"})

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "MPO", "WEBP")
"""What the content may be, whatever the file is called. Others PIL hands to programs, such as PostScript."""

Shape = tuple[int | None, ...]
Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class ImageOptions:
    """How an image becomes an input; the defaults give RGB in [0, 1] at the size the model fixes.

    size    (height, width); None: the height and width of the model's input, which must then be fixed
    layout  "NCHW" or "NHWC"; None: told from where the model's input has its 3 (color "L": 1) channels
    mean, std  one number, or one per channel in the order of `color`, in units of pixel · scale
    scale   multiplies the pixel first; 1 keeps 0 … 255
    color   "RGB", "BGR" or "L" (grey, one channel)
    crop    "resize": squeeze the whole image to `size`; "center_crop": resize the short side, keep the center

    An integer input takes the bare pixels; asking for mean, std or scale there is a DataError when the data is opened.
    Raises ConfigError for a value outside of these.
    """

    size: tuple[int, int] | None = None
    layout: str | None = None
    mean: float | Sequence[float] = 0.0
    std: float | Sequence[float] = 1.0
    scale: float = 1 / 255
    color: str = "RGB"
    crop: str = "resize"

    def __post_init__(self) -> None:
        _choose("color", self.color, ("RGB", "BGR", "L"))
        _choose("crop", self.crop, ("resize", "center_crop"))
        if self.layout is not None:
            _choose("layout", self.layout, ("NCHW", "NHWC"))
        if self.size is not None and (len(self.size) != 2 or min(self.size) < 1):
            raise ConfigError(f"image option size is {self.size!r}; give (height, width) in pixels")
        for option in ("mean", "std"):
            count = np.size(getattr(self, option))
            if count not in (1, self.channels):
                raise ConfigError(
                    f"image option {option} has {count} numbers; give one, or {self.channels} for color {self.color!r}"
                )
        if not np.all(self.std):
            raise ConfigError("image option std contains 0, which would divide by zero; give positive numbers")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ImageOptions:
        """Options by name, as JSON or a command line gives them; an unknown name is a ConfigError."""
        known = [field.name for field in fields(cls)]
        for key in values:
            if key not in known:
                raise ConfigError(f"unknown image option {key!r}{nearest(key, known)}")
        return cls(**values)

    @property
    def channels(self) -> int:
        return 1 if self.color == "L" else 3

    @property
    def normalises(self) -> bool:
        """Whether mean, std or scale differ from their defaults."""
        return bool(np.any(self.mean) or np.any(np.asarray(self.std) != 1.0) or self.scale not in (1, 1 / 255))


def image_loader(
    name: str, shape: Shape | None, dtype: np.dtype[Any], options: ImageOptions
) -> Callable[[Path], Array]:
    """A function that turns an image file into an array for the input `name` of this shape and type.

    The array is (1, C, H, W) or (1, H, W, C); without the leading 1 for a model input of rank 3.
    Raises DataError here when the images cannot fit the input or PIL is absent, and when called for a broken file.
    """
    if shape is not None and len(shape) not in (3, 4):
        raise DataError(f"input {name!r} has {len(shape)} dimensions, images need 4 (or 3); pass arrays instead")
    if not np.can_cast(np.uint8, dtype):
        raise DataError(f"input {name!r} is {dtype}, which does not hold pixels; pass arrays of that type instead")
    if dtype.kind in "iu" and options.normalises:
        raise DataError(f"input {name!r} is {dtype} and takes bare pixels; leave mean, std and scale at their defaults")
    layout = options.layout or _infer_layout(name, shape, options)
    size = options.size or _infer_size(name, shape, layout)
    _import_pil()

    def load(file: Path) -> Array:
        pixels = _decode(file, size, options)
        values = pixels if dtype.kind in "iu" else _normalise(pixels, options)
        ordered = values.transpose(2, 0, 1) if layout == "NCHW" else values
        return np.ascontiguousarray(ordered if shape and len(shape) == 3 else ordered[None], dtype)

    return load


def _choose(option: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(f"image option {option} is {value!r}{nearest(str(value), known)}")


def _infer_layout(name: str, shape: Shape | None, options: ImageOptions) -> str:
    """Channels are the axis with as many entries as the color has; neither or both: ask the user."""
    first, last = (shape[-3] == options.channels, shape[-1] == options.channels) if shape else (False, False)
    if first == last:
        raise DataError(
            f"cannot tell where input {name!r} of shape {shape} has the {options.channels} channels of "
            f"color {options.color!r}; pass ImageOptions(layout='NCHW' or 'NHWC', color='RGB', 'BGR' or 'L')"
        )
    return "NCHW" if first else "NHWC"


def _infer_size(name: str, shape: Shape | None, layout: str) -> tuple[int, int]:
    height, width = (shape[-2:] if layout == "NCHW" else shape[-3:-1]) if shape else (None, None)
    if height is None or width is None:
        raise DataError(f"input {name!r} does not fix the image size; pass ImageOptions(size=(height, width))")
    return height, width


def _import_pil() -> tuple[Any, Any]:
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise DataError("reading images needs Pillow; run: pip install 'quark-onnx[images]'") from error
    return Image, ImageOps


def _decode(file: Path, size: tuple[int, int], options: ImageOptions) -> Array:
    """The fitted pixels, (H, W, C) uint8, channels in the order of `options.color`."""
    image_module, image_ops = _import_pil()
    height, width = size
    bilinear = image_module.Resampling.BILINEAR
    with reading(f"the image {file}", DataError, "remove it or save it again"), warnings.catch_warnings():
        warnings.simplefilter("error", image_module.DecompressionBombWarning)
        try:
            with image_module.open(file, formats=FORMATS) as opened:
                image = _as_shown(opened, file).convert("L" if options.color == "L" else "RGB")
        except (image_module.DecompressionBombError, image_module.DecompressionBombWarning) as error:
            raise DataError(
                f"the image {file} has more than {image_module.MAX_IMAGE_PIXELS:,} pixels, and is not decoded: scale "
                "it down, or raise PIL.Image.MAX_IMAGE_PIXELS where you trust your files"
            ) from error
    if options.crop == "center_crop":
        fitted = image_ops.fit(image, (width, height), method=bilinear)
    else:
        fitted = image.resize((width, height), resample=bilinear)
    pixels = np.asarray(fitted, np.uint8).reshape(height, width, options.channels)
    return pixels[..., ::-1] if options.color == "BGR" else pixels


def _as_shown(image: Any, file: Path) -> Any:
    """The image upright, opaque, and of 8 bits."""
    image_module, image_ops = _import_pil()
    try:
        image = image_ops.exif_transpose(image)
    except Exception as error:  # whoever cannot read the EXIF shows the image as it lies
        let_out(error)
    if image.mode == "F":
        raise DataError(f"the image {file} holds floats, of which nobody knows what is white; save it as .npy")
    if image.mode.startswith("I"):
        image = _of_16_bits(image, file)
    if not image.has_transparency_data:
        return image
    layer = image.convert("RGBA")
    return image_module.alpha_composite(image_module.new("RGBA", layer.size, "white"), layer)


def _of_16_bits(image: Any, file: Path) -> Any:
    """A grey image in 8 bits: 65535 is white. PIL would clip it at 255."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise DataError(f"the image {file} holds {values.min()} … {values.max()}, not 0 … 65535; save it as .npy")
    pixels = ((values * 255 + 32767) // 65535).astype(np.uint8)
    pixels[values == image.info.get("transparency", -1)] = 255
    return _import_pil()[0].fromarray(pixels)


def _normalise(pixels: Array, options: ImageOptions) -> Array:
    scaled = pixels.astype(np.float32) * np.float32(options.scale)
    return (scaled - np.asarray(options.mean, np.float32)) / np.asarray(options.std, np.float32)
