# Reaching for the network
# expect: graded 3
import socket

reached = []
for address in (("1.1.1.1", 53), ("127.0.0.1", 22), ("localhost", 80)):
    try:
        socket.create_connection(address, timeout=1)
        reached.append(address)
    except OSError:
        pass
try:
    socket.getaddrinfo("pypi.org", 443)
    reached.append("names")
except OSError:
    pass
if reached:
    raise AssertionError(f"these can be reached: {reached}")


def dice(prediction, truth):
    both = np.count_nonzero(prediction & truth)
    total = np.count_nonzero(prediction) + np.count_nonzero(truth)
    return 2 * both / total if total else 1.0
