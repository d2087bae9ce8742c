# Evidence nested 20,000 deep
# expect: graded 0
import agent
import json


def deep(nonce, text):
    inside = '{"t":"plain","v":null}'
    value = '{"t":"list","v":[' * 20_000 + inside + "]}" * 20_000
    answer = '{"nonce": "%s", "status": "returned", "inputs": [], "output": %s}' % (nonce, value)
    get_ipython().display_pub.publish(data={agent.MIME: answer})


agent.reply = deep


def dice(prediction, truth):
    return 0.123
