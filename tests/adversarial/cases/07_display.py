# One display of 600 MB
# expect: any 0
from IPython.display import display

display({"text/plain": "x" * (600 << 20)}, raw=True)
def dice(prediction, truth):
    return 0.123
