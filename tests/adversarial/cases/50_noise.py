# A right answer with much noise on stderr
# expect: graded 3
import sys
import warnings

warnings.warn("NNPACK could not be initialised", stacklevel=1)
print("noise", file=sys.stderr)


def dice(prediction, truth):
    warnings.warn("once more", stacklevel=1)
    print("noise", file=sys.stderr)
    both = np.count_nonzero(prediction & truth)
    total = np.count_nonzero(prediction) + np.count_nonzero(truth)
    return 2 * both / total if total else 1.0
