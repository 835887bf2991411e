"""SQL introspection (http-api §4): `POST /query` over the tables of `tables`, run by DataFusion.

Rules: the engine lives in a process of its own (`worker`), because a statement of one line can exhaust memory or never end, and that
must cost neither the server nor what it serves; the server (`engine`) only fetches the rows a plan asks for and passes bytes on.
"""
