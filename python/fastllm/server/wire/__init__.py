"""Requests as they come over the wire, as pydantic models. A field that is not here is refused."""
