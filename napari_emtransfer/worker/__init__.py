"""The process boundary: requests in, events out."""
