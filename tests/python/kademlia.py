"""Another's Kademlia in casd's network: py-libp2p, of which nothing is changed but the name of the protocol.

    kademlia.py NETWORK OBJECT KEY ADDRESS...

Joins over TCP by the addresses (each ending in /p2p/PEERID), asks by GET_PROVIDERS who has the object and prints
`provider PEERID` for each; then says by ADD_PROVIDER that it has the key itself, prints `provides PEERID` and stays
until its input ends. Object and key are 64 hex digits. It also answers casd's hello, in which each node of a network
says where its chunk port is: this one names a port at which nobody is.
"""

import sys

import libp2p.kad_dht.common

NETWORK, OBJECT, KEY = sys.argv[1], bytes.fromhex(sys.argv[2]), bytes.fromhex(sys.argv[3])
PROTOCOL = f"/casd/{NETWORK}/kad/1.0.0"
# Before anything else: the other modules take the constant from here when they are loaded.
libp2p.kad_dht.common.PROTOCOL_ID = PROTOCOL
for name, module in list(sys.modules.items()):
    if name.startswith("libp2p.") and hasattr(module, "PROTOCOL_ID") and module.PROTOCOL_ID == "/ipfs/kad/1.0.0":
        module.PROTOCOL_ID = PROTOCOL

import multiaddr
import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.custom_types import TProtocol
from libp2p.kad_dht.kad_dht import DHTMode, KadDHT
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.security.tls.transport import PROTOCOL_ID as TLS
from libp2p.security.tls.transport import TLSTransport
from libp2p.tools.anyio_service import background_trio_service

# Version 1, gives chunks, one address: at wherever this node is seen, port 9999.
HELLO = bytes([1, 1, 1, 0]) + (9999).to_bytes(2, "little")
PATIENCE = 60


async def hello(stream):
    """Answers a hello, whatever it says."""
    await stream.read()
    await stream.write(HELLO)
    await stream.close()


async def until(what, found):
    """What `found` gives once it gives something."""
    with trio.move_on_after(PATIENCE):
        while True:
            if result := await found():
                return result
            await trio.sleep(0.1)
    sys.exit(f"in vain: {what}")


async def main(addresses):
    keys = create_new_key_pair()
    listen = [multiaddr.Multiaddr("/ip4/127.0.0.1/tcp/0")]
    host = new_host(key_pair=keys, sec_opt={TLS: TLSTransport(keys)}, muxer_preference="YAMUX", listen_addrs=listen)
    host.set_stream_handler(TProtocol(f"/casd/{NETWORK}/hello/1"), hello)
    dht = KadDHT(host, DHTMode.SERVER)
    async with host.run(listen_addrs=listen), background_trio_service(dht):
        for address in addresses:
            info = info_from_p2p_addr(multiaddr.Multiaddr(address))
            await host.connect(info)
            await until("the other says what it speaks", lambda: dht.add_peer(info.peer_id))
        found = await until("somebody has the object", lambda: dht.provider_store.find_providers(OBJECT))
        for provider in {found.peer_id for found in found}:
            print("provider", provider.to_string(), flush=True)
        await until("somebody takes the key", lambda: dht.provider_store.provide(KEY))
        print("provides", host.get_id().to_string(), flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)


trio.run(main, sys.argv[4:])
