"""A page and an HTTP endpoint that restore images, for one machine."""
