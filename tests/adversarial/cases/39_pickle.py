# An object that runs a command when it is unpickled
# expect: graded 0 an object of class Payload
import os


class Payload:
    def __reduce__(self):
        return (os.system, ("touch /tmp/labkit-was-here",))


def dice(prediction, truth):
    return Payload()
