"""A notebook's bytes (stdin) to {"cells": [{id, type, source, exercise, role}]} or {"error": ...} (stdout).

Runs by itself in a process with limits, and uses the standard library alone: whatever a file does to a
parser, it does it here.
"""

import json
import sys

BYTES, CELLS, DEPTH, SOURCE = 5 << 20, 2_000, 64, 200_000


def parse(data: bytes) -> list:
    if not data.strip():
        raise ValueError("the file is empty")
    if len(data) > BYTES:
        raise ValueError(f"the file is larger than {BYTES >> 20} MB: clear its outputs and hand it in again")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(f"not a valid notebook: line {line} is not UTF-8 text") from None
    if "\n<<<<<<< " in text and "\n>>>>>>> " in text:
        line = text[: text.index("\n<<<<<<< ")].count("\n") + 2
        raise ValueError(f"not a valid notebook: line {line} holds the marks of an unfinished merge")
    try:
        notebook = json.loads(text)
    except RecursionError:
        raise ValueError("not a valid notebook: it is nested too deep") from None
    except ValueError as error:
        raise ValueError(f"not a valid notebook: line {getattr(error, 'lineno', 1)} is not JSON") from None
    if deep(notebook):
        raise ValueError("not a valid notebook: it is nested too deep")
    if not isinstance(notebook, dict):
        raise ValueError("not a valid notebook: it holds no cells")
    version = notebook.get("nbformat")
    if version not in (3, 4) or isinstance(version, bool):
        raise ValueError("not a notebook of format 3 or 4: save it with a current Jupyter")
    cells = notebook.get("cells")
    if version == 3:
        sheets = notebook.get("worksheets")
        cells = (
            sheets[0].get("cells")
            if isinstance(sheets, list) and sheets and isinstance(sheets[0], dict)
            else None
        )
    if not isinstance(cells, list):
        raise ValueError("not a valid notebook: it holds no list of cells")
    if len(cells) > CELLS:
        raise ValueError(f"it has more than {CELLS} cells")
    return [plain(cell, number) for number, cell in enumerate(cells, start=1)]


def plain(cell, number: int) -> dict:
    if not isinstance(cell, dict):
        raise ValueError(f"not a valid notebook: cell {number} is no cell")
    source = cell.get("source", cell.get("input"))
    if isinstance(source, list) and all(isinstance(line, str) for line in source):
        source = "".join(source)
    if not isinstance(source, str):
        raise ValueError(f"not a valid notebook: cell {number} has no text")
    if len(source) > SOURCE:
        raise ValueError(f"cell {number} is longer than {SOURCE} signs")
    metadata = cell.get("metadata")
    mark = metadata.get("labkit") if isinstance(metadata, dict) else None
    mark = mark if isinstance(mark, dict) else {}
    return {
        "id": word(cell.get("id")),
        "type": "code" if cell.get("cell_type") == "code" else "text",
        "source": source.encode("utf-8", "replace").decode().replace("\0", "\\0").replace("\r\n", "\n"),
        "exercise": word(mark.get("exercise")),
        "role": word(mark.get("role")),
    }


def word(value) -> str:
    return value[:100].encode("utf-8", "replace").decode() if isinstance(value, str) else ""


def deep(value) -> bool:
    level = [value]
    for _ in range(DEPTH):
        level = [
            part
            for item in level
            if isinstance(item, (dict, list))
            for part in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return False
    return True


def limit() -> None:
    """Memory, time and file size. Windows has no such limits: there a student looks at their own file."""
    if sys.platform == "win32":
        return
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
    resource.setrlimit(resource.RLIMIT_CPU, (10, 10))
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 20, 64 << 20))


def main() -> None:
    limit()
    try:
        found = {"cells": parse(sys.stdin.buffer.read(BYTES + 1))}
    except ValueError as error:
        found = {"error": str(error)}
    except (MemoryError, RecursionError):
        found = {"error": "not a valid notebook: it cannot be read within the limits"}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
