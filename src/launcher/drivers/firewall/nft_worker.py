"""A small process that keeps libnftables: a transaction costs no fork, and no foreign C code runs in the launcher.

Reads requests from stdin: a line with the length of the commands in bytes and 1 for a listing without elements, else
0, then the commands in nft(8)'s language. Runs them as one transaction and answers with a line `code output-length
error-length`, then both texts.
Run as a file, without the launcher's packages and site-packages, so that it stays small. Ends when stdin does.
"""

from __future__ import annotations

import ctypes
import sys

LIBRARY = "libnftables.so.1"
_JSON, _TERSE = 1 << 4, 1 << 11  # NFT_CTX_OUTPUT_… of libnftables(3)


def main() -> None:
    lib = ctypes.CDLL(LIBRARY)
    lib.nft_ctx_new.restype = ctypes.c_void_p
    lib.nft_ctx_get_output_buffer.restype = lib.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
    context = ctypes.c_void_p(lib.nft_ctx_new(0))
    lib.nft_ctx_buffer_output(context)
    lib.nft_ctx_buffer_error(context)
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    while line := stdin.readline():
        length, terse = map(int, line.split())
        lib.nft_ctx_output_set_flags(context, _JSON | (_TERSE if terse else 0))
        code = lib.nft_run_cmd_from_buffer(context, stdin.read(length))
        output, error = lib.nft_ctx_get_output_buffer(context), lib.nft_ctx_get_error_buffer(context)
        stdout.write(b"%d %d %d\n%b%b" % (code, len(output), len(error), output, error))
        stdout.flush()


if __name__ == "__main__":
    main()
