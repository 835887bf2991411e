"""A running server in front of which every captured exchange is replayed; see `tests/golden/test_http_examples.py`."""
