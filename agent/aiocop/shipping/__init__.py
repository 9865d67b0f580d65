"""From counters to the collector: one thread that takes what was counted, freezes it into reports, and delivers them.

report_source (aggregate) ─> shipper ─> pending ─> reports / datagrams (fit) ─> unix_transport / udp_transport
                                └── ledger: where every blocking call is, at any moment
"""

from aiocop.shipping.shipper import Shipper

__all__ = ["Shipper"]
