# 400 files of 1 MB
# expect: graded 0 OSError
def dice(prediction, truth):
    for number in range(400):
        with open(f"/tmp/{number}", "wb") as file:
            file.write(bytes(1 << 20))
