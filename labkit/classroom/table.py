"""A CSV file of somebody else's in which single cells are changed and every other byte stays as it is."""

from __future__ import annotations

import re

DECIMAL_COMMA = re.compile(r"-?\d+(?:[.\s]\d{3})*,\d{1,2}")  # \s: also the narrow spaces of French
DECIMAL_POINT = re.compile(r"-?\d+(?:[,\s]\d{3})*\.\d{1,2}")


def number(text: str, comma: bool = False) -> float | None:
    """A number as a platform writes it, to two decimals: 6.00, 1,234.50, or 6,00 and 1.234,50; else None.

    `comma`: where a single sign before three digits could be either, a comma is the decimal one.
    """
    text = re.sub(r"\s", "", text)
    if DECIMAL_COMMA.fullmatch(text) or (comma and re.fullmatch(r"-?\d+,\d+|-?\d+(?:\.\d{3})+", text)):
        text = text.replace(".", "").replace(",", ".")
    elif re.fullmatch(r"-?\d{1,3}(?:,\d{3})+(?:\.\d*)?", text):
        text = text.replace(",", "")
    return round(float(text), 2) if re.fullmatch(r"-?(?:\d+\.?\d*|\.\d+)", text, re.ASCII) else None


class Table:
    """The rows of a CSV file; `cell` and `put` read and write one cell, `data` is the whole file again.

    The delimiter, a comma, semicolon or tab, is the one after the first cell. ValueError when the file is
    not text.
    """

    def __init__(self, data: bytes):
        if b"\0" in data:
            raise ValueError("it is no CSV file in UTF-8: export it again, and save it as CSV (UTF-8)")
        text = data.decode(
            "utf-8", "surrogateescape"
        )  # whatever its letters are, they come out as they went in
        self.mark = "\ufeff" if text.startswith("\ufeff") else ""
        text = text.removeprefix("\ufeff")
        first = re.match(r'(?:"[^"]*(?:""[^"]*)*")?[^,;\t\r\n]*([,;\t])', text)
        self.delimiter = first[1] if first else ","
        self.rows: list[list[str]] = [[]]  # each cell as it stands in the file, quotes and all
        self.ends: list[str] = []
        outside = rf"[^{self.delimiter}\r\n]*"
        cells = re.compile(rf'("[^"]*(?:""[^"]*)*"{outside}|{outside})({self.delimiter}|\r\n|\n|\r|\Z)')
        place = 0
        while place < len(text):
            found = cells.match(text, place)
            place = found.end()
            self.rows[-1].append(found[1])
            if found[2] != self.delimiter:
                self.ends.append(found[2])
                self.rows.append([])
            elif place == len(text):
                self.rows[-1].append("")
        self.rows = self.rows[: len(self.ends)] + [row for row in self.rows[len(self.ends) :] if row]
        self.ends += [""] * (len(self.rows) - len(self.ends))

    def cell(self, row: int, column: int) -> str:
        """What a spreadsheet would show, without spaces around it; empty where a row is too short."""
        raw = self.rows[row][column] if column < len(self.rows[row]) else ""
        if raw.startswith('"') and raw.rstrip().endswith('"') and len(raw.rstrip()) > 1:
            raw = raw.rstrip()[1:-1].replace('""', '"')
        return raw.strip()

    def put(self, row: int, column: int, value: str) -> None:
        """Set a cell, quoted where its value or the cell before it needs that."""
        cells = self.rows[row]
        cells += [""] * (column + 1 - len(cells))
        quoted = cells[column].startswith('"') or re.search(rf'["\r\n{self.delimiter}]', value)
        cells[column] = '"{}"'.format(value.replace('"', '""')) if quoted else value

    def header(self) -> list[str]:
        return [self.cell(0, column) for column in range(len(self.rows[0]))] if self.rows else []

    def data(self) -> bytes:
        lines = (self.delimiter.join(row) + end for row, end in zip(self.rows, self.ends, strict=True))
        return (self.mark + "".join(lines)).encode("utf-8", "surrogateescape")
