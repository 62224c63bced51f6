"""Honest measurement: confusion matrices, IoU and their intervals. numpy only."""
