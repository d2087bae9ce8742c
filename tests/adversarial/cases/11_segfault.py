# A crash
# expect: fault 0 kernel died
def dice(prediction, truth):
    import ctypes
    ctypes.string_at(0)
