"""Enhancement of files of several frames, clips and pages, one frame at a time."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import numpy

from deal.inference.enhancer import Enhancer
from deal.inference.sequence import Sequence
from deal.inference.steady_window import SteadyWindow
from deal.io.images import Frame, ImageFile, Location, UnusableImage, Window, to_frame
from deal.io.pages import Page, write_pages
from deal.io.paths import Job
from deal.io.reference import Reference
from deal.io.video import Clip, Decoded, rewrite
from deal.io.writers import Batch

Enhance = Callable[[Frame], numpy.ndarray]


def enhancement_of_frames(enhancer: Enhancer, *, sequence: bool, steady: bool) -> Enhance:
    """What enhances frame after frame: as a sequence, or each by itself, in a steady window or its own."""
    if sequence:
        return Sequence(enhancer).next_frame
    if not steady:
        return enhancer.enhance_frame
    window = SteadyWindow()
    return lambda frame: enhancer.enhance_frame(window.of(frame))


def first_of_clip(path: Location, window: Window, reference: Reference | None) -> Frame:
    """The first frame of a clip."""
    with Clip(path) as clip:
        first = next((item for item in clip.items() if isinstance(item, Decoded)), None)
    if first is None:
        raise UnusableImage(f"{path} has no frame that can be read")
    return to_frame(first.pixels, window, reference=reference, name=f"frame 1 of {path}")


def enhance_clip(batch: Batch, job: Job, enhance: Enhance, *, window: Window, reference: Reference | None) -> None:
    """Enhances a clip as one job of a batch.

    Raises:
        UnusableImage: if the clip is broken, after the frames before the fault are written.
    """
    last: list[tuple[Frame, numpy.ndarray]] = []
    with Clip(job.source) as clip, batch.frames(job, clip.expected) as bar:

        def change(pixels: numpy.ndarray) -> numpy.ndarray:
            frame = to_frame(pixels, window, reference=reference, name=f"frame {bar.n + 1} of {job.source}")
            enhanced = enhance(frame)
            last[:] = [(frame, enhanced)]
            bar.update()
            return enhanced

        count = rewrite(clip, job.target, change)
    batch.record(job, *last[0], f"{count} frames")


def enhance_pages(
    batch: Batch, job: Job, pages: Iterator[ImageFile], enhance_single: Enhance, frames: Callable[[], Enhance]
) -> None:  # fmt: skip
    """Enhances an image file as one job of a batch.

    Args:
        enhance_single: for the only page of a file.
        frames: makes what enhances the pages of a file of several.
    """
    first = next(pages)
    if first.pages == 1:
        batch.save(job, first, enhance_single(first.frame))
        return
    enhance = frames()
    enhance_first = functools.cache(lambda: enhance(first.frame))
    with batch.frames(job, first.pages) as bar:

        def enhanced() -> Iterator[Page]:
            yield Page(enhance_first(), first.metadata)
            bar.update()
            for page in pages:
                yield Page(enhance(page.frame), page.metadata)
                bar.update()

        write_pages(job.target, enhanced(), first.pages)
    batch.record(job, first.frame, enhance_first(), f"{first.pages} pages")
