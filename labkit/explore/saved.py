"""What a notebook keeps of a widget when JupyterLab saves it: the still picture, with its words."""

from __future__ import annotations

from typing import Any

VIEW = "application/vnd.jupyter.widget-view+json"


def keep_stills(model: dict[str, Any], **_: Any) -> None:
    """Take the live view out of outputs that have a picture beside it; Jupyter Server's `pre_save_hook`.

    A view is nothing once its kernel is gone, yet it is preferred: a notebook opened the next day shows an
    error where the picture was, and nbconvert, where the widgets' state was saved, too, a blank.
    """
    if model.get("type") != "notebook":
        return
    for cell in (model.get("content") or {}).get("cells", ()):
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if VIEW in data and "text/html" in data:
                del data[VIEW]
