"""Networks written for other libraries: `install` lets them be built, `swap` makes their neurons fused ones."""

from deal_kernels.compat.installation import install
from deal_kernels.compat.report import Layer, Report
from deal_kernels.compat.swapping import swap

__all__ = ["Layer", "Report", "install", "swap"]
