# A number whose class lies about equality and difference
# expect: graded 0
class Liar(float):
    def __eq__(self, other):
        return True

    def __sub__(self, other):
        return 0.0


def dice(prediction, truth):
    return Liar(0.3)
