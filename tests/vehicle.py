"""A flight controller for the tests, by pymavlink: flies north-east from (-35.0, 149.0) and tells what it is told.

    vehicle.py udp PORT     sends to 127.0.0.1:PORT
    vehicle.py serial       opens a pseudo-terminal and prints its name

Lines on standard input: `arm`, `disarm`, `fix N`, `mute`, `speak`. Each message it receives is a line of JSON on standard output.
"""

import json
import os
import pty
import select
import socket
import sys
import time
import tty

from pymavlink.dialects.v20 import common

RATE = 10.0


class Line:
    """A datagram socket, or the far end of a serial line."""

    def __init__(self, arguments):
        if arguments[0] == "udp":
            self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.socket.connect(("127.0.0.1", int(arguments[1])))
            self.descriptor = self.socket.fileno()
        else:
            self.descriptor, self.slave = pty.openpty()
            tty.setraw(self.slave)
            print(json.dumps({"line": os.ttyname(self.slave)}), flush=True)

    def write(self, data):
        try:
            os.write(self.descriptor, data)
        except ConnectionRefusedError:
            pass  # nobody listens yet

    def read(self):
        try:
            return os.read(self.descriptor, 65536)
        except ConnectionRefusedError:
            return b""


def main():
    line = Line(sys.argv[1:])
    sender = common.MAVLink(line, srcSystem=1, srcComponent=1)
    receiver = common.MAVLink(None)
    receiver.robust_parsing = True
    started = time.monotonic()
    armed, fix, muted = False, 3, False
    while True:
        ready, _, _ = select.select([line.descriptor, sys.stdin], [], [], 1 / RATE)
        if sys.stdin in ready:
            words = sys.stdin.readline().split()
            if not words:
                return
            if words[0] in ("arm", "disarm"):
                armed = words[0] == "arm"
            elif words[0] == "fix":
                fix = int(words[1])
            else:
                muted = words[0] == "mute"
        if line.descriptor in ready:
            for message in receiver.parse_buffer(line.read()) or []:
                told = message.to_dict() | {"system": message.get_srcSystem(), "component": message.get_srcComponent()}
                print(json.dumps(told, default=repr), flush=True)
        if not muted:
            speak(sender, time.monotonic() - started, armed, fix)


def speak(sender, seconds, armed, fix):
    boot = int(seconds * 1000) + 5000
    latitude, longitude = int((-35 + seconds * 1e-5) * 1e7), int((149 + seconds * 1e-5) * 1e7)
    mode = 81 | (128 if armed else 0)
    sender.heartbeat_send(2, 3, mode, 0, 4)
    sender.system_time_send(int(time.time() * 1e6), boot)
    sender.gps_raw_int_send(boot * 1000, fix, latitude, longitude, 600000, 90, 120, 0, 0, 12, h_acc=850)
    sender.attitude_send(boot, 0.0, 0.0, 0.7853981633974483, 0, 0, 0)
    sender.global_position_int_send(boot, latitude, longitude, 600000, 40000, 0, 0, 0, 4500)


main()
