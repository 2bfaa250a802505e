"""The proof that CRIU leaves out what did not change, and nothing else: by the preload library, or by soft-dirty bits.

What the library does rests on how one CRIU asks one kernel, so each pair of them is tried before it is trusted: a
small child is write-protected and its memory copied, it changes some of it in the ways that matter, and CRIU dumps it.
Every page that CRIU leaves out must be as it was in the copy.  Where the kernel has soft-dirty bits the same is asked
of those, and of CRIU without the library.
"""

from __future__ import annotations

from snaplib.checkpoint.shimproof.proof import prove_shim, prove_soft_dirty
from snaplib.checkpoint.shimproof.trust import trust_soft_dirty, trusted_shim

__all__ = ["prove_shim", "prove_soft_dirty", "trust_soft_dirty", "trusted_shim"]
