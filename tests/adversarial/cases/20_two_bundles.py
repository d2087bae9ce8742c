# Two bundles of evidence for one question
# expect: graded 0 had not asked
import agent
import json


def twice(nonce, text):
    for output in ("0x1p-1", "0x1p0"):
        value = {"t": "float", "v": output}
        inputs = json.loads(text)["inputs"]
        answer = {"nonce": nonce, "status": "returned", "output": value, "inputs": inputs}
        get_ipython().display_pub.publish(data={agent.MIME: json.dumps(answer)})


agent.reply = twice


def dice(prediction, truth):
    return 0.123
