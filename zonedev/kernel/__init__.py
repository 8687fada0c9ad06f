# SPDX-License-Identifier: LGPL-2.1-or-later
"""Everything that knows how kernels differ."""
