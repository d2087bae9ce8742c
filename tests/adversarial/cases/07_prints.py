# 1.2 GB of prints
# expect: fault 0 printed
def dice(prediction, truth):
    for _ in range(1200):
        print("x" * (1 << 20))
