"""Reads a report as a browser does."""

import base64
from html.parser import HTMLParser


class Page(HTMLParser):
    """A page's tags, its text, and the table cells that name their metric."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.cells, self.text, self._metric = [], {}, "", None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._metric = dict(attrs).get("data-metric")

    def handle_data(self, data):
        self.text += data
        if self._metric:
            self.cells[self._metric] = data
            self._metric = None

    def addresses(self) -> list[str]:
        """Everything that the page would load or leads to."""
        return [attrs[name] for _, attrs in self.tags for name in ("src", "href", "srcset", "action") if name in attrs]

    def images(self) -> list[bytes]:
        return [base64.b64decode(attrs["src"].partition("base64,")[2]) for tag, attrs in self.tags if tag == "img"]
