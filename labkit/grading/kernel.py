"""nbval's kernel, jailed: started by the zygote, watched while it works, ended when it takes too much."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from importlib.metadata import EntryPoint
from pathlib import Path
from queue import Empty

import zmq
from jupyter_client import BlockingKernelClient, KernelManager
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.provisioning import KernelProvisionerFactory, LocalProvisioner
from nbval.kernel import RunningKernel

from labkit.grading.jail import JailBroken, Limits, Zygote
from labkit.grading.watch import Fault, Watch

NAME = "labkit-jail"
FRAME = 8 << 20  # bytes of one message; a larger one closes the connection
FRAMES = 64  # messages that may wait to be read
JOIN = 0.05  # seconds between two attempts to be heard by a new kernel
CONNECT = 5  # milliseconds between two looks for its sockets
TICK = 0.2  # seconds between two looks at a working kernel


PARTS = {  # what nbval and we read of a message's content, by its type
    "status": {"execution_state": str},
    "stream": {"name": str, "text": str},
    "display_data": {"data": dict, "metadata": dict},
    "execute_result": {"data": dict, "metadata": dict, "execution_count": (int, type(None))},
    "error": {"ename": str, "evalue": str, "traceback": list},
}


def whole(message: dict) -> bool:
    """Whether a message has the parts that are read of it; a student's code can send any JSON."""
    content, parent = message.get("content"), message.get("parent_header")
    kind = message.get("msg_type")
    if not (isinstance(content, dict) and isinstance(parent, dict) and isinstance(kind, str)):
        return False
    parts = all(isinstance(content.get(name), types) for name, types in PARTS.get(kind, {}).items())
    return parts and all(isinstance(line, str) for line in content.get("traceback", ()) or ())


class JailProvisioner(LocalProvisioner):
    """Jupyter's way to say where kernels run: ours are forked by a zygote in the jail."""

    async def launch_kernel(self, cmd, **kwargs):
        start = self.parent.jail
        info = {**self.connection_info, "key": self.connection_info["key"].decode()}
        self.process = start(info)
        self.pid = self.process.pid
        return self.connection_info

    async def send_signal(self, signum):
        if self.process:
            self.process.send_signal(signum)

    async def kill(self, restart=False):
        if self.process:
            self.process.kill()

    terminate = kill


class JailedClient(BlockingKernelClient):
    """A client that takes no message beyond FRAME bytes."""

    def _create_connected_socket(self, channel, identity=None):
        self.context.setsockopt(zmq.MAXMSGSIZE, FRAME)  # what the next socket is born with
        self.context.setsockopt(zmq.RCVHWM, FRAMES)
        self.context.setsockopt(zmq.RECONNECT_IVL, CONNECT)
        return super()._create_connected_socket(channel, identity)


class OnlyJail(KernelSpecManager):
    """Whatever a notebook names as its kernel, it gets ours."""

    def get_kernel_spec(self, kernel_name):
        return KernelSpec(
            argv=["zygote"],
            display_name=NAME,
            language="python",
            interrupt_mode="message",
            metadata={"kernel_provisioner": {"provisioner_name": NAME}},
        )


