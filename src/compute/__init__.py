"""What computes, and with how much: device, precision, memory, time."""
