"""Asks a Ceph monitor for the number of a storage daemon, the first: `python ceph_new_osd.py UUID`.

A process of its own: the libraries are found through its environment, and Ceph's command needs Debian's Python.
"""

import ctypes
import json
import sys


def main() -> None:
    """Reads the configuration that the variable CEPH_CONF names."""
    rados = ctypes.CDLL("librados.so.2")
    cluster, answer, status = ctypes.c_void_p(), ctypes.c_char_p(), ctypes.c_char_p()
    answer_size, status_size = ctypes.c_size_t(), ctypes.c_size_t()
    command = (ctypes.c_char_p * 1)(json.dumps({"prefix": "osd new", "uuid": sys.argv[1]}).encode())
    _require(rados.rados_create(ctypes.byref(cluster), None))
    _require(rados.rados_conf_read_file(cluster, None))
    _require(rados.rados_connect(cluster))
    outputs = (ctypes.byref(output) for output in (answer, answer_size, status, status_size))
    none = ctypes.c_size_t(0)
    _require(rados.rados_mon_command(cluster, command, ctypes.c_size_t(1), b"", none, *outputs))
    rados.rados_shutdown(cluster)


def _require(result: int) -> None:
    if result < 0:
        raise SystemExit(f"librados: error {-result}")


if __name__ == "__main__":
    main()