class JailedKernel(RunningKernel):
    """RunningKernel that is watched, and looks at life and output of what it waits for."""

    def __init__(self, zygote: Zygote, course: str, hide: list[str], limits: Limits):
        factory = KernelProvisionerFactory.instance()
        factory.provisioners[NAME] = EntryPoint(NAME, f"{__name__}:JailProvisioner", factory.GROUP_NAME)
        self.zygote, self.limits = zygote, limits
        self.waiting: deque = deque()
        self.seen = self.shown = 0
        self.ended: Fault | JailBroken | None = None
        self.number = zygote.count + 1
        folder = zygote.sockets_of(self.number)
        relative = folder.relative_to(Path.cwd())  # a socket's path may have 107 bytes only
        self.km = KernelManager(kernel_name=NAME, kernel_spec_manager=OnlyJail())
        self.km.transport, self.km.ip = "ipc", f"{relative}/k"
        self.km.connection_file = str(zygote.folder / f"kernel-{folder.name}.json")
        self.km.__dict__["jail"] = lambda info: zygote.start(info, course, hide, limits)
        self.km.client_factory = JailedClient
        self.watch, self.kc = Watch(zygote, limits), None
        try:
            self.km.start_kernel()
            self.kc = self.km.client()
            self.kc.start_channels(stdin=False, hb=False, control=False)  # none that nobody would drain
            self._ensure_iopub_up()
            self.watch.settle()
        except BaseException as error:
            with contextlib.suppress(JailBroken):
                self.stop()  # a context of zmq that is only forgotten waits for its open sockets for ever
            if isinstance(error, (RuntimeError, Fault, Empty)):
                raise JailBroken(f"a kernel did not start: {error}") from error
            raise
        self.seen = self.shown = 0

    def _ensure_iopub_up(self):
        """Ask until an answer is also seen on iopub, which connects later; nbval asks once a second."""
        for _ in range(600):
            message = self.kc.kernel_info()
            self.await_reply(message)
            try:
                return self.await_idle(message, JOIN)
            except Empty:
                continue
        raise RuntimeError("it says nothing on iopub")

    def execute_cell_input(self, cell_input, allow_stdin=None):
        self.seen = self.shown = 0  # the quota is one request's
        return super().execute_cell_input(cell_input, allow_stdin)

    def await_reply(self, msg_id, timeout=None):
        shell = self.kc.shell_channel.socket
        while True:
            self._drain()
            if not shell.poll(TICK * 1000):
                self.look()
                continue
            message = self._received(shell)
            if message and message["parent_header"].get("msg_id") == msg_id:
                return

    def get_message(self, stream, timeout=None):
        """The next message; a kernel that says nothing is looked at, and waited for up to `timeout`."""
        end = time.monotonic() + (timeout or 0)
        while True:
            self._drain()
            if self.waiting:
                return self.waiting.popleft()
            rest = max(0.0, min(TICK, end - time.monotonic()))
            if not self.kc.iopub_channel.socket.poll(1000 * rest):
                self.look()
            if time.monotonic() > end:
                raise Empty

    def look(self) -> None:
        """Fault if the kernel is gone or was ended for what it took or showed; JailBroken if by our fault."""
        self.ended = self.ended or self.watch.fault
        if not self.ended and self.zygote.ended(self.number):
            died = Fault("died", "the kernel died (os._exit, a crash, or out of memory)")
            self.ended = self.watch.last_look() or died
        if self.ended:
            raise self.ended

    def stop(self):
        """End the kernel and all it started."""
        try:
            self.zygote.kill()
        finally:
            self.watch.stop()
            if self.kc:
                self.kc.stop_channels()
            self.km.cleanup_resources()

    def _drain(self) -> None:
        """Take what was shown off the wire, so that it piles up nowhere; Fault beyond a limit."""
        if self.watch.fault:
            self.look()
        while self.kc.iopub_channel.socket.poll(0):
            if message := self._received(self.kc.iopub_channel.socket):
                self.waiting.append(message)

    def _received(self, socket) -> dict | None:
        """One message from the jail, counted before it is looked at; None when it is not one of Jupyter's."""
        frames = socket.recv_multipart()
        self.seen += 1
        self.shown += sum(map(len, frames))
        if self.shown > self.limits.output or self.seen > self.limits.messages:
            self._end("output", "it printed or displayed more than a notebook can hold")
        try:
            _, frames = self.kc.session.feed_identities(frames)
            message = self.kc.session.deserialize(frames)
        except Exception:  # unsigned, not JSON, too deep
            return None
        return message if whole(message) else None

    def _end(self, kind: str, reason: str) -> None:
        self.zygote.kill()
        self.ended = Fault(kind, reason)
        raise self.ended
