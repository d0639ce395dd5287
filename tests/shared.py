"""What several test modules say alike."""

# Ends the process at the first look-up or connection; an exception could be swallowed.
NO_NETWORK = """
import os, socket, sys
def refuse(*args, **kwargs):
    print("network:", args, file=sys.stderr, flush=True)
    os._exit(77)
socket.getaddrinfo = socket.gethostbyname = socket.create_connection = refuse
class Refusing(socket.socket):
    def connect(self, address):
        return super().connect(address) if self.family == socket.AF_UNIX else refuse(address)
    def connect_ex(self, address):
        return super().connect_ex(address) if self.family == socket.AF_UNIX else refuse(address)
    def sendto(self, *args):
        return super().sendto(*args) if self.family == socket.AF_UNIX else refuse(args)
socket.socket = Refusing
"""


def tiny_model(augment: str = "none") -> str:
    """Return the YAML of a net that trains on a few pictures of 16 px in a second."""
    return f"""
backbone: {{name: compact_net, pretrained: none, kwargs: {{widths: [8, 8, 16]}}}}
input: {{image_size: 16}}
augment: {augment}
optim: {{lr: 1e-2, epochs: 4, batch_size: 8, warmup_epochs: 0.5, ema_decay: 0.9}}
"""
