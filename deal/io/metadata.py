"""The metadata of image files: EXIF with GPS, TIFF tags, colour profile, resolution and texts."""

from __future__ import annotations

from typing import Any, NamedTuple

from PIL import ExifTags, Image, PngImagePlugin, TiffImagePlugin, TiffTags

LOSSLESS = ("raw", "packbits", "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate", "zstd", "lzma")
# Tags that describe how pixels are stored. The writer of the new file sets them itself.
STORAGE_TAGS = {
    *range(254, 260), 262, 263, 264, 265, 266, 273, *range(277, 282), 284, 290, 291, 292, 293, 301, 317, 318, 319, 320,
    *range(322, 326), 330, 332, 333, 334, 336, 338, 339, 340, 341, 347, *range(512, 522), 529, 530, 531, 532, 34675,
}  # fmt: skip
EXIF_GROUPS = (int(ExifTags.IFD.Exif), int(ExifTags.IFD.GPSInfo))
Tags = TiffImagePlugin.ImageFileDirectory_v2


class Metadata(NamedTuple):
    """The metadata of one image file. Data that a camera stores beside the image, such as raw data, is not included."""

    info: dict[Any, Any]  # Pillow's description of the file
    exif: Image.Exif
    tiff_tags: Tags | None  # of a TIFF file
    texts: dict[str, str]  # of a PNG file


def read_metadata(image: Image.Image) -> Metadata:
    """The metadata of an open image, to be read before its pixels."""
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else None
    exif = image.getexif()
    texts = image.text if isinstance(image, PngImagePlugin.PngImageFile) else {}
    return Metadata(image.info, exif, tags, {name: str(text) for name, text in texts.items()})


def save_options(metadata: Metadata, kind: str) -> dict[str, Any]:
    """The options of Pillow's `save` that write the metadata to a PNG, TIFF, JPEG or BMP file."""
    info, exif = metadata.info, metadata.exif
    options = {name: info[name] for name in ("dpi", "icc_profile") if info.get(name)}
    if kind == "BMP":
        return {name: value for name, value in options.items() if name == "dpi"}
    groups = {tag: dict(exif.get_ifd(tag)) for tag in EXIF_GROUPS if exif.get_ifd(tag)}
    dropped = STORAGE_TAGS
    if metadata.tiff_tags is not None:
        dropped = STORAGE_TAGS | {ExifTags.Base.Orientation}  # Pillow rotates the pixels of a TIFF when it reads them
    if kind == "TIFF":
        if not groups:  # Pillow cannot write EXIF groups and compressed pixels to one file
            compression = info.get("compression")
            options["compression"] = compression if compression in LOSSLESS else "tiff_adobe_deflate"
        return {**options, "tiffinfo": _tags(metadata, groups, dropped)}
    for tag in dropped.intersection(exif):
        del exif[tag]
    if len(exif) or groups:
        options["exif"] = exif.tobytes()
    if kind == "PNG" and metadata.texts:
        options["pnginfo"] = _png_texts(metadata.texts)
    elif kind == "JPEG" and "comment" in info:
        options["comment"] = info["comment"]
    return options


def _tags(metadata: Metadata, groups: dict[int, dict[int, Any]], dropped: set[int]) -> Tags:
    kept, source = Tags(), metadata.exif if metadata.tiff_tags is None else metadata.tiff_tags
    for tag in source:
        if tag not in dropped and tag not in TiffTags.TAGS_V2_GROUPS:
            if isinstance(source, Tags):
                kept.tagtype[tag] = source.tagtype[tag]
            kept[tag] = source[tag]
    for tag, group in groups.items():
        kept[tag] = group
    return kept


def _png_texts(texts: dict[str, str]) -> PngImagePlugin.PngInfo:
    kept = PngImagePlugin.PngInfo()
    for name, text in texts.items():
        kept.add_itxt(name, text)
    return kept
