"""Does a server compute what the registry's version computes?

The likelihoods of fixed tokens are compared with the version's golden record. The base model is asked first: it shows
whether the server has the same base at all, and how far this server's arithmetic is from that of the record. The
adapter may then be off by as much as rounding can explain, and no more. An adapter that was left out, read with
another scale, or is another version's, differs by about its whole effect.
"""

from __future__ import annotations

from dataclasses import dataclass

from inhouse_retrieval.errors import InhouseError
from inhouse_server.vllm.client import VllmClient
from inhouse_training import Golden, distance

BASE_BOUND = 0.1
"""Nats per token by which the base may differ: bfloat16 against float32 stays far below, another model far above."""
LEAST_BOUND = 0.01
"""What is allowed to an adapter whose base agrees exactly."""
ROUNDING = 3.0
"""How many times the base's difference an adapter may show: it adds a rounding of its own to each layer."""


class OtherBase(InhouseError):
    """The server's base model is another one, so that nothing it answers is what it is said to be."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a server's figures compare, in nats per token.

    Attributes:
        base, adapter: distance from the record without and with the adapter.
        bound: what the adapter was allowed.
        effect: how far the adapter moves the base in the record.
    """

    base: float
    adapter: float
    bound: float
    effect: float

    @property
    def telling(self) -> bool:
        """Whether an adapter that was left out would have been noticed."""
        return self.effect > self.bound


def check_server(client: VllmClient, base: str, golden: Golden) -> Verdict:
    """Ask ``client`` for the fixed texts.

    Args:
        base: the server's name of the base model.
        golden: its ``version`` is the server's name of the adapter.

    Raises:
        OtherBase: the server has another base model.
        InhouseError: it computes something else with the adapter.
    """
    served_base = distance(golden.base, [client.nats(base, ids) for ids in golden.ids])
    if not served_base <= BASE_BOUND:
        raise OtherBase(
            f"The base model {base!r} at {client.url} is not {golden.base_model}: it is {served_base:.3f} nats per "
            f"token off, and {BASE_BOUND} is allowed.",
            "Start that server with the base model that the adapter was trained on.",
        )
    bound = max(LEAST_BOUND, ROUNDING * served_base)
    served = distance(golden.adapter, [client.nats(golden.version, ids) for ids in golden.ids])
    if not served <= bound:
        raise InhouseError(
            f"{client.url} computes something else for {golden.version}: {served:.3f} nats per token off, and "
            f"{bound:.3f} is allowed.",
            "Restart that server; if it stays so, its vLLM does not read this adapter as it was trained.",
        )
    return Verdict(served_base, served, bound, golden.effect)
