# SPDX-License-Identifier: LGPL-2.1-or-later
"""Results as text, JSON, NDJSON and CSV; nothing here reads kernel memory."""
