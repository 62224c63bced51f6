"""The library: all science, no window, no processes."""
