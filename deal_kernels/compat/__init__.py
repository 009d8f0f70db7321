"""Networks written for other libraries: `install` lets them be built, `swap` makes their neurons fused ones, and
`over_time` runs networks of one step layer by layer over all steps."""

from deal_kernels.compat.installation import install
from deal_kernels.compat.loops import over_time
from deal_kernels.compat.report import Layer, Norm, Report
from deal_kernels.compat.swapping import swap

__all__ = ["Layer", "Norm", "Report", "install", "over_time", "swap"]
