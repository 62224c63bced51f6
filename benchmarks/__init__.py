"""One module per headline figure; each prints one JSON object on its last line."""
