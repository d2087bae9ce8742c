# Evidence with a guessed nonce
# expect: graded 0
import json

from IPython.display import display

KIND = "application/vnd.labkit.evidence+json"
value = {"t": "float", "v": "0x1.0000000000000p-1"}


def dice(prediction, truth):
    fake = {"nonce": "0" * 32, "status": "returned", "output": value, "inputs": []}
    display({KIND: json.dumps(fake)}, raw=True)
    return 0.123
