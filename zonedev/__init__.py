# SPDX-License-Identifier: LGPL-2.1-or-later
"""zonedev: audits the struct pages of ZONE_DEVICE memory (see README.md)."""
