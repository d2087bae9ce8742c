# The course's own function, imported
# expect: graded 0 own answer
from labkit.metrics import dice
