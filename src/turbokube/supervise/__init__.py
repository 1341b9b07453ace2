"""Local processes of a run: kept by supervisord, awaited by their health, stopped in order."""

from .actors import Actor, Issuer
from .health import Health
from .ports import PortTaken, choose_ports, listening, recorded_ports
from .supervisor import ProcessFailed, Program, Supervisor
from .teardown import ORDER, processes, remove_sockets, stop_all

__all__ = [
    "ORDER",
    "Actor",
    "Health",
    "Issuer",
    "PortTaken",
    "ProcessFailed",
    "Program",
    "Supervisor",
    "choose_ports",
    "listening",
    "processes",
    "recorded_ports",
    "remove_sockets",
    "stop_all",
]
