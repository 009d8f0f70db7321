"""Mixtures of image degradations: a weighted sum of blurred, striped, posterized ... images, stage after stage.

One call takes all samples of a batch through all stages. An operation is a name, its strength after an underscore:

* identity;
* contrast_R, saturation_R, sharpness_R: clamp(R x + (1 - R) y) to [0, 1], where y is the mean of the grey image, the
  grey image, or the image under a 3 x 3 filter. R is 0 or more. saturation leaves images of one channel as they are;
* gaussian_blur_S: 9 x 9 taps of deviation S pixels, the image reflected at its edges; gaussian_blur takes a deviation
  for each sample and stage; wide_blur too, with 19 x 19 taps, for deviations of up to 3 pixels;
* max_pool_resize_K, average_pool_resize_K, bicubic_resize_K: down by the whole factor K, and up again bilinearly;
* coarse_K: down and up bicubically with antialiasing, as Pillow and MATLAB do. It has no kernels: a mixture with it
  runs in plain torch;
* posterize_B: clamped to [0, 1], and of 8 bits the B highest. Its gradient is zero unless `straight_through` is set;
* quantise_B: clamped to [0, 1] and rounded to the nearest of 2^B levels, with the gradient of the clamp; clip: clamped
  to [0, 1];
* stripe, row_stripe: adds a value to each column or row; partial_stripe: adds a value to each column between two rows;
  gain, row_gain: multiplies each column or row by a factor; tone: multiplies the image by a factor and adds a value;
  noise: adds a value to each pixel; dead: replaces pixels by values;
* glow: adds a n + b (1 - n) with n = cos(p pi / 2)^4, where p is the distance to a point over the largest distance in
  the image; shading: adds a sum of 4 x 4 products of cosines, the slowest ones of the image.

>>> import torch
>>> from deal_kernels.degradation import DEAL_OPS, mixture, sample_params
>>> x = torch.rand(2, 1, 48, 64)  # [B, C, H, W]
>>> weights = torch.rand(2, 5, len(DEAL_OPS)).softmax(-1)  # [B, S, N]
>>> mixture(x, weights, DEAL_OPS, sample_params(DEAL_OPS, x, stages=5)).shape
torch.Size([2, 1, 48, 64])
"""

from deal_kernels.degradation.functional import apply, mixture
from deal_kernels.degradation.modules import Mixture
from deal_kernels.degradation.names import DEAL_OPS, OPERATIONS
from deal_kernels.degradation.sampling import sample_params

__all__ = ["DEAL_OPS", "OPERATIONS", "Mixture", "apply", "mixture", "sample_params"]
