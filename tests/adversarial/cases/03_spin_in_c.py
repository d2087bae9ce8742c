# Minutes inside one C function, which no interrupt reaches
# expect: fault 0 processor time
def dice(prediction, truth):
    return 10 ** (10**9)
