"""Classical enhancement methods, as functions of images [B, C, H, W] in [0, 1].

Stripes are vertical, and every channel is processed separately. Values are not clamped, except by `clahe`.

Default parameters give the best mean PSNR over additive stripes N(0, s^2) and gains N(1, s^2), s = 0.05 and 0.1, for
`clahe` over contrasts of 0.7 and 0.5, and for `nl_means` over noise of 0.03 and 0.05. They were chosen on central crops
of 256 x 320 pixels of 20 images of RoadScene (5 for the methods of other packages) and 6 of M2VD, both sets with equal
weight, which no network is trained on. Decibels in the docstrings refer to this mean.
"""
