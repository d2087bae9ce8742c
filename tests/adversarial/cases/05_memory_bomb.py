# More memory than any computer has
# expect: graded 0 MemoryError
def dice(prediction, truth):
    return len(bytearray(1 << 40))
