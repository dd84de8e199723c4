"""All servers that Sidecar is measured beside."""

from bench.peers import infinity, litserve, llama_cpp, mosec

PEERS = (infinity.PEER, mosec.PEER, litserve.PEER, llama_cpp.PEER)
SERVICES = tuple(service.name for peer in PEERS for service in peer.services)
