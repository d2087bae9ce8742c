# Error messages are dropped on their way out
# expect: graded 0
session = get_ipython().kernel.session
send = session.send


def silent(stream, kind, *given, **named):
    if kind != "error":
        return send(stream, kind, *given, **named)


session.send = silent


def dice(prediction, truth):
    return 0.123
