# An object that is equal to everything
# expect: graded 0 an object of class Equal
class Equal:
    def __eq__(self, other):
        return True

    def __float__(self):
        return 0.5


def dice(prediction, truth):
    return Equal()
