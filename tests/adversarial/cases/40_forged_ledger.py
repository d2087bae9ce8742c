# Writing a ledger of its own
# expect: graded 0
import json

for name in ("results.json", "ledger.jsonl", "/tmp/results.json", "../scores.csv"):
    try:
        with open(name, "w") as file:
            json.dump({"score": 100, "dice": 3}, file)
    except OSError:
        pass


def dice(prediction, truth):
    return 0.123
