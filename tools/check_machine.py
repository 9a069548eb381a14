"""Say in plain words what this machine lacks, before pip says it in others.

Runs on any Python 3, with nothing installed.
"""

import platform
import sys

WHEELS = {
    ("Linux", "x86_64"): "glibc",
    ("Linux", "aarch64"): "glibc",
    ("Darwin", "arm64"): "macOS 15",
}


def main():
    """Exit with a message unless Envoy, NATS and the other parts exist as wheels for this machine."""
    system, machine = platform.system(), platform.machine()
    faults = []
    if sys.version_info < (3, 11):
        faults.append("Python 3.11 or newer is needed, this is " + platform.python_version())
    if (system, machine) not in WHEELS:
        faults.append(
            "Envoy comes as a wheel for Linux (x86_64, aarch64) and macOS (arm64); this is %s %s"
            % (system, machine)
        )
    elif system == "Linux" and platform.libc_ver()[0] != "glibc":
        faults.append("Envoy's wheel needs glibc 2.31 or newer; this Linux has another C library")
    elif system == "Darwin" and int(platform.mac_ver()[0].split(".")[0] or 0) < 15:
        faults.append("Envoy's wheel needs macOS 15 or newer; this is " + platform.mac_ver()[0])
    try:
        import ensurepip  # noqa: F401, PLC0415
    except ImportError:
        faults.append(
            "Python's venv and ensurepip are needed (on Debian and Ubuntu: apt install python3-venv)"
        )
    if faults:
        sys.exit("Torpor cannot be set up here:\n  " + "\n  ".join(faults))


if __name__ == "__main__":
    main()
