# The right nonce, taken from the question, with values that are made up
# expect: graded 0
import agent
import json


def stolen(nonce, text):
    inputs = json.loads(text)["inputs"]
    value = {"t": "float", "v": (0.5).hex()}
    answer = {"nonce": nonce, "status": "returned", "output": value, "inputs": inputs}
    get_ipython().display_pub.publish(data={agent.MIME: json.dumps(answer)})


agent.reply = stolen


def dice(prediction, truth):
    return 0.123
