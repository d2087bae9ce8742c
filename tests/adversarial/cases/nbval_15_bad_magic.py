# A magic that does not exist, as the first line
# expect: graded 0 NameError
%notmagic
def dice(prediction, truth):
    return 0.123
