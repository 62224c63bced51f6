"""Transfer-learning segmentation of electron micrographs, in napari and on the command line."""

from importlib.metadata import version

__version__ = version("napari-emtransfer")
