"""Native code behind the library's own functions; the generic bodies there are what it is tested against."""

__all__: list[str] = []
