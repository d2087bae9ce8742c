# An array whose class lies about equality
# expect: graded 0
class Liar(np.ndarray):
    def __eq__(self, other):
        return True


def dice(prediction, truth):
    return np.zeros(()).view(Liar)
