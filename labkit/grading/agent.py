"""In the jailed kernel: call the student's function on inputs that were sent in, and show what came back.

The student's code lives in the same process and may tamper with all of this. It gains nothing: what is shown
counts only when the values in it are right, and those are computed elsewhere.
"""

from __future__ import annotations

import json
import random
from typing import Any

MIME = "application/vnd.labkit.evidence+json"
HANDLES: list[Any] = []  # callables that the trusted process may call again


def reply(nonce: str, text: str) -> None:
    """Answer one request: {"expression" or "handle", "exercise", "seed", "value", "inputs"}."""
    from IPython import get_ipython

    try:
        answer = _answer(json.loads(text), get_ipython().user_ns)
    except MemoryError:
        answer = {"status": "raised", "ename": "MemoryError", "evalue": "", "line": ""}
    data = {MIME: json.dumps({"nonce": nonce, **answer})}
    get_ipython().display_pub.publish(data=data, metadata={})


def _answer(request: dict, space: dict) -> dict:
    import numpy as np
    import torch
    from codec import BadValue, Decoder, Encoder

    objects: dict[int, Any] = {}
    parameters: dict[str, Any] = {}
    inputs = Decoder(objects, trusted=False).value(request["inputs"])
    random.seed(request["seed"])
    np.random.seed(request["seed"])
    torch.default_generator.manual_seed(request["seed"])
    try:
        with torch.enable_grad():  # as the notebook's own check does, whatever a cell has set
            if "handle" in request:
                called = HANDLES[request["handle"]]
                output = called(*inputs)
                parameters = dict(called.named_parameters()) if isinstance(called, torch.nn.Module) else {}
            else:
                given = eval(request["expression"], space)
                output = given if request["value"] and not hasattr(given, "__code__") else given(*inputs)
    except NotImplementedError as error:
        stub = str(error) in ("", request["exercise"])
        return {"status": "stub"} if stub else _raised(error)
    except (Exception, SystemExit) as error:
        return _raised(error)
    encoder, nodes = Encoder(objects, _offer, parameters), {}
    for part, value, verb in (("output", output, "returned"), ("inputs", inputs, "left its inputs as")):
        try:
            nodes[part] = encoder.node(value)
        except BadValue as error:
            return {"status": "unfit", "why": f"it {verb} {error}"}
        except Exception as error:  # a class of the student's that breaks when it is looked at
            kind = type(value).__name__[:80]
            return {
                "status": "unfit",
                "why": f"it {verb} a {kind} that cannot be read ({type(error).__name__})",
            }
    return {"status": "returned", **nodes}


def _raised(error: BaseException) -> dict:
    trace, line = error.__traceback__, 0
    while trace:
        if (
            "ipykernel" in trace.tb_frame.f_code.co_filename
            or "ipython-input" in trace.tb_frame.f_code.co_filename
        ):
            line = trace.tb_lineno
        trace = trace.tb_next
    return {"status": "raised", "ename": type(error).__name__, "evalue": str(error)[:300], "line": line}


def _offer(value: Any) -> int:
    HANDLES.append(value)
    return len(HANDLES) - 1
