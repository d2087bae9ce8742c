# Evidence that claims an array of 4 TB
# expect: graded 0 disagree
import agent
import json


def huge(nonce, text):
    value = {"t": "array", "id": 99, "dtype": "float64", "shape": [2**39], "data": ""}
    inputs = json.loads(text)["inputs"]
    answer = {"nonce": nonce, "status": "returned", "output": value, "inputs": inputs}
    get_ipython().display_pub.publish(data={agent.MIME: json.dumps(answer)})


agent.reply = huge


def dice(prediction, truth):
    return 0.123
