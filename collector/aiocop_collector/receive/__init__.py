"""Sockets to arrivals: everything a peer sends is decoded, checked and counted here, and handed to the store."""

from aiocop_collector.receive.controls import Controls
from aiocop_collector.receive.heartbeats import Heartbeats
from aiocop_collector.receive.udp import UdpReceiver
from aiocop_collector.receive.unix import UnixReceiver

__all__ = ["Controls", "Heartbeats", "UdpReceiver", "UnixReceiver"]
