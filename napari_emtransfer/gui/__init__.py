"""The window: one dock in napari. Never imports torch."""
