"""The application without a window: evented state, commands, and nothing of Qt or napari."""
