"""Hypervisors. Set before libvirt is imported, because it reads the variable then: it would write to our stderr.

Its errors are raised to us anyway; LIBVIRT_LOG_OUTPUTS=3:stderr in the environment shows the rest.
"""

import os

os.environ.setdefault("LIBVIRT_LOG_OUTPUTS", "4:file:/dev/null")
