# SPDX-License-Identifier: LGPL-2.1-or-later
"""
ZONE_DEVICE Memory
------------------

The ``zonedev.helpers`` module provides helpers for the struct pages of ZONE_DEVICE memory (pmem and DAX, device-dax, CXL,
GPU memory, P2PDMA). It is all that a script or a session needs to import::

    from zonedev.helpers import *

Each helper takes a :class:`drgn.Program` first, which may be left out in drgn's prompt and in its scripts. What audits and
explanations result in is plain data: it stays valid when the kernel goes on or the Program is gone. A Program without types is given
those that the kernel has of itself.
"""

from zonedev.audit import (
    audit,
    dax_files,
    dev_pagemap_ranges,
    folio,
    for_each_dax_entry,
    for_each_dev_pagemap,
    list_pagemaps,
    rules_applicability,
    scheme,
    validate,
)
from zonedev.errors import TargetError, UsageError, ValidationError, ZonedevError
from zonedev.explain import explain
from zonedev.waiters import waiters

__all__ = (
    "TargetError",
    "UsageError",
    "ValidationError",
    "ZonedevError",
    "audit",
    "dax_files",
    "dev_pagemap_ranges",
    "explain",
    "folio",
    "for_each_dax_entry",
    "for_each_dev_pagemap",
    "list_pagemaps",
    "rules_applicability",
    "scheme",
    "validate",
    "waiters",
)
