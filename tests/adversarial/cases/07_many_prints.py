# A hundred thousand prints
# expect: fault 0 printed
def dice(prediction, truth):
    for number in range(100_000):
        print(number, flush=True)
