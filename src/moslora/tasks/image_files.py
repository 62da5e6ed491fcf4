"""Which image files are opened. Others that Pillow knows run programs (EPS), or are no pictures of a data set."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
